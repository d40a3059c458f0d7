"""Leases: a worker claims a job, holds it while it works, and ends it; a silent worker loses it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, or_, select, update
from sqlalchemy.orm import Session

from db import jobs, states
from db.models import Job
from db.states import JobState

#: How long after its deadline a job is still left to the worker that ought to have ended it.
LATE = timedelta(seconds=10)


def claim(
    session: Session,
    job_id: int,
    *,
    owner: str,
    now: datetime,
    lease: timedelta,
    deadline_at: datetime | None = None,
) -> Job | None:
    """QUEUED -> RUNNING for `owner`; None where it is not to be had (taken, ended, not yet due)."""
    # Who supersedes jobs has the study's lock and wants theirs; and no image comes in before the commit.
    jobs.lock_study(session, job_id)
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
        lease_until=within(now + lease, deadline_at),
        deadline_at=deadline_at,
        reason="",
        error="",
    )
    return jobs.get(session, job_id) if taken else None


def within(wanted: datetime, deadline_at: datetime | None) -> datetime:
    """How long a lease may be had: whoever hangs but renews it all the same still loses it."""
    return wanted if deadline_at is None else min(wanted, deadline_at + LATE)


def is_held(session: Session, job_id: int, *, owner: str) -> bool:
    """Whether the job is still `owner`'s: nobody cancelled it or took it."""
    held = select(Job.id).where(
        Job.id == job_id, Job.state == JobState.RUNNING.value, Job.lease_owner == owner
    )
    return session.scalar(held) is not None


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


def leave_running(
    session: Session, job_id: int, to: JobState, *where: Any, owner: str, **values: Any
) -> bool:
    """RUNNING -> `to`, only while `owner` holds the lease; `where` adds conditions."""
    jobs.lock_study(session, job_id)
    return states.advance(
        session,
        Job,
        job_id,
        JobState.RUNNING,
        to,
        Job.lease_owner == owner,
        *where,
        lease_owner="",
        lease_until=None,
        deadline_at=None,
        **values,
    )


def expired(session: Session, now: datetime) -> list[Job]:
    """Running jobs whose lease is over: their worker is gone."""
    return list(
        session.scalars(select(Job).where(Job.state == JobState.RUNNING.value, Job.lease_until < now))
    )


def held(session: Session, now: datetime) -> list[Job]:
    """Running jobs whose lease is not over."""
    return list(
        session.scalars(select(Job).where(Job.state == JobState.RUNNING.value, Job.lease_until >= now))
    )


def models_of(session: Session, job_ids: Sequence[int]) -> dict[int, tuple[str, str]]:
    """Name and digest of the jobs' models."""
    rows = session.execute(select(Job.id, Job.model, Job.model_digest).where(Job.id.in_(job_ids)))
    return {job_id: (model, digest) for job_id, model, digest in rows}


def seconds_taken(session: Session, model: tuple[str, str], *, limit: int) -> list[float]:
    """What the newest jobs of a model (name, digest) took that came to an answer."""
    name, digest = model
    rows = session.scalars(
        select(Job.seconds)
        # Only an answer names its engine; the name is indexed, the digest is not.
        .where(Job.model == name, Job.model_digest == digest, Job.engine != "", Job.seconds.is_not(None))
        .order_by(Job.id.desc())
        .limit(limit)
    )
    return [sum(seconds.values()) for seconds in rows if seconds]
