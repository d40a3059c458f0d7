"""Jobs: made once per identity, claimed by compare-and-swap with a lease, ended with a reason."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import CursorResult, func, or_, select, update
from sqlalchemy.orm import Session, selectinload

from db import states
from db.base import insert_missing
from db.errors import NotFound
from db.models import Decision, Delivery, Job, ResultObject
from db.states import JOB_ENDED, DeliveryState, JobState


def create(session: Session, values: dict[str, Any]) -> Job:
    """The job with this identity, made unless it exists: one study, one answer."""
    insert_missing(session, Job, [values], ["identity"])
    job = session.scalar(select(Job).where(Job.identity == values["identity"]))
    assert job is not None
    return job


def decide(session: Session, values: dict[str, Any]) -> None:
    """Keep what a route said about a series."""
    session.add(Decision(**values))


def decisions(session: Session, study_id: int, revision: int) -> list[Decision]:
    """What the routes said about a revision of a study, in the order of the routes."""
    return list(
        session.scalars(
            select(Decision)
            .where(Decision.study_id == study_id, Decision.revision == revision)
            .order_by(Decision.id)
        )
    )


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
    return get(session, job_id) if taken else None


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


def unheard(session: Session, *, now: datetime, nudged_before: datetime, limit: int = 1000) -> list[int]:
    """Ids of due, queued jobs whose message was never sent, or long ago: it may be lost."""
    return list(
        session.scalars(
            select(Job.id)
            .where(
                Job.state == JobState.QUEUED.value,
                or_(Job.not_before.is_(None), Job.not_before <= now),
                or_(Job.nudged_at.is_(None), Job.nudged_at < nudged_before),
            )
            .order_by(Job.id)
            .limit(limit)
        )
    )


def mark_nudged(session: Session, job_ids: Sequence[int], at: datetime) -> None:
    """Remember that messages for these jobs were sent."""
    session.execute(
        update(Job)
        .where(Job.id.in_(job_ids))
        .values(nudged_at=at)
        .execution_options(synchronize_session=False)
    )


def supersede(session: Session, study_id: int, revision: int, at: datetime) -> int:
    """Cancel jobs of earlier revisions that still wait; return how many."""
    waiting = session.scalars(
        select(Job).where(
            Job.study_id == study_id, Job.revision < revision, Job.state == JobState.QUEUED.value
        )
    ).all()
    return sum(
        states.advance(
            session,
            Job,
            job.id,
            JobState.QUEUED,
            JobState.CANCELLED,
            reason="superseded",
            error=f"late images made revision {revision} of the study",
            finished_at=at,
        )
        for job in waiting
    )


def settle_delivering(session: Session, job_id: int, at: datetime) -> JobState | None:
    """DELIVERING -> DONE or FAILED once none of its deliveries is pending; None while some are."""
    counts = dict(
        session.execute(
            select(Delivery.state, func.count())
            .join(ResultObject, ResultObject.id == Delivery.result_id)
            .where(ResultObject.job_id == job_id)
            .group_by(Delivery.state)
        )
        .tuples()
        .all()
    )
    if counts.get(DeliveryState.PENDING.value):
        return None
    dead = counts.get(DeliveryState.DEAD.value, 0)
    values: dict[str, Any] = {"finished_at": at}
    if dead:
        values |= {
            "reason": "undelivered",
            "error": f"{dead} deliveries are dead; see `secondread deliveries list --state dead`",
        }
    to = JobState.FAILED if dead else JobState.DONE
    return to if states.advance(session, Job, job_id, JobState.DELIVERING, to, **values) else None


def retry(session: Session, job_id: int) -> bool:
    """FAILED or CANCELLED -> QUEUED by a person's wish, with a fresh count of attempts."""
    job = get(session, job_id)
    if job.state not in (JobState.FAILED, JobState.CANCELLED):
        return False
    return states.advance(
        session,
        Job,
        job_id,
        JobState(job.state),
        JobState.QUEUED,
        attempts=0,
        nudged_at=None,
        not_before=None,
        finished_at=None,
        reason="",
        error="",
    )


def cancel(session: Session, job_id: int, at: datetime) -> bool:
    """Stop a job that has not ended; a running one is dropped when it next renews its lease."""
    job = get(session, job_id)
    if JobState(job.state) in JOB_ENDED:
        return False
    return states.advance(
        session,
        Job,
        job_id,
        JobState(job.state),
        JobState.CANCELLED,
        lease_owner="",
        lease_until=None,
        finished_at=at,
        reason="cancelled",
        error="cancelled by a person",
    )


def get(session: Session, job_id: int) -> Job:
    """One job with its study and results. Raises NotFound."""
    job = session.scalar(
        select(Job)
        .where(Job.id == job_id)
        .options(
            selectinload(Job.study),
            selectinload(Job.results).selectinload(ResultObject.deliveries),
        )
        .execution_options(populate_existing=True)
    )
    if job is None:
        raise NotFound(f"there is no job {job_id}")
    return job


def newest(
    session: Session,
    *,
    state: str | None = None,
    study_id: int | None = None,
    limit: int = 100,
    offset: int = 0,
) -> list[Job]:
    """Jobs, newest first."""
    statement = select(Job).options(selectinload(Job.study))
    if state is not None:
        statement = statement.where(Job.state == state)
    if study_id is not None:
        statement = statement.where(Job.study_id == study_id)
    return list(session.scalars(statement.order_by(Job.id.desc()).limit(limit).offset(offset)))


def count_by_state(session: Session) -> dict[str, int]:
    """Jobs per state."""
    return dict(session.execute(select(Job.state, func.count()).group_by(Job.state)).tuples().all())


def oldest_waiting(session: Session) -> datetime | None:
    """When the job that waits longest was made."""
    return session.scalar(select(func.min(Job.created_at)).where(Job.state == JobState.QUEUED.value))
