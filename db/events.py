"""Events: what happened, kept for the admin who asks afterwards."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from sqlalchemy import select, union
from sqlalchemy.orm import Session

from db.models import Event, Instance, Series

#: Kinds of which there may be thousands at once; one event says so in their place.
_MANY = ("refused-for-space", "fallback")


def note(
    session: Session,
    kind: str,
    message: str,
    *,
    study_id: int | None = None,
    job_id: int | None = None,
    association_id: str | None = None,
) -> None:
    """Write an event. `message` must hold no patient data."""
    session.add(
        Event(
            at=datetime.now(UTC),
            kind=kind,
            message=message,
            study_id=study_id,
            job_id=job_id,
            association_id=association_id,
        )
    )


def note_once(session: Session, kind: str, message: str, *, within: timedelta = timedelta(hours=1)) -> None:
    """Write an event of no study, unless the same was written lately: its cause may repeat without end."""
    lately = Event.at > datetime.now(UTC) - within
    same = select(Event.id).where(lately, Event.kind == kind, Event.message == message).limit(1)
    if session.scalar(same) is None:
        note(session, kind, message)


def of_study(session: Session, study_id: int) -> Sequence[Event]:
    """A study's events and those of the associations that carried it, oldest first."""
    carried = (
        select(Instance.association_id)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study_id, Instance.association_id.is_not(None))
    )
    # Not with OR: PostgreSQL would read every event there is.
    found = union(
        select(Event.id).where(Event.study_id == study_id),
        select(Event.id).where(Event.association_id.in_(carried)),
    )
    return session.scalars(select(Event).where(Event.id.in_(found)).order_by(Event.at, Event.id)).all()


def newest(session: Session, limit: int = 50) -> Sequence[Event]:
    """The newest events of all, newest first, without those that only their study's list tells one by one."""
    listed = select(Event).where(Event.kind.not_in(_MANY))
    return session.scalars(listed.order_by(Event.at.desc(), Event.id.desc()).limit(limit)).all()
