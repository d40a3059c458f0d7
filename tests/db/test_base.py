"""Columns and transactions that behave alike on SQLite and PostgreSQL."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from sqlalchemy import func, select, text
from sqlalchemy.exc import IntegrityError, StatementError

from db.base import Database, insert_missing
from db.models import Event, Process, Study
from tests.db import rows, together
from tests.db.rows import NOW


def _process(at: datetime, name: str = "h:1:0") -> Process:
    return Process(id=name, role="listen", started_at=at, seen_at=at)


def test_times_come_back_aware_and_in_utc(database: Database) -> None:
    east = datetime(2026, 3, 2, 11, 30, 0, 123456, tzinfo=timezone(timedelta(hours=2)))
    with database.write() as session:
        session.add(_process(east))
    with database.read() as session:
        seen = session.scalars(select(Process.seen_at)).one()
    assert seen == east
    assert seen.utcoffset() == timedelta(0)
    assert seen.isoformat() == "2026-03-02T09:30:00.123456+00:00"


def test_a_naive_time_is_refused(database: Database) -> None:
    with pytest.raises(StatementError, match="naive"), database.write() as session:
        session.add(_process(NOW.replace(tzinfo=None)))


def test_a_naive_time_is_refused_in_a_condition_too(database: Database) -> None:
    with pytest.raises(StatementError, match="naive"), database.read() as session:
        session.scalars(select(Process).where(Process.seen_at < NOW.replace(tzinfo=None))).all()


def test_times_compare_across_zones(database: Database) -> None:
    with database.write() as session:
        session.add(_process(NOW))
    west = timezone(timedelta(hours=-5))
    with database.read() as session:
        count = select(func.count()).select_from(Process)
        assert session.scalar(count.where(Process.seen_at <= NOW.astimezone(west))) == 1
        assert session.scalar(count.where(Process.seen_at < NOW.astimezone(west))) == 0


def test_a_block_that_raises_writes_nothing(database: Database) -> None:
    with pytest.raises(RuntimeError), database.write() as session:
        session.add(_process(NOW))
        session.flush()
        raise RuntimeError
    with database.read() as session:
        assert session.scalars(select(Process)).all() == []


def test_references_are_enforced(database: Database) -> None:
    with pytest.raises(IntegrityError), database.write() as session:
        session.add(Event(at=NOW, kind="x", message="", study_id=99))


def test_insert_missing_leaves_what_is_there(database: Database) -> None:
    first = {"id": "a", "role": "listen", "started_at": NOW, "seen_at": NOW}
    with database.write() as session:
        insert_missing(session, Process, [first], ["id"])
        insert_missing(session, Process, [{**first, "role": "work"}, {**first, "id": "b"}], ["id"])
        insert_missing(session, Process, [], ["id"])
    with database.read() as session:
        assert dict(session.execute(select(Process.id, Process.role)).all()) == {
            "a": "listen",
            "b": "listen",
        }


def test_an_absent_json_value_is_sql_null(database: Database) -> None:
    with database.write() as session:
        rows.receive(session)
    with database.read() as session:
        assert session.scalar(text("SELECT count(*) FROM series WHERE attributes IS NULL")) == 1
        assert session.scalar(text("SELECT count(*) FROM studies WHERE evidence IS NULL")) == 1


def test_numbers_that_json_lacks_do_not_stop_a_row(database: Database) -> None:
    odd = {
        "SliceThickness": float("nan"),
        "Nested": [float("inf"), {"x": -float("inf")}],
        "Rows": 512,
        "Text": "a\x00b",
    }
    with database.write() as session:
        rows.receive(session, attributes=odd)
    with database.read() as session:
        study = session.scalars(select(Study)).one()
        kept = study.series[0].attributes
    assert kept is not None
    assert (kept["Rows"], kept["SliceThickness"], kept["Nested"]) == (512, "nan", ["inf", {"x": "-inf"}])


def _add_up(database: Database, times: int) -> None:
    """Read, then write what was read plus one: lost where two transactions overlap."""
    for _ in range(times):
        with database.write() as session:
            study = session.scalars(select(Study).with_for_update()).one()
            study.revision += 1


def test_writers_wait_for_each_other(database: Database) -> None:
    with database.write() as session:
        rows.receive(session)
    together.processes(_add_up, database.url, [20, 20, 20])
    with database.read() as session:
        assert session.scalar(select(Study.revision)) == 61


def test_a_reader_does_not_hold_up_a_writer(database: Database) -> None:
    with database.write() as session:
        session.add(_process(NOW))
    with database.read() as reader:
        assert reader.scalar(select(func.count()).select_from(Process)) == 1
        with database.write() as session:
            session.add(_process(datetime.now(UTC), "h:2:0"))
    with database.read() as reader:
        assert reader.scalar(select(func.count()).select_from(Process)) == 2
