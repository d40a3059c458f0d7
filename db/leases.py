"""Leases: a worker claims a job, holds it while it works, and ends it; a silent worker loses it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, or_, select, update
from sqlalchemy.orm import Session

from db import jobs, states
from db.models import Job
from db.states import JobState


def claim(session: Session, job_id: int, *, owner: str, now: datetime, lease: timedelta) -> Job | None:
    """QUEUED -> RUNNING for `owner`; None where it is not to be had (taken, ended, not yet due)."""
    taken = states.advance(
        session,
        Job,
        job_id,
        JobState.QUEUED,
        JobState.RUNNING,
        or_(Job.not_before.is_(None), Job.not_before <= now),
        attempts=Job.attempts + 1,
        started_at=now,
        lease_owner=owner,
        lease_until=now + lease,
        reason="",
        error="",
    )
    return jobs.get(session, job_id) if taken else None


def renew(session: Session, job_id: int, *, owner: str, until: datetime) -> bool:
    """Prolong a lease; False where the job is no longer ours: its result must then be dropped."""
    result = session.execute(
        update(Job)
        .where(Job.id == job_id, Job.state == JobState.RUNNING.value, Job.lease_owner == owner)
        .values(lease_until=until)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def leave_running(session: Session, job_id: int, to: JobState, *, owner: str, **values: Any) -> bool:
    """RUNNING -> `to`, only while `owner` holds the lease."""
    jobs.lock_study(session, job_id)
    return states.advance(
        session,
        Job,
        job_id,
        JobState.RUNNING,
        to,
        Job.lease_owner == owner,
        lease_owner="",
        lease_until=None,
        **values,
    )


def expired(session: Session, now: datetime) -> list[Job]:
    """Running jobs whose lease is over: their worker is gone."""
    return list(
        session.scalars(select(Job).where(Job.state == JobState.RUNNING.value, Job.lease_until < now))
    )
