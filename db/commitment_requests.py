"""Storage commitment requests of peers: recorded before they are acknowledged, answered from evidence, once each."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, CursorResult, delete, insert, or_, select, update
from sqlalchemy.orm import Session

from db import states
from db.errors import DifferentRequest
from db.models import CommitmentReference, CommitmentRequest, Instance, Process, Series
from db.states import RequestState

#: (SOP Class UID, SOP Instance UID)
Named = tuple[str, str]

#: Keys that a single statement may name; SQLite allows 32,766 variables.
_CHUNK = 500
#: What a request looks like that nobody holds.
_FREE: dict[str, Any] = {"lease_owner": "", "lease_until": None}


def record(session: Session, values: Mapping[str, Any], named: Collection[Named]) -> int:
    """A peer asks about these instances; the request's id. Whoever `values` names holds it.

    The same request again is the same row, to be answered again. Raises DifferentRequest.
    """
    known = session.scalar(
        select(CommitmentRequest)
        .where(
            CommitmentRequest.calling_ae_title == values["calling_ae_title"],
            CommitmentRequest.transaction_uid == values["transaction_uid"],
        )
        .with_for_update()
    )
    if known is not None:
        _ask_again(session, known, values, named)
        return known.id
    row = CommitmentRequest(**values, state=RequestState.PENDING.value)
    session.add(row)
    session.flush()
    references = [
        {"request_id": row.id, "sop_class_uid": sop_class, "sop_instance_uid": sop_instance}
        for sop_class, sop_instance in named
    ]
    session.execute(insert(CommitmentReference), references)
    return row.id


def _ask_again(
    session: Session, row: CommitmentRequest, values: Mapping[str, Any], named: Collection[Named]
) -> None:
    """The row as if it were asked for the first time."""
    # One that was answered long ago may be known without its instances by now.
    before = {(each.sop_class_uid, each.sop_instance_uid) for each in references(session, row.id)}
    if before and before != set(named):
        raise DifferentRequest("this Transaction UID was used for other instances before")
    fresh = {"attempts": 0, "next_attempt_at": None, "nudged_at": None, "answered_at": None, "comment": ""}
    if row.state != RequestState.PENDING:
        states.advance(session, CommitmentRequest, row.id, RequestState(row.state), RequestState.PENDING)
    session.execute(update(CommitmentRequest).where(CommitmentRequest.id == row.id).values(**fresh, **values))
    if not before:
        session.execute(
            insert(CommitmentReference),
            [{"request_id": row.id, "sop_class_uid": one, "sop_instance_uid": two} for one, two in named],
        )


def references(session: Session, request_id: int) -> Sequence[CommitmentReference]:
    """What a request names, in its order."""
    return session.scalars(
        select(CommitmentReference)
        .where(CommitmentReference.request_id == request_id)
        .order_by(CommitmentReference.id)
    ).all()


def files_of(session: Session, sop_instance_uids: Sequence[str]) -> dict[str, list[tuple[Instance, int]]]:
    """Files by SOP Instance UID, each with the id of its study; UIDs that none has are left out."""
    found: dict[str, list[tuple[Instance, int]]] = {}
    for start in range(0, len(sop_instance_uids), _CHUNK):
        rows = session.execute(
            select(Instance, Series.study_id)
            .join(Series, Series.id == Instance.series_id)
            .where(Instance.sop_instance_uid.in_(sop_instance_uids[start : start + _CHUNK]))
        )
        for instance, study_id in rows:
            found.setdefault(instance.sop_instance_uid, []).append((instance, study_id))
    return found


def claim(
    session: Session, request_id: int, *, owner: str, now: datetime, lease: timedelta
) -> CommitmentRequest | None:
    """Take a due request for one attempt; None where it is not to be had."""
    if not _change(
        session,
        request_id,
        *_free_and_due(now),
        attempts=CommitmentRequest.attempts + 1,
        lease_owner=owner,
        lease_until=now + lease,
    ):
        return None
    return session.get_one(CommitmentRequest, request_id, populate_existing=True)


def renew(session: Session, request_id: int, *, owner: str, until: datetime) -> bool:
    """Prolong a lease; False where the request is no longer ours."""
    return _change(session, request_id, _is_held(owner), lease_until=until)


def let_go(
    session: Session, request_id: int, *, owner: str, until: datetime | None = None, comment: str = ""
) -> bool:
    """Stays PENDING, to be tried by anybody at `until`, or now."""
    values = {"next_attempt_at": until, "nudged_at": None, "comment": comment}
    return _change(session, request_id, _is_held(owner), **values, **_FREE)


def answered(
    session: Session,
    request_id: int,
    *,
    owner: str,
    at: datetime,
    failures: Mapping[int, int],
    comment: str,
) -> bool:
    """PENDING -> ANSWERED with what was said of each reference, only while `owner` holds it.

    `failures` holds the Failure Reason by reference id.
    """
    moved = states.advance(
        session,
        CommitmentRequest,
        request_id,
        RequestState.PENDING,
        RequestState.ANSWERED,
        _is_held(owner),
        answered_at=at,
        comment=comment,
        next_attempt_at=None,
        **_FREE,
    )
    if moved:
        _write_failures(session, request_id, failures)
    return moved


def dead(session: Session, request_id: int, *, owner: str, comment: str) -> bool:
    """PENDING -> DEAD with the reason, only while `owner` holds it."""
    return states.advance(
        session,
        CommitmentRequest,
        request_id,
        RequestState.PENDING,
        RequestState.DEAD,
        _is_held(owner),
        comment=comment,
        next_attempt_at=None,
        **_FREE,
    )


def due(session: Session, *, now: datetime, nudged_before: datetime, limit: int = 1000) -> list[int]:
    """Ids of due requests that nobody holds and whose message was not sent lately."""
    return list(
        session.scalars(
            select(CommitmentRequest.id)
            .where(
                *_free_and_due(now),
                or_(CommitmentRequest.nudged_at.is_(None), CommitmentRequest.nudged_at < nudged_before),
            )
            .order_by(CommitmentRequest.id)
            .limit(limit)
        )
    )


def mark_nudged(session: Session, request_ids: Sequence[int], at: datetime) -> None:
    """Remember that messages for these requests were sent."""
    session.execute(
        update(CommitmentRequest).where(CommitmentRequest.id.in_(request_ids)).values(nudged_at=at)
    )


def free_orphans(session: Session) -> int:
    """Free what dead processes held; how many."""
    result = session.execute(
        update(CommitmentRequest)
        .where(
            CommitmentRequest.state == RequestState.PENDING.value,
            CommitmentRequest.lease_until.is_not(None),
            CommitmentRequest.lease_owner.not_in(select(Process.id)),
        )
        .values(nudged_at=None, **_FREE)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)
    return result.rowcount


def forget(session: Session, *, before: datetime, limit: int = 1000) -> int:
    """Delete what requests named that ended before a time, of `limit` of them; how many references that were.

    The requests themselves stay: one row each, however much they named.
    """
    old = (
        select(CommitmentRequest.id)
        .where(
            CommitmentRequest.state != RequestState.PENDING.value,
            CommitmentRequest.received_at < before,
            select(CommitmentReference.id)
            .where(CommitmentReference.request_id == CommitmentRequest.id)
            .exists(),
        )
        .order_by(CommitmentRequest.id)
        .limit(limit)
    )
    ids = session.scalars(old).all()
    result = session.execute(
        delete(CommitmentReference)
        .where(CommitmentReference.request_id.in_(ids))
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)
    return result.rowcount


def count_by_state(session: Session) -> dict[str, int]:
    """Requests per state."""
    return states.count(session, CommitmentRequest)


def _write_failures(session: Session, request_id: int, failures: Mapping[int, int]) -> None:
    """What was answered of each reference."""
    of_request = CommitmentReference.request_id == request_id
    session.execute(update(CommitmentReference).where(of_request).values(failure=None))
    by_reason: dict[int, list[int]] = {}
    for reference_id, reason in failures.items():
        by_reason.setdefault(reason, []).append(reference_id)
    for reason, ids in by_reason.items():
        for chunk in _chunks(ids):
            chosen = CommitmentReference.id.in_(chunk)
            session.execute(update(CommitmentReference).where(of_request, chosen).values(failure=reason))


def _chunks(ids: Sequence[int]) -> Iterable[Sequence[int]]:
    return (ids[start : start + _CHUNK] for start in range(0, len(ids), _CHUNK))


def _is_held(owner: str) -> ColumnElement[bool]:
    return CommitmentRequest.lease_owner == owner


def _free_and_due(now: datetime) -> tuple[ColumnElement[bool], ...]:
    """What must hold for a request so that it may be answered now."""
    return (
        CommitmentRequest.state == RequestState.PENDING.value,
        or_(CommitmentRequest.next_attempt_at.is_(None), CommitmentRequest.next_attempt_at <= now),
        or_(CommitmentRequest.lease_until.is_(None), CommitmentRequest.lease_until < now),
    )


def _change(session: Session, request_id: int, *where: ColumnElement[bool], **values: Any) -> bool:
    """Change a PENDING request where the conditions hold."""
    result = session.execute(
        update(CommitmentRequest)
        .where(
            CommitmentRequest.id == request_id, CommitmentRequest.state == RequestState.PENDING.value, *where
        )
        .values(**values)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)
    return result.rowcount == 1
