"""Storage commitment on associations that others open: requests to us, reports to us, our reports (PS3.4 J)."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import evt
from pynetdicom.dimse_messages import N_EVENT_REPORT_RQ
from pynetdicom.dimse_primitives import N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.presentation import PresentationContext, build_context

from dicom_node import commitment
from dicom_node.commitment import CommitmentReport
from dicom_node.commitment_events import (
    Caller,
    CommitmentAsked,
    CommitmentEvents,
    CommitmentReported,
    CommitmentTurnedAway,
)
from dicom_node.errors import CommitmentError, DataSetError, SendError
from dicom_node.statuses import NormalizedStatus
from dicom_node.storage_server import StorageAssociation

LOGGER = logging.getLogger(__name__)

#: A peer that has been silent for so long waits for us; one that goes on with other requests is not disturbed.
_QUIET_SECONDS = 0.5
#: Between looks whether an association that owes us an answer still stands.
_LOOK_SECONDS = 0.1
#: What a command set may add to the longest data set.
_COMMAND_BYTES = 1 << 14

_Answer = tuple[int, None]


def context() -> PresentationContext:
    """What is accepted, in both roles: others ask us, and report to us (PS3.7 D.3.3.4, PS3.4 J.2.1)."""
    accepted = build_context(commitment.SOP_CLASS_UID, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])
    accepted.scu_role = accepted.scp_role = True
    return accepted


def allow(association: StorageAssociation) -> None:
    """Let messages be as long as a request may be, on an association that accepted the context."""
    if any(each.abstract_syntax == commitment.SOP_CLASS_UID for each in association.accepted_contexts):
        association.dul.longest_message = commitment.LONGEST_DATA_SET + _COMMAND_BYTES


class CommitmentScp:
    """Answers N-ACTION and N-EVENT-REPORT requests once what they say is recorded."""

    def __init__(self, events: CommitmentEvents, who: Callable[[StorageAssociation], Caller]) -> None:
        self._events = events
        self._who = who
        # One at a time: a data set that is being decoded takes many times its own bytes.
        self._decoding = threading.Lock()

    @property
    def handlers(self) -> list[tuple[Any, Any]]:
        """For pynetdicom."""
        return [(evt.EVT_N_ACTION, self._on_action), (evt.EVT_N_EVENT_REPORT, self._on_event_report)]

    def _on_action(self, event: evt.Event) -> _Answer:
        """N-ACTION: a peer asks (PS3.4 J.3.2)."""
        request, caller = event.request, self._who(event.assoc)

        def take() -> None:
            ask = commitment.decode_ask(self._read(request.ActionInformation, event))
            asked = CommitmentAsked(caller=caller, ask=ask, at=datetime.now(UTC))
            self._events.asked(asked, _Line(event.assoc, event.context.context_id))

        if request.ActionTypeID != commitment.ACTION_TYPE:
            return self._turn_away(caller, NormalizedStatus.NO_SUCH_ACTION, "an unknown Action Type ID")
        return self._answer(caller, request.RequestedSOPClassUID, request.RequestedSOPInstanceUID, take)

    def _on_event_report(self, event: evt.Event) -> _Answer:
        """N-EVENT-REPORT: a peer that we asked answers (PS3.4 J.3.3)."""
        request, caller = event.request, self._who(event.assoc)

        def take() -> None:
            ds = self._read(request.EventInformation, event)
            report = commitment.decode_report(request.EventTypeID, ds)
            self._events.reported(CommitmentReported(caller=caller, report=report))

        if request.EventTypeID not in (commitment.ALL_COMMITTED, commitment.SOME_FAILED):
            return self._turn_away(caller, NormalizedStatus.NO_SUCH_EVENT_TYPE, "an unknown Event Type ID")
        return self._answer(caller, request.AffectedSOPClassUID, request.AffectedSOPInstanceUID, take)

    def _answer(
        self, caller: Caller, sop_class: UID | None, sop_instance: UID | None, take: Callable[[], None]
    ) -> _Answer:
        """The status of a message, once `take` has had it."""
        if sop_class != commitment.SOP_CLASS_UID:
            return self._turn_away(caller, NormalizedStatus.NO_SUCH_CLASS, "another SOP class")
        if sop_instance != commitment.SOP_INSTANCE_UID:
            return self._turn_away(
                caller, NormalizedStatus.NO_SUCH_INSTANCE, "not the well-known SOP instance"
            )
        try:
            take()
        except (DataSetError, CommitmentError) as error:
            return self._turn_away(caller, NormalizedStatus.INVALID_ARGUMENT, str(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the association goes on and the sender knows
            reason = f"it could not be recorded: {type(error).__name__}"
            return self._turn_away(caller, NormalizedStatus.RESOURCE_LIMITATION, reason)
        return NormalizedStatus.SUCCESS, None

    def _read(self, data: BytesIO | None, event: evt.Event) -> Dataset:
        with self._decoding:
            return commitment.read(data.getvalue() if data else b"", str(event.context.transfer_syntax))

    def _turn_away(self, caller: Caller, status: NormalizedStatus, reason: str) -> _Answer:
        LOGGER.warning("a storage commitment message of %r is refused: %s", caller.calling_ae_title, reason)
        try:
            self._events.turned_away(CommitmentTurnedAway(caller=caller, status=status, reason=reason))
        except Exception as error:  # noqa: BLE001 - the sender still gets its answer
            LOGGER.error("a refused storage commitment message is not recorded: %s", type(error).__name__)
        return status, None


class _Line:
    """An association that a peer opened and asked on."""

    def __init__(self, association: StorageAssociation, context_id: int) -> None:
        self._association = association
        self._context_id = context_id
        self._sending = threading.Lock()
        self._message_id = 0

    @property
    def is_open(self) -> bool:
        return bool(self._association.is_established) and not self._association.dul.draining

    @property
    def is_quiet(self) -> bool:
        association, upper = self._association, self._association.dul
        busy = association.is_serving or not association.dimse.msg_queue.empty() or not upper.quiet.is_set()
        if busy or upper.sink is None or upper.sink.in_hand:
            return False
        return bool(time.monotonic() - upper.heard_at > _QUIET_SECONDS)

    def send(self, report: CommitmentReport) -> int:
        with self._sending:
            self._message_id = self._message_id % 0xFFFF + 1
            fragments = _request(self._association, self._context_id, self._message_id, report)
            self._association.dul.say(fragments)
            return self._await_answer(self._message_id)

    def _await_answer(self, message_id: int) -> int:
        """The status of the answer to one request. Raises SendError."""
        patience = self._association.dimse_timeout or 60.0
        deadline = time.monotonic() + patience
        while time.monotonic() < deadline:
            try:
                answer = self._association.answers.get(timeout=_LOOK_SECONDS)
            except queue.Empty:
                if not self._association.is_established:
                    raise SendError("the peer ended its association instead of answering") from None
                continue
            # An answer that comes after its time belongs to an earlier report.
            if answer.MessageIDBeingRespondedTo == message_id and isinstance(answer, N_EVENT_REPORT):
                return int(answer.Status)
        raise SendError(f"the peer gave no answer on its association within {patience:.0f} s")


def _request(
    association: StorageAssociation, context_id: int, message_id: int, report: CommitmentReport
) -> list[Any]:
    """The fragments of an N-EVENT-REPORT request (PS3.7 10.1.1)."""
    event_type, ds = commitment.encode_report(report)
    (accepted,) = (each for each in association.accepted_contexts if each.context_id == context_id)
    implicit = accepted.transfer_syntax[0].is_implicit_VR
    request = N_EVENT_REPORT()
    request.MessageID = message_id
    request.AffectedSOPClassUID = UID(commitment.SOP_CLASS_UID)
    request.AffectedSOPInstanceUID = UID(commitment.SOP_INSTANCE_UID)
    request.EventTypeID = event_type
    request.EventInformation = BytesIO(encode(ds, implicit, True) or b"")
    message = N_EVENT_REPORT_RQ()
    message.primitive_to_message(request)
    return list(message.encode_msg(context_id, association.dimse.maximum_pdu_size))
