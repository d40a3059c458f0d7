"""Supersession: what newer images make of the jobs and results that were there before."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, or_, select
from sqlalchemy.orm import Session, aliased, selectinload

from db import job_series, states
from db.errors import NotRevivable
from db.models import Delivery, Job, ResultObject
from db.models.answers import ANNOUNCEMENT
from db.states import DeliveryState, JobState

#: A delivery in one of these states has left, or may leave.
_LEAVES = tuple(state.value for state in (DeliveryState.PENDING, DeliveryState.SENT, DeliveryState.COMMITTED))


def supersede(
    session: Session,
    study_id: int,
    at: datetime,
    *,
    keep: Collection[int],
    error: str,
    series_ids: Collection[int] | None = None,
) -> int:
    """Cancel jobs of a study, or of these series of it, that are none to `keep`; return how many.

    Both those that wait and those that run: the worker of one that runs notices it, and its result is
    dropped. What delivers goes on: half a set of results at a destination would be worse than an old one.
    """
    own = () if series_ids is None else (job_series.about(series_ids),)
    open_jobs = session.execute(
        select(Job.id, Job.state)
        .where(
            Job.study_id == study_id,
            Job.state.in_([JobState.QUEUED.value, JobState.RUNNING.value]),
            Job.id.not_in(keep),
            *own,
        )
        .order_by(Job.id)
        # A job that waits may be claimed in this moment: then it is one that runs.
        .with_for_update(key_share=True)
    ).all()
    return sum(_cancel(session, job_id, JobState(state), error, at) for job_id, state in open_jobs)


def _cancel(session: Session, job_id: int, state: JobState, error: str, at: datetime) -> bool:
    """QUEUED or RUNNING -> CANCELLED."""
    return states.advance(
        session,
        Job,
        job_id,
        state,
        JobState.CANCELLED,
        lease_owner="",
        lease_until=None,
        deadline_at=None,
        reason="superseded",
        error=error,
        finished_at=at,
    )


def settle_predecessor(session: Session, job: Job) -> None:
    """Fix which job's results those of this one, which was just claimed, take the place of.

    It is settled for good once the job has results: they name it, and are made again byte for byte.
    """
    made = select(ResultObject.id).where(ResultObject.job_id == job.id, ResultObject.kind != ANNOUNCEMENT)
    if session.scalar(made.limit(1)) is None:
        job.supersedes_id = session.scalar(_earlier(job))


def _has_answered() -> ColumnElement[bool]:
    """Whether a job's results left, may leave, or had nowhere to go."""
    return (
        select(ResultObject.id)
        .outerjoin(Delivery, Delivery.result_id == ResultObject.id)
        .where(
            ResultObject.job_id == Job.id,
            ResultObject.kind != ANNOUNCEMENT,
            ResultObject.verified.is_(True),
            or_(Delivery.state.in_(_LEAVES), and_(Delivery.id.is_(None), Job.state == JobState.DONE.value)),
        )
        .exists()
    )


def _earlier(job: Job) -> Select[int]:
    """The newest earlier job about the same series that has answered."""
    return (
        select(Job.id)
        .where(
            Job.study_id == job.study_id,
            Job.series_id == job.series_id,
            Job.model == job.model,
            Job.id < job.id,
            _has_answered(),
        )
        .order_by(Job.id.desc())
        .limit(1)
    )


def predecessors(session: Session, job: Job) -> list[Job]:
    """The jobs in whose line this one stands, newest first, with their results."""
    found: list[Job] = []
    wanted: int | None = job.supersedes_id
    while wanted is not None:
        earlier = session.scalars(
            select(Job).where(Job.id == wanted).options(selectinload(Job.results))
        ).one()
        found.append(earlier)
        wanted = earlier.supersedes_id
    return found


def replaced_by(session: Session, job: Job) -> int | None:
    """The newest job whose results took the place of this one's; None where none did."""
    return session.scalar(
        select(Job.id)
        # By its study too: that has an index.
        .where(Job.study_id == job.study_id, Job.supersedes_id == job.id, _has_answered())
        .order_by(Job.id.desc())
        .limit(1)
    )


def has_successor() -> ColumnElement[bool]:
    """Whether a newer revision of its study has another job of the same model about a job's series."""
    newer = aliased(Job)
    return select(newer.id).where(*_succeeds(newer, Job)).exists()


def successor(session: Session, job: Job) -> Job | None:
    """The newest job of the same model about the same series that a newer revision made; None where none is."""
    newer = aliased(Job)
    statement = select(newer).where(*_succeeds(newer, job)).order_by(newer.revision.desc(), newer.id.desc())
    return session.scalar(statement.limit(1))


def _succeeds(newer: type[Job], job: Job | type[Job]) -> tuple[ColumnElement[bool], ...]:
    """What must hold for a newer job, so that it answers in the place of an older one."""
    return (
        newer.study_id == job.study_id,
        newer.series_id == job.series_id,
        newer.model == job.model,
        newer.revision > job.revision,
    )


def require_newest(session: Session, job: Job) -> None:
    """Raise NotRevivable where a newer job answers in the place of this one: its results would come last."""
    newer = successor(session, job)
    if newer is None:
        return
    instead = "; retry that one" if newer.state in (JobState.FAILED, JobState.CANCELLED) else ""
    raise NotRevivable(
        f"job {newer.id} of revision {newer.revision} answers in the place of job {job.id}{instead}"
    )
