"""Dead deliveries: found, and by a person's wish sent on their way again."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import deliveries, jobs, states, studies, supersession
from db.errors import NotRevivable
from db.models import Delivery, Job, ResultObject, Study
from db.models.answers import ANNOUNCEMENT
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
            ~supersession.has_successor(),
        )
    )
    if destination is not None:
        statement = statement.where(Delivery.destination == destination)
    return list(session.scalars(statement.order_by(Delivery.id).limit(limit)))


def revive(session: Session, delivery_id: int) -> bool:
    """DEAD -> PENDING by a person's wish, with a fresh schedule; its job delivers again.

    One that says that its job has no answer leaves the job as it is: FAILED.
    False for one that is not dead, or whose object did not pass: that never leaves. Raises NotFound, and
    NotRevivable where its job was cancelled, a newer one answers in its place, or its object was deleted.
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
    if not revived:
        return False
    job = jobs.locked(session, delivery.result.job_id)
    studies.require_files(session, job.study_id)
    supersession.require_newest(session, job)
    if job.state == JobState.CANCELLED:
        raise NotRevivable(f"delivery {delivery_id} stays dead: its job was cancelled; retry job {job.id}")
    if job.state == JobState.FAILED and delivery.result.kind != ANNOUNCEMENT:
        states.advance(
            session, Job, job.id, JobState.FAILED, JobState.DELIVERING, finished_at=None, reason="", error=""
        )
        studies.reopen(session, job.study_id)
    return True
