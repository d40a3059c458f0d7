"""Storage commitments that we ask for: each request is a row before it leaves, and ends reported or lost."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, and_, func, or_, select, update
from sqlalchemy.orm import Session, aliased, contains_eager

from db import deliveries, states
from db.models import Commitment, Delivery, Job, Process, ResultObject
from db.states import CommitmentState, DeliveryState, JobState

#: A report names what we asked about: a handful. Of one that names more, the rest is not looked at.
MOST_NAMED = 1000


def due(session: Session, *, now: datetime, nudged_before: datetime, limit: int = 1000) -> list[int]:
    """Ids of deliveries whose commitment is to be asked for: one for each job and destination."""
    return list(
        session.scalars(
            select(func.min(Delivery.id))
            .join(ResultObject, ResultObject.id == Delivery.result_id)
            .join(Job, Job.id == ResultObject.job_id)
            .where(
                *_askable(now),
                or_(Delivery.nudged_at.is_(None), Delivery.nudged_at < nudged_before),
            )
            .group_by(ResultObject.job_id, Delivery.destination)
            .order_by(func.min(Delivery.id))
            .limit(limit)
        )
    )


def _askable(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """What must hold for a delivery, its job and its siblings, so that its commitment is asked for now."""
    return (
        Delivery.state == DeliveryState.SENT.value,
        Delivery.awaits_commitment.is_(True),
        Delivery.next_attempt_at <= now,
        or_(Delivery.lease_until.is_(None), Delivery.lease_until < now),
        Job.state == JobState.DELIVERING.value,
        ~_sibling_pending(),
        deliveries.destination_is_idle(now),
    )


def _sibling_pending() -> ColumnElement[bool]:
    """Whether something else of the job has yet to go there: all of it is asked about together."""
    sibling, of_sibling = aliased(Delivery), aliased(ResultObject)
    return (
        select(sibling.id)
        .join(of_sibling, of_sibling.id == sibling.result_id)
        .where(
            of_sibling.job_id == ResultObject.job_id,
            sibling.destination == Delivery.destination,
            sibling.state == DeliveryState.PENDING.value,
        )
        .exists()
    )


def begin(
    session: Session, delivery_id: int, *, transaction_uid: str, owner: str, now: datetime, lease: timedelta
) -> tuple[Commitment, list[Delivery]] | None:
    """A request for everything of the same job that waits to be committed to at the same destination.

    Commit it before the request leaves. None where nothing is to be asked for, or somebody else asks.
    """
    asked = deliveries.get(session, delivery_id)
    rows = _locked(
        session,
        ResultObject.job_id == asked.result.job_id,
        Delivery.destination == asked.destination,
        *_askable(now),
    )
    if not rows:
        return None
    commitment = Commitment(
        transaction_uid=transaction_uid,
        destination=asked.destination,
        state=CommitmentState.REQUESTED.value,
        requested_at=now,
    )
    session.add(commitment)
    session.flush()
    for row in rows:
        row.commitment_id = commitment.id
        row.commitment_attempts += 1
        row.next_attempt_at = None
        row.lease_owner, row.lease_until = owner, now + lease
    session.flush()
    return commitment, rows


def _locked(session: Session, *where: ColumnElement[bool]) -> list[Delivery]:
    """Deliveries as they are now, which nobody else moves until this transaction ends."""
    return list(
        session.scalars(
            select(Delivery)
            .join(Delivery.result)
            .join(ResultObject.job)
            .where(*where)
            .options(contains_eager(Delivery.result).contains_eager(ResultObject.job))
            .order_by(Delivery.id)
            .with_for_update(of=Delivery, key_share=True)
            .execution_options(populate_existing=True)
        )
    )


def waive(session: Session, delivery_id: int) -> list[Delivery]:
    """Await no commitment any more for everything of the same job that was sent to the same destination."""
    asked = deliveries.get(session, delivery_id)
    rows = _locked(
        session,
        ResultObject.job_id == asked.result.job_id,
        Delivery.destination == asked.destination,
        Delivery.state == DeliveryState.SENT.value,
        Delivery.awaits_commitment.is_(True),
    )
    for row in rows:
        row.awaits_commitment = False
        row.next_attempt_at = None
        row.lease_owner, row.lease_until = "", None
    session.flush()
    return rows


def let_go(session: Session, commitment_id: int) -> None:
    """The request has left; its report may come at any time, to whomever."""
    session.execute(
        update(Delivery)
        .where(Delivery.commitment_id == commitment_id, Delivery.state == DeliveryState.SENT.value)
        .values(**deliveries.FREE)
        .execution_options(synchronize_session=False)
    )


def by_transaction(session: Session, transaction_uid: str) -> Commitment | None:
    """The request with this Transaction UID; None where we never made it."""
    return session.scalar(select(Commitment).where(Commitment.transaction_uid == transaction_uid))


def is_open(session: Session, commitment_id: int) -> bool:
    """Whether a request still waits for its report."""
    state = session.scalar(select(Commitment.state).where(Commitment.id == commitment_id))
    return state == CommitmentState.REQUESTED.value


def report(
    session: Session, commitment: Commitment, named: Collection[str], *, at: datetime, comment: str
) -> list[Delivery] | None:
    """REQUESTED or LOST -> REPORTED; the deliveries that the report decides, locked.

    Those are the request's own, named or not. Where it was given up before, they may be part of a newer
    request by now: then those `named` (SOP Instance UIDs) that had been sent before it asked. None where
    it was reported before.
    """
    for state in (CommitmentState.REQUESTED, CommitmentState.LOST):
        if states.advance(
            session,
            Commitment,
            commitment.id,
            state,
            CommitmentState.REPORTED,
            reported_at=at,
            comment=comment,
        ):
            break
    else:
        return None
    own = Delivery.commitment_id == commitment.id
    late = and_(
        Delivery.awaits_commitment.is_(True),
        ResultObject.sop_instance_uid.in_(sorted(named)[:MOST_NAMED]),
        Delivery.sent_at <= commitment.requested_at,
    )
    return _locked(
        session,
        Delivery.state == DeliveryState.SENT.value,
        Delivery.destination == commitment.destination,
        own if state is CommitmentState.REQUESTED else or_(own, late),
    )


def unknown_among(session: Session, destination: str, named: Collection[str]) -> int:
    """How many of the SOP Instance UIDs are of objects that were never meant for the destination."""
    known = session.scalars(
        select(ResultObject.sop_instance_uid)
        .join(Delivery, Delivery.result_id == ResultObject.id)
        .where(
            Delivery.destination == destination,
            ResultObject.sop_instance_uid.in_(sorted(named)[:MOST_NAMED]),
        )
    )
    return len(set(named)) - len(set(known))


def lose(session: Session, commitment_id: int, *, comment: str) -> list[Delivery]:
    """REQUESTED -> LOST; its deliveries, locked, to be asked about again or given up."""
    if not states.advance(
        session,
        Commitment,
        commitment_id,
        CommitmentState.REQUESTED,
        CommitmentState.LOST,
        comment=comment,
    ):
        return []
    return _locked(
        session, Delivery.commitment_id == commitment_id, Delivery.state == DeliveryState.SENT.value
    )


def committed(session: Session, delivery_id: int, at: datetime) -> bool:
    """SENT -> COMMITTED."""
    return states.advance(
        session,
        Delivery,
        delivery_id,
        DeliveryState.SENT,
        DeliveryState.COMMITTED,
        committed_at=at,
        next_attempt_at=None,
        **deliveries.FREE,
    )


def ask_again(session: Session, delivery_id: int, at: datetime) -> None:
    """Stays SENT; its commitment is asked for again at a time."""
    session.execute(
        update(Delivery)
        .where(Delivery.id == delivery_id, Delivery.state == DeliveryState.SENT.value)
        .values(next_attempt_at=at, nudged_at=None, **deliveries.FREE)
        .execution_options(synchronize_session=False)
    )


def send_again(session: Session, delivery_id: int, at: datetime, *, status: int, comment: str) -> bool:
    """SENT -> PENDING: the destination does not have it after all."""
    return states.advance(
        session,
        Delivery,
        delivery_id,
        DeliveryState.SENT,
        DeliveryState.PENDING,
        next_attempt_at=at,
        nudged_at=None,
        status=status,
        comment=comment,
        **deliveries.FREE,
    )


def give_up(session: Session, delivery_id: int, *, comment: str) -> bool:
    """SENT -> DEAD: taken, but never committed to."""
    return states.advance(
        session,
        Delivery,
        delivery_id,
        DeliveryState.SENT,
        DeliveryState.DEAD,
        comment=comment,
        next_attempt_at=None,
        **deliveries.FREE,
    )


def overdue(session: Session, *, asked_before: datetime, limit: int = 100) -> list[int]:
    """Requests whose report did not come in time."""
    return list(
        session.scalars(
            select(Commitment.id)
            .where(
                Commitment.state == CommitmentState.REQUESTED.value, Commitment.requested_at < asked_before
            )
            .order_by(Commitment.id)
            .limit(limit)
        )
    )


def orphans(session: Session, limit: int = 100) -> list[int]:
    """Requests whose asker died before it was told whether they arrived."""
    # Correlated: from the few requests to their deliveries, and not from all that was ever sent.
    held = select(Delivery.id).where(
        Delivery.commitment_id == Commitment.id,
        Delivery.state == DeliveryState.SENT.value,
        Delivery.lease_until.is_not(None),
        Delivery.lease_owner.not_in(select(Process.id)),
    )
    waiting = select(Commitment.id).where(Commitment.state == CommitmentState.REQUESTED.value, held.exists())
    return list(session.scalars(waiting.order_by(Commitment.id).limit(limit)))
