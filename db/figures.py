"""Figures for the metrics, each one cheap query over rows that are there anyway."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Event, Job, Study
from db.states import JobState


def arrivals(session: Session) -> int:
    """How many images have arrived, duplicates not counted; summed over studies, which are few."""
    return session.scalar(select(func.coalesce(func.sum(Study.arrivals), 0))) or 0


def events_by_kind(session: Session) -> dict[str, int]:
    """Events per kind."""
    return {
        kind: count for kind, count in session.execute(select(Event.kind, func.count()).group_by(Event.kind))
    }


def stage_seconds(session: Session, *, limit: int) -> dict[tuple[str, str], list[float]]:
    """Seconds by (model, stage) of the newest `limit` jobs that were analysed to the end."""
    rows = session.execute(
        select(Job.model, Job.seconds)
        .where(Job.state.in_([JobState.DELIVERING.value, JobState.DONE.value]), Job.seconds.is_not(None))
        .order_by(Job.id.desc())
        .limit(limit)
    )
    found: dict[tuple[str, str], list[float]] = {}
    for model, seconds in rows:
        for stage, value in seconds.items():
            found.setdefault((model, stage), []).append(float(value))
    return found


def oldest_waiting(session: Session) -> datetime | None:
    """When the job that waits longest was made."""
    return session.scalar(select(func.min(Job.created_at)).where(Job.state == JobState.QUEUED.value))
