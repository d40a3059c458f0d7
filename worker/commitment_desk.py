"""The listener's desk for storage commitment: records before it is acknowledged, answers while the asker stays."""

from __future__ import annotations

import logging
import queue
import threading
from datetime import UTC, datetime, timedelta
from types import TracebackType

from db import commitment_requests, events
from db.errors import DifferentRequest
from db.models import CommitmentRequest
from dicom_node.commitment_events import (
    CommitmentAsked,
    CommitmentReported,
    CommitmentTurnedAway,
    OpenLine,
)
from dicom_node.errors import CommitmentError, SendError
from worker import commitment_answers, commitment_ledger
from worker.commitment_answers import Clerk, Draft
from worker.station import Station

logger = logging.getLogger(__name__)

#: How often an open association is looked at, and what was not found yet is looked for.
_LOOK_SECONDS = 0.25
_LOOK_AGAIN = timedelta(seconds=1)
#: For the threads to let go when the listener stops; the associations have ended by then.
_STOP_SECONDS = 5.0
#: A peer that goes on with other things for so long is told on an association of our own, if it has one.
PATIENCE = timedelta(seconds=30)


class CommitmentDesk:
    """Implements the listener's commitment events. Use as a context manager: its end lets all go.

    What it cannot answer on the asker's association it leaves to the senders, by way of the sweep.
    """

    def __init__(self, station: Station) -> None:
        self._station = station
        self._clerk = commitment_answers.clerk(station)
        self._lock = threading.Lock()
        #: By association: one thread for each that asked.
        self._talks: dict[str, _Talk] = {}
        self._threads: list[threading.Thread] = []
        self._stopping = threading.Event()

    def asked(self, asked: CommitmentAsked, line: OpenLine) -> None:
        """A peer asks: a row before it is acknowledged, held by this process while its association lasts."""
        request_id = self._record(asked)
        key = asked.caller.association_id
        with self._lock:
            talk = self._talks.get(key)
            if talk is None:
                talk = self._talks[key] = _Talk(self._clerk, line, self._stopping)
                self._threads = [thread for thread in self._threads if thread.is_alive()]
                self._threads.append(threading.Thread(target=self._run, args=(key, talk), daemon=True))
                self._threads[-1].start()
            talk.waiting.put(request_id)

    def _record(self, asked: CommitmentAsked) -> int:
        values = {
            "transaction_uid": asked.ask.transaction_uid,
            "association_id": asked.caller.association_id,
            "peer": asked.caller.peer[:64],
            "calling_ae_title": asked.caller.calling_ae_title[:16],
            "address": asked.caller.address[:64],
            "received_at": asked.at,
            "lease_owner": self._clerk.owner,
            "lease_until": asked.at + commitment_answers.LEASE,
        }
        named = [(each.sop_class_uid, each.sop_instance_uid) for each in asked.ask.references]
        try:
            with self._station.database.write() as session:
                request_id = commitment_requests.record(session, values, named)
        except DifferentRequest as error:
            raise CommitmentError(str(error)) from error
        logger.info(
            "commitment request %s: %s asks about %s images",
            request_id,
            values["peer"],
            len(named),
        )
        return request_id

    def reported(self, reported: CommitmentReported) -> None:
        """A destination that we asked reports on an association of its own."""
        commitment_ledger.report(
            self._station.post, reported.report, calling_ae_title=reported.caller.calling_ae_title
        )

    def turned_away(self, refused: CommitmentTurnedAway) -> None:
        """A request or report was refused."""
        caller = refused.caller
        message = (
            f"a storage commitment message of {caller.peer or caller.calling_ae_title} was refused "
            f"with 0x{refused.status:04X}: {refused.reason}"
        )
        with self._station.database.write() as session:
            events.note_once(session, "commitment-refused", message)

    def _run(self, key: str, talk: _Talk) -> None:
        """Answer what one association asks, until it ends."""
        while True:
            talk.listen()
            with self._lock:
                # Nothing is put in between: who asks holds the lock.
                if talk.waiting.empty():
                    del self._talks[key]
                    return

    def __enter__(self) -> CommitmentDesk:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(_STOP_SECONDS)


class _Talk:
    """What one association asked, answered in its order while it stands."""

    def __init__(self, clerk: Clerk, line: OpenLine, stopping: threading.Event) -> None:
        self._clerk = clerk
        self._line = line
        self._stopping = stopping
        #: Ids of requests.
        self.waiting: queue.SimpleQueue[int] = queue.SimpleQueue()

    @property
    def _goes_on(self) -> bool:
        return self._line.is_open and not self._stopping.is_set()

    def listen(self) -> None:
        """Answer until the association has ended and nothing is left."""
        while True:
            try:
                request_id = self.waiting.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if self._goes_on:
                    continue
                return
            try:
                self._answer(request_id)
            except Exception:
                # Its lease ends, and then a sender answers it.
                logger.exception("commitment request %s is left to the senders", request_id)

    def _answer(self, request_id: int) -> None:
        """Tell the peer here, or leave it to whoever opens an association to it."""
        with self._clerk.database.read() as session:
            request = session.get_one(CommitmentRequest, request_id)
        if request.lease_owner != self._clerk.owner:
            return
        draft = Draft(self._clerk, request_id)
        if not self._wait_for_the_moment(request, draft):
            self._leave(request_id)
            return
        try:
            status = self._line.send(draft.report(request.transaction_uid))
        except SendError as error:
            self._leave(request_id, str(error))
        else:
            commitment_answers.settle(self._clerk, request, draft, status)

    def _wait_for_the_moment(self, request: CommitmentRequest, draft: Draft) -> bool:
        """Until everything is found, or ought to be, and the peer waits; False where that is not to come."""
        destination = self._clerk.destinations.get(request.peer)
        elsewhere = destination is not None and commitment_answers.is_reachable(destination)
        renewed = datetime.now(UTC)
        looked = datetime.min.replace(tzinfo=UTC)
        while self._goes_on:
            now = datetime.now(UTC)
            if not draft.is_whole and now - looked >= _LOOK_AGAIN:
                draft.look()
                looked = now
            waited = now - request.received_at
            if self._line.is_quiet and (draft.is_whole or waited > commitment_answers.GRACE):
                return True
            if elsewhere and waited > PATIENCE:
                return False
            if now - renewed > commitment_answers.LEASE / 3:
                renewed = now
                self._renew(request.id, now)
            self._stopping.wait(_LOOK_SECONDS)
        return False

    def _renew(self, request_id: int, now: datetime) -> None:
        with self._clerk.database.write() as session:
            until = now + commitment_answers.LEASE
            commitment_requests.renew(session, request_id, owner=self._clerk.owner, until=until)

    def _leave(self, request_id: int, comment: str = "") -> None:
        """Free at once, for a sender."""
        with self._clerk.database.write() as session:
            commitment_requests.let_go(session, request_id, owner=self._clerk.owner, comment=comment)
