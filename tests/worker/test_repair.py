"""Files without rows get some, whoever left them behind; others are left alone."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from db import models
from dicom_node.instance import StoredInstance
from tests.worker import journey as journeys
from tests.worker import night
from worker import pipeline, repair
from worker.indexer import Indexer
from worker.loop_guard import ConfiguredGuard
from worker.repair import Repair
from worker.station import Station


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Station]:
    opened = night.open_station(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def stored(here: Station) -> list[StoredInstance]:
    """Six files in the spool."""
    journey = journeys.Journey(database=here.database, storage=here.settings.storage, shelf=here.shelf)
    return [replace(one, association_id="a1") for one in journey.store(journeys.datasets(), association=None)]


def _age(here: Station) -> None:
    """Let the files be from a minute ago."""
    before = time.time() - 60
    for path in here.settings.spool.glob("[0-9]*/*/*.dcm"):
        os.utime(path, (before, before))


def _all(here: Station, table: type[Any]) -> list[Any]:
    with here.database.read() as session:
        return list(session.scalars(select(table).order_by(table.id)))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 15
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_files_without_rows_get_some_and_only_those(
    here: Station, stored: list[StoredInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = ConfiguredGuard.of(here.settings.guard)
    pipeline.receive(here.database, here.settings.spool, stored[:2], guard=guard, read_series=set())
    _age(here)
    (here.settings.spool / "1.2" / "3.4").mkdir(parents=True)
    (here.settings.spool / "1.2" / "3.4" / "5.6.dcm").write_bytes(b"not DICOM")
    monkeypatch.setattr(repair, "_BATCH", 3)
    assert repair.look(here) == 4
    assert [row.association_id for row in _all(here, models.Instance)] == ["a1", "a1", None, None, None, None]
    (study,) = _all(here, models.Study)
    assert study.patient_id == journeys.ID
    assert repair.look(here) == 0


def test_what_is_just_being_reported_is_left_alone(here: Station, stored: list[StoredInstance]) -> None:
    assert repair.look(here) == 0


def test_what_was_found_may_be_reported_too(here: Station, stored: list[StoredInstance]) -> None:
    _age(here)
    with Indexer(here) as writing:
        for one in stored[:3]:
            writing.instance(one)
        repair.look(here)
        for one in stored[3:]:
            writing.instance(one)
    assert len(_all(here, models.Instance)) == 6
    assert {row.duplicates for row in _all(here, models.Instance)} == {0}


def test_one_looks_at_the_start_and_when_asked(
    here: Station, stored: list[StoredInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given files that are fresh when we start, their listener being dead
    monkeypatch.setattr(repair, "FRESH_SECONDS", 0.2)
    looks, look = [], repair.look
    monkeypatch.setattr(repair, "look", lambda station: looks.append(look(station)))
    for path in here.settings.spool.glob("[0-9]*/*/*.dcm"):
        os.utime(path, (time.time() + 1, time.time() + 1))
    with Repair(here) as repairs:
        _until(lambda: looks == [0])
        # When we are told, it is waited until they are old enough
        repairs.ask()
        _until(lambda: len(looks) == 2)
    assert looks == [0, 6]
    assert len(_all(here, models.Instance)) == 6


def test_a_look_that_fails_is_repeated(
    here: Station, stored: list[StoredInstance], monkeypatch: pytest.MonkeyPatch
) -> None:
    _age(here)
    monkeypatch.setattr(repair, "FRESH_SECONDS", 0.0)
    failures, look = [], repair.look

    def failing(station: Station) -> int:
        if len(failures) < 2:
            failures.append(1)
            raise OperationalError("SELECT", {}, OSError("away"))
        return look(station)

    monkeypatch.setattr(repair, "look", failing)
    with Repair(here):
        _until(lambda: len(_all(here, models.Instance)) == 6)
