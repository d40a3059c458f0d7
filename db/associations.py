"""Associations and the processes that hold them: who opened one, how it ended, whose holder died."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, delete, select, update
from sqlalchemy.orm import Session

from db.base import insert_missing
from db.models import Association, Process


def record(session: Session, row: dict[str, Any]) -> None:
    """Write an association's row; one that exists already stays as it is."""
    insert_missing(session, Association, [row], ["id"])


def close(session: Session, association_id: str, *, outcome: str, at: datetime, reason: str = "") -> None:
    """Say how an association ended."""
    session.execute(
        update(Association)
        .where(Association.id == association_id, Association.outcome == "open")
        .values(outcome=outcome, closed_at=at, reason=reason)
    )


def heartbeat(session: Session, *, process_id: str, role: str, started_at: datetime, at: datetime) -> None:
    """Say that a process lives."""
    result = session.execute(update(Process).where(Process.id == process_id).values(seen_at=at))
    assert isinstance(result, CursorResult)
    if result.rowcount == 0:
        session.add(Process(id=process_id, role=role, started_at=started_at, seen_at=at))


def goodbye(session: Session, process_id: str, at: datetime) -> None:
    """Say that a process ends well: its row goes, associations it still held are lost."""
    session.execute(delete(Process).where(Process.id == process_id))
    _lose(session, Association.process_id == process_id, at=at)


def living(session: Session, since: datetime) -> list[Process]:
    """The processes that were seen since a time, by role."""
    return list(
        session.scalars(select(Process).where(Process.seen_at >= since).order_by(Process.role, Process.id))
    )


def dead(session: Session, *, silent_since: datetime, is_gone: Callable[[str], bool]) -> list[Process]:
    """The processes that were silent for too long, or of which `is_gone` knows that they ended."""
    return [
        process
        for process in session.scalars(select(Process).order_by(Process.id))
        if process.seen_at < silent_since or is_gone(process.id)
    ]


def bury(session: Session, process_ids: Collection[str], *, at: datetime) -> int:
    """Close as lost what dead processes held; return how many associations that were.

    An association whose process has no row at all belongs to a process that said goodbye or was
    buried before: it is lost too.
    """
    session.execute(delete(Process).where(Process.id.in_(process_ids)))
    return _lose(session, Association.process_id.not_in(select(Process.id)), at=at)


def _lose(session: Session, which: Any, *, at: datetime) -> int:
    """Close open associations as lost; return how many."""
    result = session.execute(
        update(Association)
        .where(Association.outcome == "open", which)
        .values(outcome="lost", closed_at=at, reason="the process that held it ended")
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)
    return result.rowcount
