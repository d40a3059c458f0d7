"""Disks that fill, files that change, senders that die: delayed or refused, and said."""

from __future__ import annotations

import errno
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from db import deliveries
from db.models import Delivery, Event
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from worker import outcomes, pipeline, receipts


def test_a_result_that_changed_on_disk_never_leaves(journey: Journey) -> None:
    # Given a job whose results wait for their destination, and one byte of the Segmentation that rots
    (job_id,) = journey.arrive(journeys.datasets())
    due = journey.analyse(job_id)
    (path,) = journey.bench.results_root.rglob("seg.dcm")
    content = bytearray(path.read_bytes())
    content[-40] ^= 0xFF
    path.write_bytes(content)
    # When they are sent
    for delivery_id in due:
        journey.deliver(delivery_id)
    # Then the report arrives, and the Segmentation is refused with the reason
    states = {line.kind: (line.state, line.comment) for line in journey.job().deliveries}
    assert states["sr"][0] == "sent"
    assert states["seg"] == ("dead", receipts.DAMAGED)
    assert len(journey.sent()) == 1


def test_a_full_disk_delays_a_job(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a disk that is full while results are written
    (job_id,) = journey.arrive(journeys.datasets())

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", "/storage/of/a/patient")

    with monkeypatch.context() as broken:
        broken.setattr(pipeline.dicom_results, "make_results", full)
        assert journey.analyse(job_id) == []
    # Then the job waits, and says for what, without the path
    job = journey.job()
    assert (job.state, job.reason) == ("queued", "storage")
    assert job.error == "the storage does not work: No space left on device"


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_that_stays_full_fails_no_job(
    journey: Journey, monkeypatch: pytest.MonkeyPatch, kind: int
) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    monkeypatch.setattr(outcomes, "STORAGE_WAIT", timedelta(0))

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(kind, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr(pipeline.dicom_results, "make_results", full)
        for _ in range(journey.bench.work.max_attempts + 2):
            journey.analyse(job_id)
    job = journey.job()
    assert (job.state, job.reason, job.attempts) == ("queued", "storage", 0)
    # Once there is space it has its answer
    journey.recover()
    assert (journey.job().state, journey.job().attempts) == ("done", 1)
    assert [event for event in journey.rows(Event) if event.kind == "storage"] == []


def test_a_disk_that_fails_again_and_again_fails_the_job(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    monkeypatch.setattr(outcomes, "STORAGE_WAIT", timedelta(0))

    def broken(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pipeline.dicom_results, "make_results", broken)
    for _ in range(journey.bench.work.max_attempts):
        journey.analyse(job_id)
    assert (journey.job().state, journey.job().reason) == ("failed", "storage")


def test_results_that_the_database_does_not_take_are_made_again(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its disk may be full: a job that it was asked about says nothing of that."""
    monkeypatch.setattr(outcomes, "DATABASE_WAIT", timedelta(0))
    (job_id,) = journey.arrive(journeys.datasets())
    original, refused = journey.database.write, [0]

    def full(*_: Any, **__: Any) -> Any:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    def sometimes() -> Any:
        refused[0] += 1
        return full() if refused[0] <= 3 else original()

    for _ in range(journey.bench.work.max_attempts + 1):
        with monkeypatch.context() as broken:
            broken.setattr(outcomes.results, "replace_objects", full)
            with pytest.raises(OperationalError):
                journey.analyse(job_id)
            # Not even that can be written at first
            refused[0] = 0
            broken.setattr(journey.database, "write", sometimes)
            outcomes.wait_for_database(journey.bench, job_id)
        job = journey.job()
        assert (job.state, job.reason, job.attempts, refused[0]) == ("queued", "database", 0, 4)
    journey.recover()
    assert journey.job().state == "done"
    # One that somebody else has by now is left alone
    outcomes.wait_for_database(journey.bench, job_id)
    assert journey.job().state == "done"


def test_pictures_that_cannot_be_drawn_take_nothing_away(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipeline.pictures, "draw", full)
    journey.run(journeys.datasets())
    assert journey.job().state == "done"


def test_what_a_dead_sender_held_is_due_at_once(journey: Journey) -> None:
    # Given deliveries that a process claimed, of which no heartbeat is known any more
    (job_id,) = journey.arrive(journeys.datasets())
    first, *_ = journey.analyse(job_id)
    now = datetime.now(UTC)
    with journey.database.write() as session:
        claimed = deliveries.claim(session, first, owner="dead:1:1", now=now, lease=timedelta(minutes=10))
    assert claimed
    with journey.database.read() as session:
        assert deliveries.due(session, now=now, nudged_before=now) == []
    # When the sweep looks after the orphans
    with journey.database.write() as session:
        assert deliveries.free_orphans(session) == len(claimed)
    # Then they are due, and arrive
    with journey.database.read() as session:
        assert set(deliveries.due(session, now=now, nudged_before=now)) == {row.id for row in claimed}
    journey.deliver(first)
    assert {row.state for row in journey.rows(Delivery)} == {"sent"}
