"""Files without rows get some, whoever left them behind; others are left alone."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.exc import OperationalError

from db import models
from dicom_node.instance import StoredInstance
from tests.worker import journey as journeys
from tests.worker import night
from tests.worker.journey import Journey
from worker import pipeline, repair, sections
from worker.indexer import Indexer
from worker.loop_guard import ConfiguredGuard
from worker.repair import Repair
from worker.settings import Settings
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
    deadline = time.monotonic() + 60
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


# An image that came again, acknowledged by a listener that died before it could say so ---------------


def _station(journey: Journey) -> Station:
    """A station over the journey's database, with its policy."""
    node = sections.Node(conflicts="keep-last" if journey.keep_last else "keep-first")
    return Station(
        settings=Settings(storage=journey.storage, models=(), node=node),
        database=journey.database,
        shelf=journey.shelf,
        lightbox=journey.lightbox,
        process_id="here",
        started_at=datetime.now(UTC),
    )


def _rows(journey: Journey) -> list[tuple[Any, ...]]:
    return sorted(
        (row.path, row.conflicting, row.changes, row.duplicates, row.received_at)
        for row in journey.rows(models.Instance)
    )


@pytest.mark.parametrize("rows_of_second", [True, False])
def test_the_last_bytes_that_nobody_reported_are_analysed(
    journey: Journey, monkeypatch: pytest.MonkeyPatch, rows_of_second: bool
) -> None:
    """v1, v2, and v1 again: of the last, or of the last two, only the spool knows."""
    monkeypatch.setattr(repair, "FRESH_SECONDS", -60.0)
    journey.keep_last = True
    here, made = _station(journey), journeys.datasets()
    journey.receive(journey.store(made))
    others = journey.store(_bright(made[:2]), association="a2")
    if rows_of_second:
        journey.receive(others)
    (again,) = journey.store(made[:1], association="a3")
    assert again.duplicate
    assert repair.look(here) == (1 if rows_of_second else 3)
    rows = {str(row.path): row for row in journey.rows(models.Instance)}
    assert not rows[str(again.path)].conflicting and rows[str(others[0].path)].conflicting
    # The other image's last bytes are the others still
    assert not rows[str(others[1].path)].conflicting
    assert rows[str(again.path)].received_at == again.received_at
    # And once is enough, also where the listener lives and reports it after all
    before, revision = _rows(journey), journey.rows(models.Study)[0].revision
    assert repair.look(here) == 0
    assert _rows(journey) == before
    journey.receive([again])
    assert [row[:3] for row in _rows(journey)] == [row[:3] for row in before]
    assert journey.rows(models.Study)[0].revision == revision


def test_what_came_again_unseen_moves_nothing_where_the_first_bytes_count(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "FRESH_SECONDS", -60.0)
    here, made = _station(journey), journeys.datasets()
    others = _bright(made[:1])
    for number, sent in enumerate([made, others]):
        journey.receive(journey.store(sent, association=f"a{number}"))
    journey.store(others, association="a2")
    before = _rows(journey)
    assert repair.look(here) == 0
    assert _rows(journey) == before


def test_only_images_with_several_files_are_looked_at_again(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repair, "FRESH_SECONDS", -60.0)
    journey.keep_last = True
    made = journeys.datasets()
    journey.receive(journey.store(made))
    journey.store(made, association="a2")
    assert repair.look(_station(journey)) == 0


def _bright(made: list[Any]) -> list[Any]:
    """The same images with other bytes."""
    others = [copy.deepcopy(ds) for ds in made]
    for ds in others:
        ds.PixelData = bytes(len(ds.PixelData))
    return others
