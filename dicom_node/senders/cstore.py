"""Results leave by C-STORE: one association for many instances, one verdict for each."""

from __future__ import annotations

import struct
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID

from dicom_node import errors
from dicom_node.senders import Destination, Outcome, Verdict, contexts, statuses
from dicom_node.senders.association import open_association
from dicom_node.senders.files import FileToSend, identify_all

OnOutcome = Callable[[Outcome], None]

#: The slowest line that a transfer may be sent over: the wait for an answer starts when the file is
#: queued, so a large file gets this much more time than the destination's own patience.
SLOWEST_BYTES_PER_SECOND = 256 * 1024


class CStoreSender:
    """A Storage SCU (PS3.4 Annex B) for one destination; holds nothing open between calls."""

    def __init__(self, destination: Destination) -> None:
        self.destination = destination

    def send(self, paths: Sequence[Path], on_outcome: OnOutcome) -> None:
        """Send every file, see `Sender.send`.

        One association carries all, unless they need more than 128 presentation contexts. A peer that
        aborts on one instance gets the others on a new association. Where SendError is raised, only
        files that could not be read have had their outcome.
        """
        reached = False
        for batch in contexts.batches(identify_all(paths, on_outcome)):
            delivery = _Delivery(self.destination, batch, on_outcome)
            try:
                delivery.run()
            except errors.SendError as error:
                if not (reached or delivery.reached):
                    raise
                delivery.give_up(str(error))
            reached = True


class _Delivery:
    """One batch on its way: what is still to be sent, and to whom each answer is told."""

    def __init__(self, destination: Destination, batch: contexts.Batch, on_outcome: OnOutcome) -> None:
        self.destination = destination
        self.batch = batch
        self.pending = deque(batch.files)
        self.on_outcome = on_outcome
        #: True once the peer has accepted an association.
        self.reached = False

    def run(self) -> None:
        """Associate again while that brings something; a peer lost twice without an answer is left."""
        fruitless = 0
        while self.pending and fruitless < 2:
            before = len(self.pending)
            try:
                with open_association(self.destination, self.batch.contexts) as assoc:
                    self.reached = True
                    lost = self._store_all(assoc)
                    if lost:
                        # pynetdicom may not have noticed yet, and would wait for an answer to A-RELEASE.
                        assoc.abort()
            except errors.ContextRefused:
                self.reached = True
                self._refuse_all()
                return
            if lost == "timeout":
                break
            # The instance in hand at the loss has had its outcome; more than that one is progress.
            fruitless = 0 if before - len(self.pending) > 1 else fruitless + 1
        self.give_up("not sent: the association was lost before its turn")

    def give_up(self, comment: str) -> None:
        """Whatever is still pending is to be tried again."""
        while self.pending:
            self._tell(self.pending.popleft(), Verdict.RETRY, comment)

    def _refuse_all(self) -> None:
        while self.pending:
            self._refuse(self.pending.popleft())

    def _refuse(self, file: FileToSend) -> None:
        name = contexts.class_name(file.sop_class_uid)
        comment = f"peer accepts no presentation context for {name}; enable it there"
        if (syntax := UID(file.transfer_syntax_uid)).is_compressed:
            comment += f" (in {syntax.name})"
        self._tell(file, Verdict.REFUSED, comment)

    def _store_all(self, assoc: Any) -> str:
        """Send what is pending; "" at the end, else how the association was lost: "aborted" or "timeout"."""
        accepted = contexts.accepted(assoc.accepted_contexts)
        for number in range(len(self.pending)):
            if not assoc.is_established:
                return "aborted"
            file = self.pending.popleft()
            context = contexts.choose(file, accepted)
            if context is None:
                self._refuse(file)
            elif lost := self._store(assoc, file, context, message_id=number % 0xFFFF + 1):
                return lost
        return ""

    def _store(self, assoc: Any, file: FileToSend, context: contexts.Context, message_id: int) -> str:
        """One C-STORE and its outcome; returns how the association was lost, or ""."""
        try:
            data_set = _encoded(file, context)
        except errors.DataSetError as error:
            self._tell(file, Verdict.REFUSED, str(error))
            return ""
        patience = self.destination.timeout_seconds + file.size / SLOWEST_BYTES_PER_SECOND
        assoc.dimse_timeout = patience
        began = time.monotonic()
        try:
            answer = assoc.send_c_store(data_set, msg_id=message_id)
        except RuntimeError:  # pynetdicom: the association ended since the last answer
            self._tell(file, Verdict.RETRY, "not sent: the peer ended the association")
            return "aborted"
        except (ValueError, OSError) as error:
            # The request may be half out: nothing more can be said on this association.
            self._tell(file, Verdict.RETRY, f"the file cannot be sent: {type(error).__name__}")
            return "aborted"
        if "Status" in answer:
            self.on_outcome(statuses.outcome(file, int(answer.Status), answer.get("ErrorComment")))
            return ""
        if time.monotonic() - began >= patience * 0.95:
            self._tell(file, Verdict.RETRY, f"no answer within {patience:.0f} s")
            return "timeout"
        self._tell(file, Verdict.RETRY, "the peer ended the association instead of answering")
        return "aborted"

    def _tell(self, file: FileToSend, verdict: Verdict, comment: str) -> None:
        """An outcome for which the peer gave no status."""
        uid = file.sop_instance_uid
        self.on_outcome(
            Outcome(sop_instance_uid=uid, verdict=verdict, status=None, comment=comment, path=file.path)
        )


def _encoded(file: FileToSend, context: contexts.Context) -> Any:
    """The path where the file's bytes go as they are, a data set where they must be re-encoded."""
    _, syntax = context
    if syntax == file.transfer_syntax_uid:
        return file.path
    try:
        ds = dcmread(file.path)
        ds.walk(lambda parent, element: None)  # decode every element now: a broken one is our file's fault
    except (InvalidDicomError, OSError, EOFError, ValueError, KeyError, TypeError, AttributeError,
            NotImplementedError, struct.error) as error:  # fmt: skip
        raise errors.DataSetError(f"the data set cannot be re-encoded as {UID(syntax).name}") from error
    return ds
