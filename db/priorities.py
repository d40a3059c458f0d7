"""Whose job goes first: of those that wait, the more urgent, and among equals the one that has waited longest."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Delivery, Job, ResultObject


class Priority(IntEnum):
    """A job's priority, and that of its results; the least number goes first, here and at the broker."""

    STAT = 0
    ROUTINE = 1
    BACKGROUND = 2

    @property
    def word(self) -> str:
        """As the configuration has it, and lists show it."""
        return self.name.lower()


def of_jobs(session: Session, job_ids: Sequence[int]) -> dict[int, int]:
    """The priorities of jobs."""
    rows = session.execute(select(Job.id, Job.priority).where(Job.id.in_(job_ids)))
    return {job_id: priority for job_id, priority in rows}


def of_deliveries(session: Session, delivery_ids: Sequence[int]) -> dict[int, int]:
    """The priorities of the jobs whose results these deliveries are."""
    rows = session.execute(
        select(Delivery.id, Job.priority)
        .join(ResultObject, ResultObject.id == Delivery.result_id)
        .join(Job, Job.id == ResultObject.job_id)
        .where(Delivery.id.in_(delivery_ids))
    )
    return {delivery_id: priority for delivery_id, priority in rows}
