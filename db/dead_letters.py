"""Dead deliveries: found, and by a person's wish sent on their way again."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import deliveries, jobs, states, studies
from db.models import Delivery, Job, ResultObject, Study
from db.states import DeliveryState, JobState, StudyState


def revivable(session: Session, *, destination: str | None = None, limit: int = 10_000) -> list[int]:
    """Ids of the dead deliveries, of all destinations or of one, that can be sent again, oldest first."""
    statement = (
        select(Delivery.id)
        .join(ResultObject, ResultObject.id == Delivery.result_id)
        .join(Job, Job.id == ResultObject.job_id)
        .join(Study, Study.id == Job.study_id)
        .where(
            Delivery.state == DeliveryState.DEAD.value,
            ResultObject.verified.is_(True),
            Job.state.not_in([JobState.QUEUED.value, JobState.RUNNING.value, JobState.CANCELLED.value]),
            Study.state != StudyState.PURGED.value,
        )
    )
    if destination is not None:
        statement = statement.where(Delivery.destination == destination)
    return list(session.scalars(statement.order_by(Delivery.id).limit(limit)))


def revive(session: Session, delivery_id: int) -> bool:
    """DEAD -> PENDING by a person's wish, with a fresh schedule; its job delivers again.

    False for one that is not dead, or whose object did not pass: that never leaves. Raises NotFound, and
    FilesGone where the object was deleted.
    """
    delivery = deliveries.get(session, delivery_id)
    revived = delivery.result.verified and states.advance(
        session,
        Delivery,
        delivery_id,
        DeliveryState.DEAD,
        DeliveryState.PENDING,
        attempts=0,
        first_attempt_at=None,
        next_attempt_at=None,
        nudged_at=None,
    )
    job = jobs.locked(session, delivery.result.job_id)
    if revived:
        studies.require_files(session, job.study_id)
    if revived and job.state == JobState.FAILED:
        states.advance(
            session, Job, job.id, JobState.FAILED, JobState.DELIVERING, finished_at=None, reason="", error=""
        )
        studies.reopen(session, job.study_id)
    return revived
