"""Figures for the metrics, each one cheap query over rows that are there anyway."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import takewhile

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


@dataclass(frozen=True, kw_only=True)
class OnFallback:
    """The jobs that ran on the fallback since one did not; of so many newest as were looked at."""

    count: int
    #: When the first of them began.
    since: datetime
    #: What the newest one says.
    sentence: str


def on_fallback(session: Session, *, limit: int = 1000) -> OnFallback | None:
    """The newest answers in a row that came from the fallback; None where the newest one did not."""
    rows = session.execute(
        select(Job.started_at, Job.engine, Job.fallback)
        .where(Job.state.in_([JobState.DELIVERING.value, JobState.DONE.value]), Job.engine != "")
        .order_by(Job.id.desc())
        .limit(limit)
    )
    found = [*takewhile(lambda row: row.fallback, rows)]
    if not found:
        return None
    since = min(row.started_at for row in found)
    return OnFallback(count=len(found), since=since, sentence=found[0].engine + found[0].fallback)


def oldest_waiting(session: Session) -> datetime | None:
    """When the job that waits longest was made."""
    return session.scalar(select(func.min(Job.created_at)).where(Job.state == JobState.QUEUED.value))
