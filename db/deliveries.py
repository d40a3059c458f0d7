"""Deliveries: one ledger row per result and destination, each with its own schedule."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, func, literal, or_, select, text, update
from sqlalchemy.orm import Session, aliased, selectinload

from db import states
from db.base import UtcDateTime
from db.errors import NotFound
from db.models import Delivery, Job, Process, ResultObject
from db.models.answers import UNCOMMITTED, URGENT
from db.states import DeliveryState, JobState

#: A sender that gave no sign of life for so long holds up nobody else's results for its destination.
SENDER_SILENT = timedelta(seconds=15)
#: So many jobs are looked at whose results go first.
_MOST_URGENT = 100


def claim(
    session: Session, delivery_id: int, *, owner: str, now: datetime, lease: timedelta
) -> list[Delivery]:
    """Take everything of the same job that is due at the same destination, under one lease.

    One association then carries all of it. Empty where nothing is due or somebody else has it.
    """
    asked = get(session, delivery_id)
    # Locked in one order before anything is written: a second claimer waits here, then finds them taken.
    siblings = session.scalars(
        select(Delivery.id)
        .join(ResultObject, ResultObject.id == Delivery.result_id)
        .join(Job, Job.id == ResultObject.job_id)
        .where(Job.id == asked.result.job_id, Delivery.destination == asked.destination, *_free_and_due(now))
        .order_by(Delivery.id)
        .with_for_update(of=Delivery, key_share=True)
    ).all()
    session.execute(
        update(Delivery)
        .where(Delivery.id.in_(siblings))
        .values(
            lease_owner=owner,
            lease_until=now + lease,
            attempts=Delivery.attempts + 1,
            first_attempt_at=func.coalesce(Delivery.first_attempt_at, literal(now, UtcDateTime())),
        )
        .execution_options(synchronize_session=False)
    )
    return list(
        session.scalars(
            select(Delivery)
            .where(Delivery.id.in_(siblings))
            .options(selectinload(Delivery.result).selectinload(ResultObject.job))
            .order_by(Delivery.id)
            .execution_options(populate_existing=True)
        )
    )


def sent(
    session: Session,
    delivery_id: int,
    *,
    owner: str,
    at: datetime,
    status: int | None,
    comment: str,
    awaits_commitment: bool = False,
) -> bool:
    """PENDING -> SENT with the destination's answer, only while `owner` holds the lease.

    Where it awaits a commitment, that is to be asked for now.
    """
    return states.advance(
        session,
        Delivery,
        delivery_id,
        DeliveryState.PENDING,
        DeliveryState.SENT,
        Delivery.lease_owner == owner,
        sent_at=at,
        status=status,
        comment=comment,
        awaits_commitment=awaits_commitment,
        commitment_attempts=0,
        next_attempt_at=at if awaits_commitment else None,
        nudged_at=None,
        **FREE,
    )


def dead(session: Session, delivery_id: int, *, owner: str, status: int | None, comment: str) -> bool:
    """PENDING -> DEAD with the reason, only while `owner` holds the lease."""
    return states.advance(
        session,
        Delivery,
        delivery_id,
        DeliveryState.PENDING,
        DeliveryState.DEAD,
        Delivery.lease_owner == owner,
        status=status,
        comment=comment,
        next_attempt_at=None,
        **FREE,
    )


def postpone(
    session: Session, delivery_id: int, *, owner: str, until: datetime, status: int | None, comment: str
) -> bool:
    """Stays PENDING, to be tried again at `until`; only while `owner` holds the lease."""
    result = session.execute(
        update(Delivery)
        .where(
            Delivery.id == delivery_id,
            Delivery.state == DeliveryState.PENDING.value,
            Delivery.lease_owner == owner,
        )
        .values(next_attempt_at=until, nudged_at=None, status=status, comment=comment, **FREE)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def renew(session: Session, delivery_ids: Sequence[int], *, owner: str, until: datetime) -> None:
    """Prolong the leases of those that `owner` still holds."""
    session.execute(
        update(Delivery)
        .where(Delivery.id.in_(delivery_ids), Delivery.lease_owner == owner)
        .values(lease_until=until)
        .execution_options(synchronize_session=False)
    )


#: What a delivery looks like that nobody holds.
FREE: dict[str, Any] = {"lease_owner": "", "lease_until": None}


def due(session: Session, *, now: datetime, nudged_before: datetime, limit: int = 1000) -> list[int]:
    """Ids of due deliveries that nobody holds and whose message was not sent lately."""
    return list(
        session.scalars(
            select(Delivery.id)
            .join(ResultObject, ResultObject.id == Delivery.result_id)
            .join(Job, Job.id == ResultObject.job_id)
            .where(
                *_free_and_due(now),
                or_(Delivery.nudged_at.is_(None), Delivery.nudged_at < nudged_before),
            )
            .order_by(Delivery.id)
            .limit(limit)
        )
    )


def _free_and_due(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """What must hold for a delivery, its result and its job, so that it may be sent now."""
    return (
        Delivery.state == DeliveryState.PENDING.value,
        or_(Delivery.next_attempt_at.is_(None), Delivery.next_attempt_at <= now),
        or_(Delivery.lease_until.is_(None), Delivery.lease_until < now),
        # Its files are being made anew, or a person stopped it.
        Job.state.not_in([JobState.QUEUED.value, JobState.RUNNING.value, JobState.CANCELLED.value]),
        destination_is_idle(now),
    )


def destination_is_idle(now: datetime) -> ColumnElement[bool]:
    """Whether nobody who lives speaks with a delivery's destination just now.

    One sender at a time: however many results wait for a destination that hangs, the other senders are
    free for the others. Two that begin in the same moment both get through, which does no harm.
    """
    held = aliased(Delivery)
    speaking = (
        select(held.destination)
        .join(Process, Process.id == held.lease_owner)
        .where(held.lease_until > now, Process.seen_at > now - SENDER_SILENT)
    )
    return Delivery.destination.not_in(speaking)


def next_for(session: Session, delivery_id: int, now: datetime) -> list[int]:
    """The id of what is to be sent next to a delivery's destination, if anything is: of urgent jobs first."""
    destination = select(Delivery.destination).where(Delivery.id == delivery_id).scalar_subquery()
    oldest = (
        select(Delivery.id)
        .join(ResultObject, ResultObject.id == Delivery.result_id)
        .join(Job, Job.id == ResultObject.job_id)
        .where(Delivery.destination == destination, *_free_and_due(now))
        .order_by(Delivery.id)
        .limit(1)
    )
    # Asked for by themselves: they are few, and all that waits for a destination may be very much to sort.
    urgent = list(session.scalars(select(Job.id).where(text(URGENT)).limit(_MOST_URGENT)))
    found = list(session.scalars(oldest.where(ResultObject.job_id.in_(urgent)))) if urgent else []
    return found or list(session.scalars(oldest))


def mark_nudged(session: Session, delivery_ids: Sequence[int], at: datetime) -> None:
    """Remember that messages for these deliveries were sent."""
    session.execute(
        update(Delivery)
        .where(Delivery.id.in_(delivery_ids))
        .values(nudged_at=at)
        .execution_options(synchronize_session=False)
    )


def get(session: Session, delivery_id: int) -> Delivery:
    """One delivery with its result. Raises NotFound."""
    delivery = session.scalar(
        select(Delivery).where(Delivery.id == delivery_id).options(selectinload(Delivery.result))
    )
    if delivery is None:
        raise NotFound(f"there is no delivery {delivery_id}")
    return delivery


def newest(
    session: Session,
    *,
    state: str | None = None,
    destination: str | None = None,
    limit: int = 100,
    offset: int = 0,
) -> list[Delivery]:
    """Deliveries, newest first, each with its result, job and newest commitment request."""
    statement = select(Delivery).options(
        selectinload(Delivery.result).selectinload(ResultObject.job), selectinload(Delivery.commitment)
    )
    if destination is not None:
        statement = statement.where(Delivery.destination == destination)
    if state is not None:
        statement = statement.where(Delivery.state == state)
    return list(session.scalars(statement.order_by(Delivery.id.desc()).limit(limit).offset(offset)))


def unasked(session: Session, committing: Collection[str], limit: int = 100) -> list[tuple[int, int | None]]:
    """Deliveries that await a commitment of a destination that is none of these, with their newest request."""
    rows = session.execute(
        select(Delivery.id, Delivery.commitment_id)
        .where(
            # In the index's own words: nearly all that was ever sent awaits nothing.
            text(UNCOMMITTED),
            Delivery.destination.not_in(committing),
        )
        .order_by(Delivery.id)
        .limit(limit)
    )
    return [(delivery_id, request_id) for delivery_id, request_id in rows]


def free_orphans(session: Session) -> int:
    """Free what dead senders held, so that it is sent at once and not when the lease ends; how many."""
    result = session.execute(
        update(Delivery)
        .where(
            Delivery.state == DeliveryState.PENDING.value,
            Delivery.lease_until.is_not(None),
            Delivery.lease_owner.not_in(select(Process.id)),
        )
        .values(nudged_at=None, **FREE)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)
    return result.rowcount


def retrying(session: Session) -> dict[str, int]:
    """Results per destination that it did not take yet, though they were sent."""
    return dict(
        session.execute(
            select(Delivery.destination, func.count())
            .where(Delivery.state == DeliveryState.PENDING.value, Delivery.attempts > 0)
            .where(Delivery.next_attempt_at.is_not(None), Delivery.lease_until.is_(None))
            .group_by(Delivery.destination)
            .order_by(Delivery.destination)
        ).all()
    )


def count_by_state(session: Session) -> dict[str, int]:
    """Deliveries per state."""
    return states.count(session, Delivery)
