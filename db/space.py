"""Want of space: since when images are refused for it, one event as it begins and one as it ends."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from db import events, refusals
from db.models import Event, Instance

_SHORT, _ENOUGH = "space-short", "space-again"


def short_since(session: Session) -> datetime | None:
    """Since when images are refused for want of space; None where they are taken."""
    last = session.execute(
        select(Event.kind, Event.at)
        .where(Event.kind.in_([_SHORT, _ENOUGH]))
        .order_by(Event.id.desc())
        .limit(1)
    ).one_or_none()
    return last.at if last is not None and last.kind == _SHORT else None


def refused(session: Session, *, since: datetime) -> int:
    """How many images were refused for want of space since."""
    wanted = select(func.count(Event.id)).where(Event.kind == refusals.FOR_SPACE, Event.at >= since)
    return session.scalar(wanted) or 0


def begin(session: Session, message: str) -> bool:
    """Note that images are refused from now on; False where that is known."""
    if short_since(session) is not None:
        return False
    events.note(session, _SHORT, message)
    return True


def end(session: Session, message: str) -> bool:
    """Note that images are taken again; False where that is known."""
    if short_since(session) is None:
        return False
    events.note(session, _ENOUGH, message)
    return True


def forget_refused(session: Session, *, before: datetime, limit: int) -> int:
    """Delete what is remembered of refused images whose associations carried nothing; how many.

    No study asks for them: a sender that comes again and again would fill the database, and the disk.
    """
    carried = select(Instance.id).where(Instance.association_id == Event.association_id)
    useless = (
        select(Event.id)
        .where(Event.kind == refusals.FOR_SPACE, Event.at < before, ~carried.exists())
        .order_by(Event.id)
        .limit(limit)
    )
    ids = session.scalars(useless).all()
    for start in range(0, len(ids), 500):
        session.execute(
            delete(Event)
            .where(Event.id.in_(ids[start : start + 500]))
            .execution_options(synchronize_session=False)
        )
    return len(ids)
