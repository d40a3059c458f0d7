"""What peers ask us to commit to is answered from evidence: rows, and files that are really there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from db import commitment_requests, events
from db.base import Database
from db.models import CommitmentReference, CommitmentRequest, Instance
from dicom_node import stored_files
from dicom_node.commitment import CommitmentReport, Failure, FailureReason, Reference
from dicom_node.errors import SendError
from dicom_node.senders import Destination, commitment_report, retry
from worker.station import Station

logger = logging.getLogger(__name__)

#: How long a request may wait for the rows of what was stored just before it: listeners write them in
#: batches, each its own, and a file without a row would be denied though it is there.
GRACE = timedelta(seconds=10)
#: How long one attempt to answer may be silent before somebody else may try.
LEASE = timedelta(minutes=3)

#: Answers to our report that may be another one later (PS3.7 10.1.1.1.8).
_PASSING = frozenset({0x0110, 0x0213})
#: Success, and what is stored with a remark (PS3.7 Annex C).
_TAKEN = frozenset({0x0000, 0x0001, 0x0107, 0x0116})
#: More studies than this are not told one by one of a request that names images of them.
_MOST_STUDIES = 100
_WORDS = {
    FailureReason.NO_SUCH_INSTANCE: "are not here",
    FailureReason.CLASS_INSTANCE_CONFLICT: "are here with another SOP class",
    FailureReason.PROCESSING_FAILURE: "are no longer on disk as they were received",
}


@dataclass(frozen=True, kw_only=True)
class Clerk:
    """What answering needs at hand."""

    database: Database
    spool_root: Path
    destinations: Mapping[str, Destination]
    #: Tells a peer on an association that we open: `dicom_node.senders.commitment_report.report`.
    report: Callable[[Destination, CommitmentReport], int]
    #: Who holds the leases: this process.
    owner: str


def clerk(station: Station) -> Clerk:
    """A process' clerk."""
    return Clerk(
        database=station.database,
        spool_root=station.settings.spool,
        destinations=station.post.destinations,
        report=commitment_report.report,
        owner=station.process_id,
    )


class Draft:
    """What can be said of a request by now; each look may find more of what it names."""

    def __init__(self, clerk: Clerk, request_id: int) -> None:
        self._clerk = clerk
        with clerk.database.read() as session:
            self._references = commitment_requests.references(session, request_id)
        self._failures: dict[int, FailureReason] = {
            row.id: FailureReason.NO_SUCH_INSTANCE for row in self._references
        }
        #: Ids of the studies of what was found.
        self.studies: set[int] = set()

    @property
    def is_whole(self) -> bool:
        """Whether all that is named is held."""
        return not self._failures

    @property
    def failures(self) -> Mapping[int, FailureReason]:
        """Why a reference, by id, is not committed to."""
        return self._failures

    def look(self) -> None:
        """Look for what was not found before."""
        missing = [row for row in self._references if row.id in self._failures]
        with self._clerk.database.read() as session:
            files = commitment_requests.files_of(session, [row.sop_instance_uid for row in missing])
        for row in missing:
            found = files.get(row.sop_instance_uid, [])
            self.studies.update(study_id for _, study_id in found)
            reason = self._judge(row, [file for file, _ in found])
            if reason is None:
                del self._failures[row.id]
            else:
                self._failures[row.id] = reason

    def _judge(self, row: CommitmentReference, files: list[Instance]) -> FailureReason | None:
        """Why it is not committed to; None where it is: every file under its UID is as it was received.

        Of two that differ we keep both, and the peer does not say which is its own.
        """
        if not files:
            return FailureReason.NO_SUCH_INSTANCE
        of_class = [file for file in files if file.sop_class_uid == row.sop_class_uid]
        if not of_class:
            return FailureReason.CLASS_INSTANCE_CONFLICT
        root = self._clerk.spool_root
        sound = all(
            stored_files.is_as_received(root / file.path, size=file.size, sha256=file.sha256)
            for file in of_class
        )
        return None if sound else FailureReason.PROCESSING_FAILURE

    def report(self, transaction_uid: str) -> CommitmentReport:
        """The answer as it goes out."""
        committed = [row for row in self._references if row.id not in self._failures]
        failed = [row for row in self._references if row.id in self._failures]
        return CommitmentReport(
            transaction_uid=transaction_uid,
            committed=tuple(_reference(row) for row in committed),
            failed=tuple(Failure(reference=_reference(row), reason=self._failures[row.id]) for row in failed),
        )

    def sentence(self) -> str:
        """What is answered, for people."""
        reasons = list(self._failures.values())
        held = f"{len(self._references) - len(reasons)} of {len(self._references)} images are held"
        failed = [
            f"{reasons.count(reason)} {_WORDS[reason]} (0x{reason:04X})" for reason in sorted(set(reasons))
        ]
        return ", ".join([held, *failed])


def answer(clerk: Clerk, request_id: int) -> None:
    """Tell a peer, on an association that we open, what we hold of what it asked for."""
    now = datetime.now(UTC)
    with clerk.database.write() as session:
        request = commitment_requests.claim(session, request_id, owner=clerk.owner, now=now, lease=LEASE)
    if request is None:
        return
    destination = clerk.destinations.get(request.peer)
    if destination is None or not is_reachable(destination):
        _give_up(clerk, request, f"it left before it was told, and {_whom_to_tell(request)}")
        return
    draft = Draft(clerk, request_id)
    draft.look()
    settled_at = request.received_at + GRACE
    if not draft.is_whole and now < settled_at:
        with clerk.database.write() as session:
            commitment_requests.let_go(session, request_id, owner=clerk.owner, until=settled_at)
        return
    try:
        status = clerk.report(destination, draft.report(request.transaction_uid))
    except SendError as error:
        _try_again(clerk, request, str(error))
    else:
        settle(clerk, request, draft, status)


def is_reachable(destination: Destination) -> bool:
    """Whether an association can be opened to a peer: one that stands for any title has none to call."""
    return destination.ae_title not in ("", "*")


def _whom_to_tell(request: CommitmentRequest) -> str:
    if not request.peer:
        return "it is no known peer: nobody is there to be told"
    return f"peers.{request.peer}.ae_title is not a title to call: nobody is there to be told"


def settle(clerk: Clerk, request: CommitmentRequest, draft: Draft, status: int) -> None:
    """Write down what the peer said to our report."""
    if status in _TAKEN or status & 0xF000 == 0xB000:
        _answered(clerk, request, draft)
    elif status in _PASSING:
        _try_again(clerk, request, f"it does not take our report now: 0x{status:04X}")
    else:
        _give_up(clerk, request, f"it refused our report: 0x{status:04X}")


def _answered(clerk: Clerk, request: CommitmentRequest, draft: Draft) -> None:
    sentence = draft.sentence()
    asked_at = f"{request.received_at:%Y-%m-%d %H:%M:%S} UTC"
    message = f"at {asked_at} {_name(request)} asked for storage commitment; it was told: {sentence}"
    with clerk.database.write() as session:
        written = commitment_requests.answered(
            session,
            request.id,
            owner=clerk.owner,
            at=datetime.now(UTC),
            failures=draft.failures,
            comment=sentence,
        )
        if written:
            _note(session, request, draft, message)
    if written:
        logger.info("commitment request %s of %s: %s", request.id, _name(request), sentence)
    else:
        logger.warning("commitment request %s was answered, and is not ours any more", request.id)


def _note(session: Session, request: CommitmentRequest, draft: Draft, message: str) -> None:
    """An event of each study that the request is about."""
    for study_id in sorted(draft.studies)[:_MOST_STUDIES]:
        events.note(session, "commitment-answered", message, study_id=study_id)
    if not draft.studies:
        events.note(session, "commitment-answered", message, association_id=request.association_id)


def _try_again(clerk: Clerk, request: CommitmentRequest, comment: str) -> None:
    """Later; or never, where that was tried for days."""
    now = datetime.now(UTC)
    again = retry.next_attempt(request.received_at, max(request.attempts, 1), now)
    if again is None:
        _give_up(clerk, request, comment)
        return
    with clerk.database.write() as session:
        commitment_requests.let_go(session, request.id, owner=clerk.owner, until=again, comment=comment)
    at = f"{again:%H:%M:%S} UTC"
    logger.warning("commitment request %s of %s is answered again at %s", request.id, _name(request), at)


def _give_up(clerk: Clerk, request: CommitmentRequest, comment: str) -> None:
    """PENDING -> DEAD: the peer must ask again."""
    message = f"{_name(request)} asked for storage commitment and could not be told: {comment}"
    with clerk.database.write() as session:
        if commitment_requests.dead(session, request.id, owner=clerk.owner, comment=comment):
            events.note(session, "commitment-unanswered", message, association_id=request.association_id)
    logger.error("commitment request %s of %s is given up", request.id, _name(request))


def _name(request: CommitmentRequest) -> str:
    return request.peer or request.calling_ae_title


def _reference(row: CommitmentReference) -> Reference:
    return Reference(sop_class_uid=row.sop_class_uid, sop_instance_uid=row.sop_instance_uid)
