"""Steps of the sweep that keep failing: an event as it begins, one an hour while it lasts, one as it ends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import events
from db.models import Event

FAILS, _WORKS = "sweep-failing", "sweep-works"
#: While it lasts it is noted so often; what was not noted for longer is over, or its step is no more.
_NOTED = timedelta(hours=1)
_OVER = _NOTED + timedelta(minutes=5)


def failing(session: Session, *, within: timedelta = _OVER) -> dict[str, str]:
    """The steps that keep failing, each with what is said of it."""
    lately = select(Event.kind, Event.message).where(
        Event.kind.in_([FAILS, _WORKS]), Event.at > datetime.now(UTC) - within
    )
    found: dict[str, str] = {}
    for kind, message in session.execute(lately.order_by(Event.id)):
        step, _, words = message.partition(": ")
        if kind == FAILS:
            found[step] = words
        else:
            found.pop(step, None)
    return found


def begin(session: Session, step: str, words: str) -> None:
    """Note that a step keeps failing, unless that is known. `step` holds no colon, `words` no patient data."""
    if step not in failing(session, within=_NOTED):
        events.note(session, FAILS, f"{step}: {words}")


def end(session: Session, step: str) -> None:
    """Note that a step works, where it is known to fail."""
    if step in failing(session):
        events.note(session, _WORKS, f"{step}: works again")
