"""Associations: who opened one, how it ended, and whose holder died."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import associations
from db.base import Database
from db.models import Association
from tests.db.rows import NOW, SECOND


def _row(association_id: str, process_id: str = "h:1:0", **values: Any) -> dict[str, Any]:
    return {
        "id": association_id,
        "process_id": process_id,
        "peer": "pacs",
        "calling_ae_title": "PACS",
        "called_ae_title": "SECONDREAD",
        "address": "127.0.0.1",
        "opened_at": NOW,
        "outcome": "open",
        **values,
    }


def _outcomes(database: Database) -> dict[str, str]:
    with database.read() as session:
        return dict(session.execute(select(Association.id, Association.outcome)).all())  # type: ignore[arg-type]


def _alive(database: Database, process_id: str, at: datetime) -> None:
    with database.write() as session:
        associations.heartbeat(session, process_id=process_id, role="listen", started_at=NOW, at=at)


def _dead(session: Session, silent_since: datetime, *gone: str) -> list[str]:
    found = associations.dead(session, silent_since=silent_since, is_gone=lambda name: name in gone)
    return [process.id for process in found]


def test_an_association_is_recorded_once(database: Database) -> None:
    with database.write() as session:
        associations.record(session, _row("a1"))
        associations.record(session, _row("a1", peer="other"))
    with database.read() as session:
        assert session.scalars(select(Association.peer)).all() == ["pacs"]


def test_the_first_end_counts(database: Database) -> None:
    with database.write() as session:
        associations.record(session, _row("a1"))
        associations.close(session, "a1", outcome="aborted", at=NOW, reason="the peer aborted")
        associations.close(session, "a1", outcome="released", at=NOW + SECOND)
        associations.close(session, "unknown", outcome="released", at=NOW)
    with database.read() as session:
        row = session.get_one(Association, "a1")
        assert (row.outcome, row.closed_at, row.reason) == ("aborted", NOW, "the peer aborted")


def test_heartbeats_keep_a_process_among_the_living(database: Database) -> None:
    _alive(database, "h:1:0", NOW)
    _alive(database, "h:2:0", NOW)
    _alive(database, "h:1:0", NOW + SECOND)
    with database.read() as session:
        (living,) = associations.living(session, NOW + SECOND)
        assert (living.id, living.role, living.started_at, living.seen_at) == (
            "h:1:0",
            "listen",
            NOW,
            NOW + SECOND,
        )
        assert [process.id for process in associations.living(session, NOW)] == ["h:1:0", "h:2:0"]


def test_bury_loses_what_silent_and_unknown_processes_held(database: Database) -> None:
    _alive(database, "silent", NOW)
    _alive(database, "alive", NOW + 9 * SECOND)
    with database.write() as session:
        for name in ("silent", "alive", "unknown"):
            associations.record(session, _row(name, name))
        associations.record(session, _row("ended", "silent"))
        associations.close(session, "ended", outcome="released", at=NOW)
    with database.write() as session:
        assert _dead(session, NOW + SECOND) == ["silent"]
        assert associations.bury(session, ["silent"], at=NOW + 9 * SECOND) == 2
        assert _dead(session, NOW + SECOND) == []
        assert associations.bury(session, [], at=NOW + 9 * SECOND) == 0
    assert _outcomes(database) == {"silent": "lost", "alive": "open", "unknown": "lost", "ended": "released"}
    with database.read() as session:
        assert [process.id for process in associations.living(session, NOW)] == ["alive"]
        assert session.get_one(Association, "silent").reason == "the process that held it ended"


def test_a_process_whose_end_was_seen_is_dead_before_it_is_silent(database: Database) -> None:
    _alive(database, "h:1:0", NOW)
    _alive(database, "h:2:0", NOW)
    with database.read() as session:
        assert _dead(session, NOW, "h:2:0") == ["h:2:0"]
        assert _dead(session, NOW + SECOND, "h:2:0") == ["h:1:0", "h:2:0"]


def test_a_process_that_was_buried_too_early_lives_again(database: Database) -> None:
    _alive(database, "h:1:0", NOW)
    with database.write() as session:
        associations.bury(session, ["h:1:0"], at=NOW + SECOND)
    _alive(database, "h:1:0", NOW + 2 * SECOND)
    with database.read() as session:
        assert [process.id for process in associations.living(session, NOW)] == ["h:1:0"]


@pytest.mark.parametrize("holder", ["h:1:0", "h:2:0"])
def test_goodbye_loses_only_its_own(database: Database, holder: str) -> None:
    for process_id in ("h:1:0", "h:2:0"):
        _alive(database, process_id, NOW)
        with database.write() as session:
            associations.record(session, _row(process_id, process_id))
    with database.write() as session:
        associations.goodbye(session, holder, NOW)
    other = {"h:1:0": "h:2:0", "h:2:0": "h:1:0"}[holder]
    assert _outcomes(database) == {holder: "lost", other: "open"}
