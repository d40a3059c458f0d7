"""pynetdicom's upper layer with bounded, streaming reception of stored instances.

What is replaced, here and in storage_server.py, and why (test_listener_upper_layer.py fails when
pynetdicom changes underneath):

DULServiceProvider._read_pdu_data   reads any length that a peer claims, 4 KiB at a time, and decodes it
                                    into objects. Here the length is checked first (PS3.8 section 9.3.1),
                                    a stalled read ends, and what belongs to a storage context goes
                                    straight from the socket into the receiver's buffer.
DULServiceProvider._is_transport_event  parses what arrives after an abort. Here it is thrown away.
DULServiceProvider.run_reactor      wrapped, so that the receiver learns that the association ended.

While instances arrive the association's own thread, which polls each millisecond, is held at its
checkpoint; the upper layer's thread then reads with blocking calls. Everything else (negotiation, C-ECHO,
release, other services) is pynetdicom's.
"""

from __future__ import annotations

import contextlib
import logging
import select
import socket
import struct
import threading
import time
from collections.abc import Iterable
from typing import Protocol

from pynetdicom.association import Association
from pynetdicom.dul import DULServiceProvider
from pynetdicom.pdu_primitives import P_DATA

from dicom_node.store_message import ProtocolError

LOGGER = logging.getLogger(__name__)

_P_DATA_TF = 0x04
#: The longest variable field of each PDU type, P-DATA-TF apart (PS3.8 section 9.3). An A-ASSOCIATE-RQ of 128
#: contexts with every transfer syntax takes some 200 KiB.
_LONGEST = {0x01: 1 << 20, 0x02: 1 << 20, 0x03: 4, 0x05: 4, 0x06: 4, 0x07: 4}
#: Some peers leave the item headers out when they keep to the maximum length (PS3.8 section D.1).
_P_DATA_SLACK = 1024
#: Bytes of one message that is not for storage, unless the association is allowed more: a C-ECHO has some 70.
_LONGEST_OTHER_MESSAGE = 1 << 20
#: Such messages that may wait for the association's own thread; one was agreed (PS3.7 section D.3.3.3).
_MOST_WAITING = 8
#: Seconds for which the thread waits for more before it goes back to pynetdicom's loop, and its slices.
_LINGER, _SLICE = 1.0, 0.05
#: Bytes that are thrown away after an abort before the connection is cut.
_MOST_AFTERMATH = 16 << 20
_ITEMS_DO_NOT_FIT = "the items of a P-DATA-TF PDU do not fit it (PS3.8 section 9.3.5)"
_TCP_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)


class StorageSink(Protocol):
    """Takes the presentation data values of storage contexts (PS3.8 section 9.3.5.1)."""

    @property
    def in_hand(self) -> bool: ...
    def takes(self, context_id: int) -> bool: ...
    def command(self, context_id: int, fragment: bytes | bytearray, *, last: bool) -> bytes | None: ...
    def room(self) -> memoryview: ...
    def filled(self, context_id: int, count: int, *, last: bool) -> bytes | None: ...
    def close(self) -> None: ...


class _Stalled(Exception):
    """The peer stopped in the middle of a PDU."""


class _Lost(Exception):
    """The connection ended in the middle of a PDU."""


class StreamingUpperLayer(DULServiceProvider):  # type: ignore[misc]
    """The upper layer of one accepted association."""

    def __init__(self, assoc: Association, *, max_pdu: int, timeout: float) -> None:
        super().__init__(assoc)
        self._max_pdu = max_pdu
        self._timeout = timeout
        #: Set before the association is accepted; None leaves all to pynetdicom.
        self.sink: StorageSink | None = None
        #: No new instance is taken any more; what comes is thrown away, unanswered.
        self.draining = False
        #: Set while no instance is in hand and the association's own thread is not held.
        self.quiet = threading.Event()
        self.quiet.set()
        #: Bytes of one message that is not for storage.
        self.longest_message = _LONGEST_OTHER_MESSAGE
        #: When the peer last said anything, by the monotonic clock.
        self.heard_at = time.monotonic()
        #: Why this layer ended the association, for people; "" where it did not.
        self.end_reason = ""
        #: The peer broke the protocol: nothing that it sends is looked at any more.
        self._is_broken = False
        self._aftermath = 0

    def run_reactor(self) -> None:
        """Run the loop; close the sink when it ends, however it does."""
        try:
            super().run_reactor()
        finally:
            if self.sink is not None:
                self.sink.close()
            # The association's thread may still wait for a request, for all of `acse_timeout`: None ends that.
            self.to_user_queue.put(None)

    def cut(self) -> None:
        """Close the connection from another thread, also in the middle of a read."""
        connection = self.socket.socket if self.socket is not None else None
        if connection is not None:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def say(self, message: Iterable[P_DATA]) -> None:
        """Send all fragments of a message, and nothing else in between (PS3.7 section 6.3.1)."""
        fragments = list(message)
        # The reactor looks here before it reads: what arrives is answered after the last of these.
        with self.to_provider_queue.mutex:
            self.to_provider_queue.queue.extend(fragments)

    def _is_transport_event(self) -> bool:
        ended = self._is_broken or self.state_machine.current_state == "Sta13"
        if ended and self.socket is not None and self.socket.ready:
            self._discard_aftermath()
            return True
        return bool(super()._is_transport_event())

    def _break_off(self, reason: str) -> None:
        """PS3.8 table 9-10, Evt19: unrecognised or invalid PDU received."""
        LOGGER.warning("an association is aborted: %s", reason)
        self.end_reason = reason
        self._is_broken = True
        self.event_queue.put("Evt19")

    def _discard_aftermath(self) -> None:
        """PS3.8 table 9-9, AA-6: PDUs that arrive after an abort are ignored; here, for so many bytes."""
        try:
            count = len(self.socket.socket.recv(1 << 16))
        except OSError:
            count = 0
        self._aftermath += count
        if count == 0 or self._aftermath > _MOST_AFTERMATH:
            self.socket.close()

    def _read_pdu_data(self) -> None:
        """Read one PDU, or all that arrive while instances are being stored; queue the resulting event."""
        held = False
        try:
            while True:
                deadline = time.monotonic() + self._timeout
                kind, _, length = struct.unpack(">BBL", self._read(6, deadline))
                self._check_length(kind, length)
                if kind != _P_DATA_TF or self.sink is None or not self._is_transferring():
                    self._hand_over(bytes((kind, 0)), bytearray(self._read(length, deadline)))
                    return
                if not held:
                    held = True
                    self._hold_association()
                if not self._stream(self.sink, length, deadline) or not self._more_follows(self.sink):
                    return
        except _Lost:
            # Evt17: transport connection closed.
            self.end_reason = "the connection was lost"
            self.event_queue.put("Evt17")
        except _Stalled:
            self._break_off("the peer stopped in the middle of a PDU")
        except ProtocolError as error:
            self._break_off(str(error))
        finally:
            self.heard_at = time.monotonic()
            if held:
                self.assoc._reactor_checkpoint.set()
                self.quiet.set()

    def _is_transferring(self) -> bool:
        """Sta6: data transfer; Sta7: we asked for release, and the peer may still send (PS3.8 table 9-10)."""
        return self.state_machine.current_state in ("Sta6", "Sta7")

    def _check_length(self, kind: int, length: int) -> None:
        """Read on only for a known PDU type of no more than its longest length. Raises `ProtocolError`."""
        longest = self._max_pdu + _P_DATA_SLACK if kind == _P_DATA_TF else _LONGEST.get(kind, -1)
        if length > longest:
            raise ProtocolError(f"a PDU of type {kind} claims {length} bytes")

    def _hold_association(self) -> None:
        self.quiet.clear()
        if not self.draining:
            self.assoc._reactor_checkpoint.clear()

    def _more_follows(self, sink: StorageSink) -> bool:
        """Wait a little for the next PDU; False when pynetdicom's loop has something else to do."""
        poll = select.poll()
        poll.register(self.socket.socket, select.POLLIN)
        patience = time.monotonic() + _LINGER
        while True:
            if self._kill_thread or self.to_provider_queue.queue or (self.draining and not sink.in_hand):
                return False
            if poll.poll(_SLICE * 1000):
                return True
            if time.monotonic() > patience:
                return False

    def _stream(self, sink: StorageSink, length: int, deadline: float) -> bool:
        """Take the items of one P-DATA-TF PDU; False where the rest of it was handed to pynetdicom."""
        while length > 0:
            if length < 6:
                raise ProtocolError(_ITEMS_DO_NOT_FIT)
            item = self._read(6, deadline)
            item_length, context_id, control = struct.unpack(">LBB", item)
            length -= 4 + item_length
            if item_length < 2 or length < 0:
                raise ProtocolError(_ITEMS_DO_NOT_FIT)
            if not sink.takes(context_id):
                if all(context.context_id != context_id for context in self.assoc.accepted_contexts):
                    raise ProtocolError("a message came on a presentation context that was not accepted")
                rest = self._read(item_length - 2 + length, deadline)
                self._require_room(len(rest))
                self._hand_over(bytes((_P_DATA_TF, 0)), bytearray(item + rest))
                return False
            self._item(sink, context_id, control, item_length - 2, deadline)
        if _TCP_QUICKACK is not None:
            # Without this a sender that leaves Nagle's algorithm on waits 40 ms for each acknowledgement.
            self.socket.socket.setsockopt(socket.IPPROTO_TCP, _TCP_QUICKACK, 1)
        return True

    def _item(self, sink: StorageSink, context_id: int, control: int, count: int, deadline: float) -> None:
        """Take one presentation data value; the control header is PS3.8 section E.2's."""
        is_command, is_last = bool(control & 0x01), bool(control & 0x02)
        if self.draining and not sink.in_hand:
            self._read(count, deadline)
            return
        if is_command:
            self._answer(sink.command(context_id, self._read(count, deadline), last=is_last))
            return
        while True:
            room = sink.room()[:count]
            self._fill(room, deadline)
            count -= len(room)
            self._answer(sink.filled(context_id, len(room), last=is_last and count == 0))
            if count == 0:
                return

    def _answer(self, response: bytes | None) -> None:
        if response is not None:
            self.socket.send(response)

    def _require_room(self, count: int) -> None:
        """Bound the memory of the messages that pynetdicom collects. Raises `ProtocolError`."""
        dimse = self.assoc.dimse
        if dimse.message is not None:
            count += dimse.message.encoded_command_set.getbuffer().nbytes
            count += dimse.message.data_set.getbuffer().nbytes
        if count > self.longest_message:
            raise ProtocolError("a message that is not for storage is too long")
        if dimse.msg_queue.qsize() > _MOST_WAITING:
            raise ProtocolError("more requests came at once than were agreed")

    def _hand_over(self, start: bytes, body: bytearray) -> None:
        """Let pynetdicom decode a PDU and queue its event, as its own `_read_pdu_data` does."""
        try:
            pdu, event = self._decode_pdu(bytearray(start + struct.pack(">L", len(body))) + body)
        except Exception as error:  # noqa: BLE001 - any failure to decode is Evt19; its text may quote the peer
            self._break_off(f"a PDU cannot be decoded: {type(error).__name__}")
            return
        self.event_queue.put(event)
        self._recv_pdu.put(pdu)

    def _read(self, count: int, deadline: float) -> bytes:
        data = bytearray(count)
        self._fill(memoryview(data), deadline)
        return bytes(data)

    def _fill(self, view: memoryview, deadline: float) -> None:
        """Read until `view` is full. Raises `_Lost`, `_Stalled`.

        The socket blocks, with SO_RCVTIMEO: one system call for one PDU, where Python's own time-outs
        take a poll for each piece.
        """
        connection = self.socket.socket
        if connection is None:
            raise _Lost
        got = 0
        while got < len(view):
            try:
                count = connection.recv_into(view[got:], 0, socket.MSG_WAITALL)
            except BlockingIOError:
                raise _Stalled from None
            except OSError:
                raise _Lost from None
            if count == 0:
                raise _Lost
            got += count
            if got < len(view) and time.monotonic() > deadline:
                raise _Stalled
