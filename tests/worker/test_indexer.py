"""Rows come behind the files, in order and in batches, and come also where the database was away."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from db import models
from dicom_node.instance import StoredInstance
from dicom_node.listener import AssociationEvent, RefusedInstance
from dicom_node.statuses import StoreStatus
from tests.worker import journey as journeys
from tests.worker import night
from worker import indexer, pipeline, records, repair
from worker.indexer import Indexer
from worker.station import Station


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Station]:
    """A station that tries again at once."""
    monkeypatch.setattr(indexer, "RETRY_SECONDS", 0.02)
    opened = night.open_station(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def stored(here: Station) -> list[StoredInstance]:
    """Six files in the spool."""
    journey = journeys.Journey(database=here.database, storage=here.settings.storage, shelf=here.shelf)
    return [replace(one, association_id="a1") for one in journey.store(journeys.datasets(), association=None)]


def _event(kind: str, association: str = "a1", **values: Any) -> AssociationEvent:
    known = {"calling_ae_title": "CT1", "called_ae_title": "SECONDREAD", "address": "10.1.2.3", "peer": "ct"}
    return AssociationEvent(
        **{"association_id": association, "kind": kind, "at": datetime.now(UTC), **known, **values}
    )


def _count(here: Station, table: type[Any]) -> int:
    with here.database.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def _all(here: Station, table: type[Any]) -> list[Any]:
    with here.database.read() as session:
        return list(session.scalars(select(table).order_by(table.id)))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_the_listener_reports_gets_rows(here: Station, stored: list[StoredInstance]) -> None:
    with Indexer(here) as writing:
        writing.association(_event("opened"))
        for one in stored:
            writing.instance(one)
        writing.refused(
            RefusedInstance(
                association_id="a1",
                sop_instance_uid="1.2.3",
                status=StoreStatus.OUT_OF_RESOURCES,
                reason="the disk is below its watermark",
            )
        )
        writing.association(_event("released"))
        _until(lambda: _all(here, models.Association)[:1] != [])
        _until(lambda: _all(here, models.Association)[0].outcome == "released")
        assert _count(here, models.Instance) == 6
    (event,) = _all(here, models.Event)
    assert (event.kind, event.message) == ("refused", "0xA700 for 1.2.3: the disk is below its watermark")
    (association,) = _all(here, models.Association)
    assert (association.peer, association.address, association.process_id) == (
        "ct",
        "10.1.2.3",
        here.process_id,
    )
    assert _all(here, models.Study)[0].study_instance_uid == journeys.STUDY


def test_a_rejected_caller_is_an_event_and_holds_nothing_up(here: Station) -> None:
    with Indexer(here) as writing:
        writing.association(
            _event("rejected", peer="", reason="the calling AE title is not a configured peer")
        )
    (association,) = _all(here, models.Association)
    assert (association.outcome, association.closed_at is not None) == ("rejected", True)
    (event,) = _all(here, models.Event)
    assert event.message == ("CT1 at 10.1.2.3 was rejected: the calling AE title is not a configured peer")


@pytest.mark.parametrize("kind", ["released", "aborted"])
def test_an_association_never_ends_before_its_instances_have_rows(
    here: Station, stored: list[StoredInstance], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Else the study would count as complete without them."""
    seen: list[tuple[str, int]] = []
    original = indexer.associations.close

    def close(session: Any, association_id: str, **how: Any) -> None:
        seen.append((association_id, session.scalar(select(func.count()).select_from(models.Instance))))
        original(session, association_id, **how)

    monkeypatch.setattr(indexer.associations, "close", close)
    monkeypatch.setattr(indexer, "BATCH_SIZE", 3)
    with Indexer(here) as writing:
        writing.association(_event("opened"))
        writing.association(_event("opened", "a2"))
        for one in stored:
            writing.instance(one)
        writing.association(_event("released", "a2"))
        writing.association(_event(kind))
    assert seen == [("a2", 6), ("a1", 6)]
    assert [row.outcome for row in _all(here, models.Association)] == [kind, "released"]


def test_instances_are_written_in_batches(
    here: Station, stored: list[StoredInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    batches: list[int] = []
    original = pipeline.receive

    def receive(database: Any, root: Path, instances: list[StoredInstance], **how: Any) -> None:
        batches.append(len(instances))
        original(database, root, instances, **how)

    monkeypatch.setattr(pipeline, "receive", receive)
    monkeypatch.setattr(indexer, "BATCH_SIZE", 4)
    writing = Indexer(here)
    for one in stored:
        writing.instance(one)
    with writing:
        pass
    assert batches == [4, 2]
    assert _count(here, models.Instance) == 6


def test_a_lone_instance_does_not_wait_for_others(here: Station, stored: list[StoredInstance]) -> None:
    with Indexer(here) as writing:
        began = time.monotonic()
        writing.instance(stored[0])
        _until(lambda: _count(here, models.Instance) == 1)
        assert time.monotonic() - began < 10


def test_attributes_are_read_once_a_series(
    here: Station, stored: list[StoredInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[Path] = []
    original = records.dicom_attributes.read_attributes
    monkeypatch.setattr(
        records.dicom_attributes, "read_attributes", lambda path: read.append(path) or original(path)
    )
    monkeypatch.setattr(indexer, "BATCH_SIZE", 2)
    with Indexer(here) as writing:
        for one in stored:
            writing.instance(one)
    assert len(read) == 1


# The database is away -----------------------------------------------------------------------------


class Away:
    """While it is on, every transaction that writes fails, after `commits` of them."""

    def __init__(self, here: Station, monkeypatch: pytest.MonkeyPatch) -> None:
        self.refused = 0
        self.on = True
        self.commits = 0
        original = here.database.write

        def write() -> Any:
            if self.on and self.commits <= 0:
                self.refused += 1
                raise OperationalError("SELECT 1", {}, Exception("the database is away"))
            self.commits -= 1
            return original()

        monkeypatch.setattr(here.database, "write", write)


@pytest.fixture
def away(here: Station, monkeypatch: pytest.MonkeyPatch) -> Away:
    """The station's database, away."""
    return Away(here, monkeypatch)


def _report_all(writing: Indexer, stored: list[StoredInstance]) -> None:
    writing.association(_event("rejected", "a0", reason="unknown"))
    writing.association(_event("opened"))
    for one in stored:
        writing.instance(one)
    writing.refused(
        RefusedInstance(
            association_id="a1", sop_instance_uid="1.2", status=StoreStatus.OUT_OF_RESOURCES, reason="full"
        )
    )
    writing.association(_event("released"))


@pytest.mark.parametrize("commits", [0, 1, 2, 3])
def test_what_came_while_the_database_was_away_is_written_when_it_is_back(
    here: Station, stored: list[StoredInstance], away: Away, commits: int
) -> None:
    """It goes after so many commits of the first batch, and nothing is written twice."""
    away.commits = commits
    with Indexer(here) as writing:
        _report_all(writing, stored)
        _until(lambda: away.refused >= 3)
        away.on = False
        _until(lambda: [row.outcome for row in _all(here, models.Association)] == ["rejected", "released"])
    assert _count(here, models.Instance) == 6
    assert {row.duplicates for row in _all(here, models.Instance)} == {0}
    assert sorted(event.kind for event in _all(here, models.Event)) == ["refused", "rejected"]


def test_duplicates_are_counted_once_whatever_is_repeated(
    here: Station, stored: list[StoredInstance], away: Away
) -> None:
    away.commits = 2
    with Indexer(here) as writing:
        writing.association(_event("opened"))
        for one in stored:
            writing.instance(one)
        for one in stored:
            writing.instance(replace(one, duplicate=True))
        writing.association(_event("released"))
        _until(lambda: away.refused >= 2)
        away.on = False
    assert {row.duplicates for row in _all(here, models.Instance)} == {1}


def test_a_shutdown_does_not_wait_for_a_database_that_stays_away(
    here: Station,
    stored: list[StoredInstance],
    away: Away,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.INFO)
    began = time.monotonic()
    with Indexer(here) as writing:
        for one in stored:
            writing.instance(one)
    assert time.monotonic() - began < 15
    assert "the sweep will find the files" in caplog.text
    # And it does
    away.on = False
    monkeypatch.setattr(repair, "FRESH_SECONDS", 0.0)
    assert repair.look(here) == 6
    assert _count(here, models.Instance) == 6


def test_the_end_writes_what_is_queued(here: Station, stored: list[StoredInstance]) -> None:
    writing = Indexer(here)
    _report_all(writing, stored)
    with writing:
        pass
    assert _count(here, models.Instance) == 6
    assert [row.outcome for row in _all(here, models.Association)] == ["rejected", "released"]
