"""Announcements: what destinations are told where a job has no answer, and what becomes of it when there is one."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, or_, select, text
from sqlalchemy.orm import Session

from db import events, job_series, jobs, results, supersession
from db.models import Delivery, Job, ResultObject
from db.models.answers import ANNOUNCEMENT, UNANNOUNCED
from db.states import DeliveryState, JobState

#: A delivery in one of these states has arrived.
_ARRIVED = (DeliveryState.SENT.value, DeliveryState.COMMITTED.value)


def nowhere(why: str) -> str:
    """A job's note where nothing is announced."""
    return f'"AI not performed" is announced nowhere: {why}'


def due(session: Session, limit: int, *, after: int = 0) -> list[int]:
    """Ids, greater than `after`, of failed jobs of which some destination is to be told, and is not yet."""
    # In the index's own words: nearly no job fails.
    wanted = select(Job.id).where(text(UNANNOUNCED), Job.id > after)
    return list(session.scalars(wanted.order_by(Job.id).limit(limit)))


def against(session: Session, job: Job) -> str:
    """Why nothing is to be announced of a failed job; "" where nothing speaks against it."""
    newer = supersession.successor(session, job)
    if newer is not None:
        return f"job {newer.id} answers in its place"
    answered = select(ResultObject.id).where(
        ResultObject.job_id == job.id, ResultObject.kind != ANNOUNCEMENT, ResultObject.verified.is_(True)
    )
    if job.reason != "gate" and session.scalar(answered.limit(1)) is not None:
        return "an earlier attempt of it has answered"
    return ""


def record(
    session: Session,
    job_id: int,
    *,
    failed_at: datetime | None,
    made: dict[str, Any] | None,
    note: str,
    at: datetime,
) -> bool:
    """Write what was `made` to announce a failed job, with its deliveries, and a note where there is one.

    False where the job went on since `failed_at`.
    """
    job = jobs.locked(session, job_id)
    if job.state != JobState.FAILED or not job.unannounced or job.finished_at != failed_at:
        return False
    job.unannounced = False
    if note:
        job.notes = [*(job.notes or []), note]
    if made is not None:
        withdraw(session, job, at, but=made["sop_instance_uid"])
        results.replace_objects(session, job.id, [made], destinations=job.announce_to, at=at)
    return True


def withdraw(session: Session, job: Job, at: datetime, *, but: str = "") -> None:
    """Take back what was to be announced of a job, or of earlier ones in its place, and has not left.

    `but` is the one that stays. What is being sent in this moment stays too.
    """
    unsent = session.scalars(
        select(Delivery)
        .join(ResultObject, ResultObject.id == Delivery.result_id)
        .join(Job, Job.id == ResultObject.job_id)
        .where(
            *_in_place_of(job),
            ResultObject.sop_instance_uid != but,
            Delivery.state.not_in(_ARRIVED),
            or_(Delivery.lease_until.is_(None), Delivery.lease_until < at),
        )
        .order_by(Delivery.id)
        .with_for_update(of=Delivery, skip_locked=True)
    ).all()
    for delivery in unsent:
        message = f"{ANNOUNCEMENT} to {delivery.destination} is withdrawn: job {job.id} went on"
        events.note(session, "withdrawn", message, study_id=job.study_id, job_id=job.id)
        session.delete(delivery)


def arrived(session: Session, job: Job) -> list[ResultObject]:
    """What some destination has that says that a job, or an earlier one in its place, was not performed."""
    at_destination = select(Delivery.id).where(
        Delivery.result_id == ResultObject.id, Delivery.state.in_(_ARRIVED)
    )
    return list(
        session.scalars(
            select(ResultObject)
            .join(Job, Job.id == ResultObject.job_id)
            .where(*_in_place_of(job), at_destination.exists())
            .order_by(ResultObject.id)
        )
    )


def _in_place_of(job: Job) -> tuple[ColumnElement[bool], ...]:
    """Announcements of this job, and of earlier ones of the same model about the same series."""
    # By its study too: that has an index.
    return (
        Job.study_id == job.study_id,
        job_series.same(Job, job),
        Job.model == job.model,
        Job.parameters == job.parameters,
        Job.id <= job.id,
        ResultObject.kind == ANNOUNCEMENT,
    )
