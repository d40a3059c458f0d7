"""Storage commitment, asked for: one association, one N-ACTION, and a short wait for the report on it."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian
from pynetdicom import evt

from dicom_node import commitment, errors
from dicom_node.commitment import CommitmentAsk, CommitmentReport, FailureReason
from dicom_node.senders import Destination, Verdict, contexts, statuses
from dicom_node.senders.association import open_association
from dicom_node.statuses import NormalizedStatus

logger = logging.getLogger(__name__)

#: Storage Commitment Push Model, in a syntax that every peer has.
CONTEXTS = contexts.ways((commitment.SOP_CLASS_UID, str(ExplicitVRLittleEndian)))

#: How often the wait for a report looks whether it still makes sense.
_LOOK_SECONDS = 0.05

#: What a peer's Failure Reason comes to (PS3.3 C.14.1.1): whether sending it again may heal it.
FAILURES: dict[int, tuple[Verdict, str]] = {
    FailureReason.PROCESSING_FAILURE: (Verdict.RETRY, "processing failure at the peer"),
    FailureReason.NO_SUCH_INSTANCE: (Verdict.RETRY, "the peer does not have this instance"),
    FailureReason.RESOURCE_LIMITATION: (Verdict.RETRY, "resource limitation at the peer"),
    FailureReason.DUPLICATE_TRANSACTION: (Verdict.RETRY, "the peer has used this Transaction UID before"),
    FailureReason.CLASS_NOT_SUPPORTED: (
        Verdict.REFUSED,
        "the peer does not commit to objects of this SOP class; enable it there",
    ),
    FailureReason.CLASS_INSTANCE_CONFLICT: (
        Verdict.REFUSED,
        "the peer has another object under this SOP Instance UID",
    ),
}

#: Answers to the request itself that another try will not change (PS3.7 10.1.4.1.10).
REFUSALS: dict[int, str] = {
    0x0112: "no such SOP instance",
    0x0117: "invalid SOP instance",
    0x0118: "no such SOP class",
    0x0119: "class and instance conflict",
    0x0122: "SOP class not supported",
    0x0123: "no such action",
    0x0124: "not authorised",
    0x0211: "unrecognised operation",
}
#: What helps against a refusal for good.
_REMEDY = "enable storage commitment for us there, or take `commitment: true` from this peer"


def failure(reason: int) -> tuple[Verdict, str]:
    """What a Failure Reason comes to, in words; a reason that the standard does not know may pass."""
    verdict, words = FAILURES.get(reason, (Verdict.RETRY, "a reason that the standard does not define"))
    return verdict, f"0x{reason:04X} {words}"


def ask(
    destination: Destination,
    request: CommitmentAsk,
    *,
    on_report: Callable[[CommitmentReport], None],
    wait_seconds: float,
    is_over: Callable[[], bool] = lambda: False,
) -> None:
    """Ask a peer to commit to instances; returns once it took the request (PS3.4 J.3.2).

    A report that comes on the same association within `wait_seconds` is given to `on_report`, in another
    thread, and answered 0x0000 once that has returned; later, or on another association, it comes to the
    listener. The wait ends before where `is_over` says so. Raises CommitmentRefused where the peer will
    not do it, and other SendErrors where it may do so later.
    """
    conversation = _Conversation(request, on_report)
    try:
        with open_association(destination, CONTEXTS, conversation.handlers) as assoc:
            conversation.attend(assoc)
            _request(destination, assoc, request)
            conversation.wait(assoc, wait_seconds, is_over)
    except errors.ContextRefused as error:
        raise errors.CommitmentRefused(
            f"{destination.name} takes no storage commitment requests; {_REMEDY}"
        ) from error


def check(destination: Destination) -> str:
    """Why a peer could not be asked now; "" where it could. Asks for nothing."""
    try:
        with open_association(destination, CONTEXTS):
            return ""
    except errors.ContextRefused:
        return f"takes no storage commitment requests; {_REMEDY}"
    except errors.SendError as error:
        return str(error)


def _request(destination: Destination, assoc: Any, request: CommitmentAsk) -> None:
    """The N-ACTION and its answer. Raises SendError for every answer but success."""
    began = time.monotonic()
    try:
        answer, _ = assoc.send_n_action(
            commitment.encode_ask(request),
            commitment.ACTION_TYPE,
            commitment.SOP_CLASS_UID,
            commitment.SOP_INSTANCE_UID,
        )
    except (RuntimeError, ValueError) as error:  # pynetdicom: the association ended, or has no such context
        raise errors.SendError(f"{destination.name} ended the association before it was asked") from error
    status = answer.get("Status")
    if status is None:
        if time.monotonic() - began >= 0.95 * destination.timeout_seconds:
            waited = f"{destination.timeout_seconds:.0f} s"
            raise errors.SendError(f"{destination.name} did not answer the request within {waited}")
        raise errors.SendError(f"{destination.name} ended the association instead of answering")
    if status == 0x0000 or status & 0xF000 == 0xB000:
        return
    said = statuses.printable(answer.get("ErrorComment"))
    comment = f" ({said})" if said else ""
    if status in REFUSALS:
        words = f"0x{status:04X} {REFUSALS[status]}{comment}"
        raise errors.CommitmentRefused(f"{destination.name} refuses the request: {words}; {_REMEDY}")
    raise errors.SendError(f"{destination.name} does not take the request now: 0x{status:04X}{comment}")


class _Conversation:
    """What the peer says of its own accord on the association that we opened."""

    def __init__(self, request: CommitmentAsk, on_report: Callable[[CommitmentReport], None]) -> None:
        self._request = request
        self._on_report = on_report
        self._reported = threading.Event()
        self._lock = threading.Lock()
        self.handlers = [(evt.EVT_N_EVENT_REPORT, self._receive)]

    def attend(self, assoc: Any) -> None:
        """Have pynetdicom answer the peer's reports, each in a thread of its own, without getting stuck.

        It gives N-EVENT-REPORT requests to `_serve_request` and says there that its reactor runs again,
        which is not so where we wait for it to pause: we would wait for ever. `_lock` lets our release
        wait until the answer to a report has gone out.
        """
        serve = assoc._serve_request

        def serve_one(message: Any, context_id: int) -> None:
            with self._lock:
                serve(message, context_id)
            if not assoc._reactor_checkpoint.is_set():
                assoc._is_paused = True

        assoc._serve_request = serve_one

    def wait(self, assoc: Any, seconds: float, is_over: Callable[[], bool]) -> None:
        """Until our report was answered, the peer has gone, or nobody waits any more."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and assoc.is_established and not is_over():
            if self._reported.wait(_LOOK_SECONDS):
                break
        with self._lock:  # the answer goes out before we release
            pass

    def _receive(self, event: Any) -> tuple[int, Dataset | None]:
        """EVT_N_EVENT_REPORT: a status, once whoever is told has written it down (PS3.7 10.1.1.1.8)."""
        try:
            data = event.request.EventInformation
            syntax = str(event.context.transfer_syntax)
            ds = commitment.read(data.getvalue() if data else b"", syntax)
            report = commitment.decode_report(event.event_type, ds)
            self._on_report(report)
        except (errors.DataSetError, errors.CommitmentError):
            return NormalizedStatus.INVALID_ARGUMENT, None
        except Exception:
            # Whatever it was, the peer learns that its report was not written down, and may repeat it.
            logger.exception("a storage commitment report could not be recorded; it is asked for again")
            return NormalizedStatus.RESOURCE_LIMITATION, None
        if report.transaction_uid == self._request.transaction_uid:
            self._reported.set()
        return NormalizedStatus.SUCCESS, None
