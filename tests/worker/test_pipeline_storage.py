"""Disks that fill, files that change, senders that die: delayed or refused, and said."""

from __future__ import annotations

import errno
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from db import deliveries
from db.models import Delivery
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


def test_a_disk_that_stays_full_fails_the_job(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    monkeypatch.setattr(outcomes, "STORAGE_WAIT", timedelta(0))

    def full(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipeline.dicom_results, "make_results", full)
    for _ in range(journey.bench.work.max_attempts):
        journey.analyse(job_id)
    assert (journey.job().state, journey.job().reason) == ("failed", "storage")


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
