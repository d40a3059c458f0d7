"""What may become of a study, a job and a delivery: enums, a literal table, one function that moves a row."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from sqlalchemy import CursorResult, func, select, update
from sqlalchemy.orm import Session

from db.errors import IllegalTransition
from db.models import Commitment, CommitmentRequest, Delivery, Job, Study

#: Why a job failed that has answered: a destination did not take all of it.
UNDELIVERED = "undelivered"


class StudyState(StrEnum):
    """A study's state."""

    #: Images are arriving, or its completeness is not established yet.
    RECEIVING = "receiving"
    #: Complete; its jobs exist.
    READY = "ready"
    #: Every job of this revision has ended.
    DONE = "done"
    #: Its files were deleted after their retention time; what was found stays known.
    PURGED = "purged"


class JobState(StrEnum):
    """A job's state."""

    #: Waits for a worker.
    QUEUED = "queued"
    #: A worker holds its lease.
    RUNNING = "running"
    #: Results exist and are on their way.
    DELIVERING = "delivering"
    #: Every result has arrived everywhere it had to.
    DONE = "done"
    #: Ended without a result, or without an arrival; the reason is in the row.
    FAILED = "failed"
    #: A route wanted it, and it could not be made; the reason is in the row.
    SKIPPED = "skipped"
    #: A person stopped it, or a newer revision took its place.
    CANCELLED = "cancelled"


class DeliveryState(StrEnum):
    """A delivery's state."""

    #: To be sent, now or at `next_attempt_at`.
    PENDING = "pending"
    #: The destination answered success.
    SENT = "sent"
    #: The destination committed to keep it (storage commitment).
    COMMITTED = "committed"
    #: Given up: refused for good, or the time for retries is over. A person can revive it.
    DEAD = "dead"


class CommitmentState(StrEnum):
    """The state of a storage commitment request of ours."""

    #: Asked, or about to be.
    REQUESTED = "requested"
    #: The destination has reported on it.
    REPORTED = "reported"
    #: No report came in time, or the request was refused; its deliveries are asked about anew.
    LOST = "lost"


class RequestState(StrEnum):
    """The state of a peer's storage commitment request."""

    #: To be answered.
    PENDING = "pending"
    #: The peer took our report.
    ANSWERED = "answered"
    #: Given up: the peer could not be told in time.
    DEAD = "dead"


#: Job states from which nothing more happens by itself.
JOB_ENDED = frozenset({JobState.DONE, JobState.FAILED, JobState.SKIPPED, JobState.CANCELLED})

#: The letters are those of the diagram in docs/architecture.md.
TRANSITIONS: dict[type[StrEnum], dict[tuple[StrEnum, StrEnum], str]] = {
    StudyState: {
        (StudyState.RECEIVING, StudyState.READY): "a: complete, with evidence",
        (StudyState.READY, StudyState.DONE): "b: every job ended",
        (StudyState.READY, StudyState.RECEIVING): "c: late images, new revision",
        (StudyState.DONE, StudyState.RECEIVING): "c: late images, new revision",
        (StudyState.DONE, StudyState.READY): "d: a job was revived",
        (StudyState.DONE, StudyState.PURGED): "t: past its retention time, or by a person's wish",
        (StudyState.PURGED, StudyState.RECEIVING): "c: late images, new revision",
    },
    JobState: {
        (JobState.QUEUED, JobState.RUNNING): "e: claimed, with a lease",
        (JobState.RUNNING, JobState.QUEUED): "f: lease lost or passing trouble",
        (JobState.RUNNING, JobState.DELIVERING): "g: results exist",
        (JobState.RUNNING, JobState.DONE): "h: results exist and nobody wants them sent",
        (JobState.RUNNING, JobState.FAILED): "i: no result, reason kept",
        (JobState.DELIVERING, JobState.DONE): "j: all arrived",
        (JobState.DELIVERING, JobState.FAILED): "k: a delivery is dead",
        (JobState.QUEUED, JobState.CANCELLED): "l: stopped or superseded",
        (JobState.RUNNING, JobState.CANCELLED): "l: stopped or superseded",
        (JobState.DELIVERING, JobState.CANCELLED): "l: stopped or superseded",
        (JobState.FAILED, JobState.CANCELLED): "z: given up by a person",
        (JobState.FAILED, JobState.QUEUED): "m: retried by a person",
        (JobState.CANCELLED, JobState.QUEUED): "m: retried by a person",
        (JobState.SKIPPED, JobState.QUEUED): "ab: what spoke against it is gone",
        (JobState.FAILED, JobState.DELIVERING): "n: a dead delivery was revived",
    },
    DeliveryState: {
        (DeliveryState.PENDING, DeliveryState.SENT): "o: success",
        (DeliveryState.SENT, DeliveryState.COMMITTED): "p: storage commitment",
        (DeliveryState.PENDING, DeliveryState.DEAD): "q: refused, or out of time",
        (DeliveryState.DEAD, DeliveryState.PENDING): "r: revived by a person",
        (DeliveryState.SENT, DeliveryState.PENDING): "s: not committed, sent again",
        (DeliveryState.SENT, DeliveryState.DEAD): "u: never committed",
    },
    CommitmentState: {
        (CommitmentState.REQUESTED, CommitmentState.REPORTED): "v: a report came",
        (CommitmentState.REQUESTED, CommitmentState.LOST): "w: none came in time",
        (CommitmentState.LOST, CommitmentState.REPORTED): "v: a report came late",
    },
    RequestState: {
        (RequestState.PENDING, RequestState.ANSWERED): "x: the peer took the report",
        (RequestState.PENDING, RequestState.DEAD): "y: it cannot be told, or out of time",
        (RequestState.ANSWERED, RequestState.PENDING): "aa: the peer asked again",
        (RequestState.DEAD, RequestState.PENDING): "aa: the peer asked again",
    },
}


def advance(
    session: Session,
    table: type[Study] | type[Job] | type[Delivery] | type[Commitment] | type[CommitmentRequest],
    row_id: int,
    from_state: StrEnum,
    to_state: StrEnum,
    *where: Any,
    **values: Any,
) -> bool:
    """Move one row from one state to another by compare-and-swap, setting `values` with it.

    `where` adds conditions. Returns False where somebody else moved the row first (or a condition
    does not hold): nothing was changed then. Raises IllegalTransition for a move that is not in the
    table, whatever the row says.
    """
    if (from_state, to_state) not in TRANSITIONS[type(from_state)]:
        raise IllegalTransition(f"{table.__name__}: {from_state} -> {to_state}")
    statement = (
        update(table)
        .where(table.id == row_id, table.state == from_state.value, *where)
        .values(state=to_state.value, **values)
        .execution_options(synchronize_session=False)
    )
    result = session.execute(statement)
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def count(
    session: Session, table: type[Study] | type[Job] | type[Delivery] | type[CommitmentRequest]
) -> dict[str, int]:
    """Rows per state; states without rows are left out."""
    kinds: dict[Any, type[StrEnum]] = {
        Study: StudyState,
        Job: JobState,
        Delivery: DeliveryState,
        CommitmentRequest: RequestState,
    }
    states = kinds[table]
    # Each state by its range of the index: a GROUP BY compares the state of every row.
    counts = (
        select(func.count()).select_from(table).where(table.state == state.value).scalar_subquery()
        for state in states
    )
    found = zip(states, session.execute(select(*counts)).one(), strict=True)
    return {state.value: rows for state, rows in found if rows}
