"""A job's lease: renewed while the work lasts, and the end of a job that takes too long or is lost."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rich.console import Console

from db import jobs, leases, models
from db.models import Job
from db.states import JobState
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from worker import explain, inference, pipeline
from worker.bench import Bench
from worker.lease import Lease
from worker.limits import Limits
from worker.sections import Work

#: Looked after ten times a second.
LENGTH = timedelta(seconds=0.3)
LONG = Limits(soft=timedelta(hours=1), hard=timedelta(hours=1))


class Ended:
    """How often the process would have ended."""

    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def ended() -> Ended:
    """In place of the end of the process."""
    return Ended()


def bench(journey: Journey, ended: Ended) -> Bench:
    return replace(journey.bench, lease=LENGTH, end_process=ended)


def claimed(journey: Journey, *, hard: float = 3600) -> Job:
    """The journey's job, claimed."""
    (job_id,) = journey.arrive(journeys.datasets())
    now = datetime.now(UTC)
    with journey.database.write() as session:
        job = leases.claim(
            session,
            job_id,
            owner=journey.bench.owner,
            now=now,
            lease=LENGTH,
            deadline_at=now + timedelta(seconds=hard),
        )
    assert job is not None
    return job


def lease_until(journey: Journey) -> datetime:
    (job,) = journey.rows(models.Job)
    assert job.lease_until is not None
    return datetime.fromisoformat(job.lease_until.isoformat())


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_lease_is_renewed_while_the_work_lasts(journey: Journey, ended: Ended) -> None:
    job = claimed(journey)
    first = job.lease_until
    assert first is not None
    with Lease(bench(journey, ended), job, LONG) as lease:
        until(lambda: lease_until(journey) > first + LENGTH)
        assert not lease.lost
    assert ended.times == 0 and journey.why().events == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("lease-")]


def test_no_lease_is_renewed_beyond_the_deadline(journey: Journey, ended: Ended) -> None:
    job = claimed(journey, hard=-9.5)
    with Lease(bench(journey, ended), job, LONG):
        time.sleep(1)
        assert lease_until(journey) == job.deadline_at + leases.LATE


@pytest.mark.parametrize("how", ["cancelled", "taken"])
def test_the_process_ends_when_the_job_is_no_longer_its_own(journey: Journey, ended: Ended, how: str) -> None:
    job = claimed(journey)
    with Lease(bench(journey, ended), job, LONG) as lease:
        with journey.database.write() as session:
            if how == "cancelled":
                assert jobs.cancel(session, job.id, datetime.now(UTC))
            else:
                assert leases.leave_running(session, job.id, JobState.QUEUED, owner=job.lease_owner)
        until(lambda: lease.lost)
    assert ended.times == 1


def test_a_slow_job_is_noted_once(journey: Journey, ended: Ended) -> None:
    job = claimed(journey)
    limits = Limits(soft=timedelta(seconds=0.2), hard=timedelta(hours=1))
    with Lease(bench(journey, ended), job, limits):
        until(lambda: bool(journey.why().events))
        time.sleep(0.5)
    ((kind, message),) = [(event.kind, event.message) for event in journey.why().events]
    assert (kind, ended.times) == ("slow-job", 0)
    assert message == "attempt 1 takes longer than 0.2 s; it is stopped after 3600 s"


def test_a_job_that_takes_too_long_is_given_back_and_its_process_ends(
    journey: Journey, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a series whose reading never ends
    def hang(*_: Any, **__: Any) -> Any:
        until(lambda: ended.times > 0)
        raise journeys.Crash

    (job_id,) = journey.arrive(journeys.datasets())
    monkeypatch.setattr(inference.dicom_series, "read_series", hang)
    hasty = replace(bench(journey, ended), work=Work(hard_seconds=0.3))
    began = time.monotonic()
    journey.die(lambda: pipeline.analyse(hasty, job_id))
    assert time.monotonic() - began < 30

    # Then it waits so that others go first, and says why
    job = journey.job()
    assert (job.state, job.reason, job.attempts, ended.times) == ("queued", "time-limit", 1, 1)
    (row,) = journey.rows(models.Job)
    assert row.not_before > datetime.now(UTC) + timedelta(seconds=5) and row.nudged_at is None
    assert "time-limit" in [event.kind for event in journey.why().events]


def test_it_fails_after_the_last_attempt(journey: Journey, ended: Ended) -> None:
    job = claimed(journey)
    limits = Limits(soft=timedelta(seconds=9), hard=timedelta(seconds=0.1))
    last = replace(bench(journey, ended), work=Work(max_attempts=1))
    with Lease(last, job, limits) as lease:
        until(lambda: lease.lost)
    line, answer = journey.job(), journey.why()
    assert (line.state, line.reason, answer.study.state) == ("failed", "time-limit", "done")
    assert line.error.startswith("it was stopped because it took longer than 0.1 s")
    assert ended.times == 1


def test_the_process_ends_even_where_the_database_is_away(
    journey: Journey, ended: Ended, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = claimed(journey)

    def away() -> Any:
        raise OSError("away")

    here = bench(journey, ended)
    monkeypatch.setattr(here.database, "write", away)
    with Lease(here, job, Limits(soft=timedelta(hours=1), hard=timedelta(seconds=0.3))) as lease:
        until(lambda: lease.lost)
    assert ended.times == 1
    # The sweep will write its row
    assert journey.job().state == "running"


def test_why_says_when_a_job_is_stopped_and_when_it_comes_again(journey: Journey, ended: Ended) -> None:
    job = claimed(journey)
    assert job.deadline_at is not None
    assert (journey.job().deadline_at, journey.job().not_before) == (job.deadline_at, None)
    assert f"is stopped at {job.deadline_at.astimezone():%H:%M:%S}" in said(journey)
    with Lease(bench(journey, ended), job, Limits(soft=LENGTH, hard=LENGTH)) as lease:
        until(lambda: lease.lost)
    assert journey.job().deadline_at is None and journey.job().not_before is not None
    assert f"not before {journey.job().not_before.astimezone():%H:%M:%S}" in said(journey)


def said(journey: Journey) -> str:
    out = io.StringIO()
    Console(file=out, width=200).print(explain.why_tree(journey.why()))
    return out.getvalue()
