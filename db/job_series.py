"""Which series a job is about: one, or several, each in a role of its model's."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from db.base import insert_missing
from db.models import Instance, Job, JobSeries, Series


def record(session: Session, job_id: int, roles: Mapping[str, int]) -> None:
    """Keep the ids of a job's series by role, where they are several; the first is that of its row."""
    if len(roles) > 1:
        rows = [{"job_id": job_id, "role": role, "series_id": series} for role, series in roles.items()]
        insert_missing(session, JobSeries, rows, ["job_id", "role"])


def of(session: Session, job: Job) -> dict[str, Series]:
    """A job's series by role, in the order of its model's inputs; the one of a model that has one under ""."""
    found = session.execute(
        select(JobSeries.role, Series)
        .join(Series, Series.id == JobSeries.series_id)
        .where(JobSeries.job_id == job.id)
        .order_by(JobSeries.id)
    ).all()
    return {role: series for role, series in found} or {"": session.get_one(Series, job.series_id)}


def uids(session: Session, job: Job) -> dict[str, str]:
    """Series Instance UIDs of a job's several series by role; empty where it has one."""
    return {role: series.series_instance_uid for role, series in of(session, job).items() if role}


def about(series_ids: Collection[int]) -> ColumnElement[bool]:
    """Whether a job is about one of these series, in whatever role."""
    further = select(JobSeries.id).where(JobSeries.job_id == Job.id, JobSeries.series_id.in_(series_ids))
    return or_(Job.series_id.in_(series_ids), further.exists())


def lacks_images() -> ColumnElement[bool]:
    """Whether one of a job's series has no images any more."""
    own = select(Instance.id).where(Instance.series_id == Job.series_id)
    of_further = select(Instance.id).where(Instance.series_id == JobSeries.series_id)
    further = select(JobSeries.id).where(and_(JobSeries.job_id == Job.id, ~of_further.exists()))
    return or_(~own.exists(), further.exists())
