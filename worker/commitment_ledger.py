"""What destinations promise to keep: asked for, reported, lost; each move in one commit with its reason."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydicom.uid import generate_uid
from sqlalchemy.orm import Session

from db import commitments, deliveries, events, jobs, studies
from db.models import Commitment, Delivery
from db.states import DeliveryState
from dicom_node.commitment import CommitmentAsk, CommitmentReport, Reference
from dicom_node.errors import CommitmentError
from dicom_node.senders import Destination, Verdict, commitment, retry
from worker import hold, receipts
from worker.bench import Post

logger = logging.getLogger(__name__)

#: How long we stay on the association that asked: some peers report there at once, most on one of their own.
STAY_SECONDS = 2.0
#: How long a report may take. One that comes later still counts; until then it is asked for anew.
REPORT_WAIT = timedelta(minutes=10)

#: Why a request is over whose asker died: nobody knows whether it left.
_ORPHANED = "the process that asked ended before it had an answer"
_NOT_ASKED = "the destination is not asked to commit any more"
_OVERDUE = f"no report within {REPORT_WAIT.total_seconds() / 60:.0f} minutes"


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A storage commitment request whose row exists."""

    id: int
    destination: Destination
    ask: CommitmentAsk
    delivery_ids: tuple[int, ...]


def begin(post: Post, delivery_id: int) -> Request | None:
    """The request for all that a destination has of a job and has yet to commit to; None where nothing is.

    Its Transaction UID is stored before it leaves: of a report that comes, we know what it is about.
    """
    now = datetime.now(UTC)
    with post.database.read() as session:
        row = deliveries.get(session, delivery_id)
    if row.state != DeliveryState.SENT or not row.awaits_commitment:
        return None
    destination = post.destinations.get(row.destination)
    with post.database.write() as session:
        if destination is None or not destination.commitment:
            _waive(session, delivery_id, now)
            return None
        begun = commitments.begin(
            session,
            delivery_id,
            transaction_uid=str(generate_uid(prefix=None)),
            owner=post.owner,
            now=now,
            lease=hold.LEASE,
        )
    if begun is None:
        return None
    commitment_row, asked = begun
    references = tuple(
        Reference(sop_class_uid=each.result.sop_class_uid, sop_instance_uid=each.result.sop_instance_uid)
        for each in asked
    )
    return Request(
        id=commitment_row.id,
        destination=destination,
        ask=CommitmentAsk(transaction_uid=commitment_row.transaction_uid, references=references),
        delivery_ids=tuple(each.id for each in asked),
    )


def _waive(session: Session, delivery_id: int, now: datetime) -> None:
    """Nobody asks this destination any more: what it took has arrived."""
    rows = commitments.waive(session, delivery_id)
    _settle_jobs(session, rows, now)


def is_over(post: Post, request: Request) -> bool:
    """Whether the report has come by another way."""
    with post.database.read() as session:
        return not commitments.is_open(session, request.id)


def asked(post: Post, request: Request) -> None:
    """The destination took the request; its report may come at any time."""
    with post.database.write() as session:
        commitments.let_go(session, request.id)
    logger.info("commitment %s: %s was asked to keep %s objects", *_named(request))


def lost(post: Post, request_id: int, comment: str, *, for_good: bool = False) -> None:
    """REQUESTED -> LOST; its deliveries are asked about again later, or DEAD where that brings nothing."""
    now = datetime.now(UTC)
    with post.database.write() as session:
        rows = commitments.lose(session, request_id, comment=comment)
        for row in rows:
            _ask_again(session, row, comment, now, for_good=for_good)
        _settle_jobs(session, rows, now)
    if rows:
        # Not the comment: it may hold a peer's own words, and those may name the patient.
        logger.warning("commitment %s: %s has not promised it", request_id, rows[0].destination)


def look_after(post: Post, now: datetime) -> None:
    """Ask anew for what no report came for, and await none of who is not asked any more."""
    committing = [name for name, destination in post.destinations.items() if destination.commitment]
    with post.database.read() as session:
        unasked = deliveries.unasked(session, committing)
        orphaned = commitments.orphans(session)
        overdue = commitments.overdue(session, asked_before=now - REPORT_WAIT)
    for delivery_id, request_id in unasked:
        with post.database.write() as session:
            # The request before its deliveries, as everywhere; a late report of it still counts.
            if request_id is not None:
                commitments.lose(session, request_id, comment=_NOT_ASKED)
            _waive(session, delivery_id, now)
    for request_id in orphaned:
        lost(post, request_id, _ORPHANED)
    for request_id in overdue:
        lost(post, request_id, _OVERDUE)


def report(post: Post, said: CommitmentReport, *, calling_ae_title: str) -> None:
    """Write what a destination reports: SENT -> COMMITTED, or to be sent again, or DEAD.

    It may come late, twice, and name objects that were never sent: that changes nothing else. Raises
    CommitmentError where nobody waits for it, or who reports is not who was asked.
    """
    now = datetime.now(UTC)
    with post.database.write() as session:
        known = commitments.by_transaction(session, said.transaction_uid)
        request = _asked(post, known, calling_ae_title)
        failed = {each.reference.sop_instance_uid: each.reason for each in said.failed}
        named = {each.sop_instance_uid for each in said.committed} | failed.keys()
        comment = f"{len(said.committed)} committed, {len(failed)} failed"
        rows = commitments.report(session, request, named, at=now, comment=comment)
        if rows is None:
            logger.info("commitment %s: its report came again", request.id)
            return
        strangers = commitments.unknown_among(session, request.destination, named)
        if strangers:
            message = f"{request.destination} reported on {strangers} objects it was never sent; ignored"
            events.note_once(session, "commitment", message)
        for row in rows:
            _decide(session, request, row, {each.sop_instance_uid for each in said.committed}, failed, now)
        _settle_jobs(session, rows, now)
    logger.info("commitment %s of %s: %s", request.id, request.destination, comment)


def _asked(post: Post, request: Commitment | None, calling_ae_title: str) -> Commitment:
    """The request that a report is about. Raises CommitmentError."""
    if request is None:
        raise CommitmentError(f"{calling_ae_title} reports on a storage commitment that nobody asked for")
    destination = post.destinations.get(request.destination)
    if destination is None or destination.ae_title != calling_ae_title.strip():
        raise CommitmentError(
            f"{calling_ae_title} reports on a storage commitment that {request.destination} was asked for"
        )
    return request


def report_here(post: Post, request: Request, said: CommitmentReport) -> None:
    """A report on the association that asked; that it is refused is an event, as it is at the listener."""
    try:
        report(post, said, calling_ae_title=request.destination.ae_title)
    except CommitmentError as error:
        with post.database.write() as session:
            events.note_once(session, "commitment", f"{error}; ignored")
        raise


def _decide(
    session: Session,
    request: Commitment,
    row: Delivery,
    committed: Iterable[str],
    failed: dict[str, int],
    now: datetime,
) -> None:
    """What the report comes to for one delivery; one that it does not mention is asked about again."""
    uid = row.result.sop_instance_uid
    if uid in failed and row.commitment_id == request.id:
        _send_again(session, row, failed[uid], now)
    elif uid in committed:
        commitments.committed(session, row.id, now)
    elif row.commitment_id == request.id:
        _ask_again(session, row, "the report did not mention it", now)


def _send_again(session: Session, row: Delivery, reason: int, now: datetime) -> None:
    """The destination does not keep it: once more from the start, where that may heal it."""
    verdict, words = commitment.failure(reason)
    again = retry.next_attempt(row.first_attempt_at or now, row.attempts, now)
    if verdict is Verdict.REFUSED or again is None:
        _give_up(session, row, words)
        return
    comment = f"stored, but not committed: {words}; sent again"
    if commitments.send_again(session, row.id, again, status=reason, comment=comment):
        at = f"{again:%H:%M:%S} UTC"
        logger.warning("delivery %s to %s: %s at %s", row.id, row.destination, comment, at)
        _note(session, "not-committed", row, comment)


def _ask_again(
    session: Session, row: Delivery, comment: str, now: datetime, *, for_good: bool = False
) -> None:
    """Later, unless a person must look after it: refused for good, or asked for days in vain."""
    again = retry.next_attempt(row.sent_at or now, max(row.commitment_attempts, 1), now)
    if for_good or again is None:
        _give_up(session, row, comment)
    else:
        commitments.ask_again(session, row.id, again)


def _give_up(session: Session, row: Delivery, reason: str) -> None:
    """SENT -> DEAD."""
    status = "" if row.status is None else f" (0x{row.status:04X})"
    comment = f"stored{status}, but never committed: {reason}"
    if commitments.give_up(session, row.id, comment=comment):
        logger.error("delivery %s to %s is given up: never committed", row.id, row.destination)
        receipts.note_dead(session, row, comment)


def _note(session: Session, kind: str, row: Delivery, comment: str) -> None:
    """An event of the study whose result it is."""
    message = f"{row.result.kind} to {row.destination}: {comment}"
    events.note(session, kind, message, job_id=row.result.job_id, study_id=row.result.job.study_id)


def _settle_jobs(session: Session, rows: Sequence[Delivery], now: datetime) -> None:
    """End the jobs whose last delivery ended with these; in one order everywhere."""
    for job_id, study_id in sorted({(row.result.job_id, row.result.job.study_id) for row in rows}):
        if jobs.settle_delivering(session, job_id, now):
            studies.finish_if_ended(session, study_id, now)


def _named(request: Request) -> tuple[int, str, int]:
    return request.id, request.destination.name, len(request.ask.references)
