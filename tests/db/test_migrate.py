"""Migrations: up, down, twice at once, and never apart from the models."""

from __future__ import annotations

from typing import Any

import pytest
from alembic.script import ScriptDirectory
from sqlalchemy import inspect, text

from db import migrate
from db.base import Base, Database
from tests.db import together


@pytest.fixture
def empty(empty_url: str) -> Any:
    """A database without any table."""
    with Database(empty_url) as database:
        yield database


def test_an_empty_database_is_at_no_revision(empty: Database) -> None:
    assert migrate.current(empty) is None
    assert migrate.drift(empty) != []


def test_upgrade_reaches_the_newest_revision(empty: Database) -> None:
    assert migrate.upgrade(empty) == migrate.newest() == migrate.current(empty)
    assert set(inspect(empty.engine).get_table_names()) == {*Base.metadata.tables, "alembic_version"}


def test_the_models_and_the_migrations_agree(empty: Database) -> None:
    migrate.upgrade(empty)
    assert migrate.drift(empty) == []


def test_drift_is_seen(empty: Database) -> None:
    migrate.upgrade(empty)
    with empty.write() as session:
        session.execute(text("ALTER TABLE events ADD COLUMN surprise INTEGER"))
    assert [difference[0] for difference in migrate.drift(empty)] == ["remove_column"]  # type: ignore[index]


def test_upgrade_repeats_without_effect(empty: Database) -> None:
    migrate.upgrade(empty)
    assert migrate.upgrade(empty) == migrate.newest()


def test_no_revision_pretends_to_lead_back() -> None:
    """What a newer version wrote has no place in an older schema: the way back is the copy that was made before."""
    scripts = [*ScriptDirectory.from_config(migrate._config()).walk_revisions()]
    assert scripts[0].revision == migrate.newest()
    assert [script.revision for script in scripts if hasattr(script.module, "downgrade")] == []


def _upgrade(database: Database, _: object) -> str:
    return migrate.upgrade(database)


def test_processes_that_upgrade_at_once_all_succeed(empty_url: str) -> None:
    assert together.processes(_upgrade, empty_url, [None] * 3) == [migrate.newest()] * 3
    with Database(empty_url) as database:
        assert migrate.current(database) == migrate.newest()
        assert migrate.drift(database) == []
