"""Commands about model packages: list and check."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from worker import edge
from worker.commands import importing
from worker.edge import ConfigOption, DataOption, JsonOption
from worker.errors import WorkerError

app = typer.Typer(no_args_is_help=True)
app.command("import-nnunet")(importing.import_nnunet)


class ModelLine(BaseModel):
    """A package in a list."""

    name: str
    version: str
    task: str
    research_only: bool
    digest: str
    folder: Path
    problem: str = ""


@app.command("list")
def list_models(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the packages, and what is wrong with those that cannot be used."""
    from worker.shelf import Shelf

    settings = edge.load(config, data)
    shelf = Shelf(settings.models)
    lines = [
        ModelLine(
            name=package.manifest.name,
            version=package.manifest.version,
            task=package.manifest.task,
            research_only=package.manifest.research_only,
            digest=package.digest,
            folder=package.folder,
        )
        for package in shelf.packages.values()
    ]
    edge.show(
        lines, as_json=as_json, columns=("name", "version", "task", "research_only", "digest", "folder")
    )
    for problem in shelf.problems:
        edge.errors.print(str(problem), style="red", markup=False, soft_wrap=True)
    if shelf.problems:
        raise typer.Exit(edge.FAILED)


@app.command("check")
def check(
    names: Annotated[list[str] | None, typer.Argument(help="Packages by name. Default: all.")] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check packages: digests, and every engine's answer against the reference engine's."""
    from worker import parity
    from worker.shelf import Shelf

    shelf = Shelf(edge.load(config, data).models)
    verdicts = [parity.compare(shelf.package(name)) for name in (names or [*shelf.packages])]
    edge.show(verdicts, as_json=as_json, columns=tuple(parity.Verdict.model_fields))
    for verdict in verdicts:
        importing.warn(shelf.package(verdict.model))
    problems = [str(problem) for problem in shelf.problems] if not names else []
    problems += [
        f"{verdict.model}: {verdict.engine} does not agree with the reference"
        for verdict in verdicts
        if not verdict.agrees
    ]
    if problems:
        raise WorkerError("\n".join(problems))
