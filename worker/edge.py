"""The edge of every command: options that all share, configuration read once, errors in words."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from pydantic_core import to_json
from rich.console import Console
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from db import migrate
from db.base import Database
from db.errors import DatabaseError
from dicom_node.errors import DicomNodeError
from engines.errors import EngineError
from worker import settings as configuration
from worker.errors import ConfigurationError, DiskFull, WorkerError
from worker.settings import Settings

#: What was asked for failed.
FAILED = 1
#: The command or the configuration is wrong.
MISUSED = 2

#: Columns of text that a table with UIDs needs.
_WITH_UIDS = 150

#: Answers go to standard output, everything else to standard error.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
errors = Console(stderr=True, highlight=False)

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", envvar=configuration.CONFIG_VARIABLE, help="The configuration file (YAML)."),
]
DataOption = Annotated[
    Path | None, typer.Option("--data", help="The storage folder, instead of the configured one.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def load(config: Path | None, data: Path | None) -> Settings:
    """Read the configuration, and hand it on to the processes that this one starts."""
    settings = configuration.load(config, storage=data)
    if config is not None:
        os.environ[configuration.CONFIG_VARIABLE] = str(config.resolve())
    os.environ["SECONDREAD_STORAGE"] = str(settings.storage)
    return settings


@contextmanager
def database(config: Path | None, data: Path | None) -> Iterator[Database]:
    """The configured database for a question. Raises ConfigurationError where there is none yet."""
    settings = load(config, data)
    if settings.database == "sqlite" and not (settings.storage / "secondread.db").exists():
        raise ConfigurationError(
            f"{settings.storage}: holds no database; start `secondread up` here, or name the folder with --data"
        )
    with Database(settings.database_url) as opened:
        at = migrate.current(opened)
        if at != migrate.newest():
            raise WorkerError(
                f"the database is at revision {at or 'none'}, this version needs {migrate.newest()}; "
                "run `secondread db upgrade`"
            )
        yield opened


def show(rows: Sequence[object] | BaseModel, *, as_json: bool, columns: Sequence[str] = ()) -> None:
    """Print rows as JSON, or the named fields of each as a table."""
    if as_json:
        typer.echo(to_json(rows, indent=2).decode())
        return
    listed = [rows] if isinstance(rows, BaseModel) else rows
    # Beside UIDs, which stay in one piece to be copied, a narrow terminal has no room: it wraps lines itself.
    narrow = console.width < _WITH_UIDS and any(name.endswith("_uid") for name in columns)
    width = _WITH_UIDS if narrow else None
    table = Table(box=None, pad_edge=False, header_style="bold", width=width)
    for name in columns:
        table.add_column(name.replace("_", " "), overflow="fold", no_wrap=name.endswith("_uid"))
    for row in listed:
        table.add_row(*(Text(text(getattr(row, name))) for name in columns))
    console.print(table if listed else "nothing", crop=False)


def text(value: Any) -> str:
    """A field's value for a table."""
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key} {count}" for key, count in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    if hasattr(value, "astimezone"):
        return str(value.astimezone().strftime("%Y-%m-%d %H:%M:%S"))
    return f"{value:.1f}" if isinstance(value, float) else str(value)


@contextmanager
def explained() -> Iterator[None]:
    """Turn the errors that we raise on purpose into a sentence and an exit code."""
    try:
        yield
    except ConfigurationError as error:
        errors.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(MISUSED) from error
    except (WorkerError, DatabaseError, DicomNodeError, EngineError) as error:
        errors.print(str(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(FAILED) from error
    except SQLAlchemyError as error:
        errors.print(_said(error), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(FAILED) from error
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        errors.print(str(DiskFull(_storage())), style="red", markup=False, soft_wrap=True)
        raise typer.Exit(FAILED) from error


def _said(error: SQLAlchemyError) -> str:
    """What a person is told about the database's error."""
    said = cause(error)
    if "disk is full" in said:  # SQLite: beside the images
        return str(DiskFull(_storage()))
    if "No space left on device" in said:  # PostgreSQL: where its server is
        return f"the disk of the database's server is full ({said}): make room there"
    return f"the database does not answer ({said}); check the setting `database`"


def _storage() -> str:
    """The storage folder that `load` handed on."""
    return os.environ.get("SECONDREAD_STORAGE", "the storage folder")


def cause(error: SQLAlchemyError) -> str:
    """The driver's own words, as one line."""
    return str(getattr(error, "orig", None) or type(error).__name__).splitlines()[0]
