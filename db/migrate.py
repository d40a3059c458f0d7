"""Brings a database to the newest revision of the schema."""

from __future__ import annotations

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from db.base import Database
from db.errors import UnknownRevision
from db.models import Study

#: Any number that nobody else uses on this database.
_LOCK_KEY = 7_306_812


def _config() -> Config:
    """Alembic's configuration, without any ini file: the scripts travel with the package."""
    config = Config()
    config.set_main_option("script_location", "db:migrations")
    config.set_main_option("path_separator", "os")
    return config


def upgrade(database: Database) -> str:
    """Run every missing revision; return the one that the database is at now.

    Raises UnknownRevision, and changes nothing, where a newer version of the program was here.
    """
    config = _config()
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    with database.engine.execution_options(begin="BEGIN IMMEDIATE").begin() as connection:
        # Two processes that start at once must not both create the tables.
        if connection.dialect.name == "postgresql":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK_KEY})")
        at = MigrationContext.configure(connection).get_current_revision()
        if at is not None and at not in known:
            raise UnknownRevision(f"the database is at revision {at}: install the version that made it")
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    return newest()


def newest() -> str:
    """The newest revision that this version of the program knows."""
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


def current(database: Database) -> str | None:
    """The revision that the database is at; None for an empty one."""
    with database.engine.connect() as connection:
        return MigrationContext.configure(connection).get_current_revision()


def drift(database: Database) -> list[object]:
    """Differences between the tables of `db.models` and those of the database: empty when none."""
    with database.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, Study.metadata))
