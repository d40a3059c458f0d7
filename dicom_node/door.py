"""Where a connection waits until it has asked for an association: it costs no thread, and not for ever.

Whoever holds connections open, or drips bytes into them, holds a place here and none inside, where an
association takes two threads. When this is full, the address that holds most of it loses its oldest.
Inside, no address may take every place. What is no request for an association never gets in.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import selectors
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from dicom_node.turned_away import Complaints, TurnedAway

LOGGER = logging.getLogger(__name__)

#: PS3.8 table 9-11: type, length, and after the protocol version and two reserved bytes the AE titles.
_A_ASSOCIATE_RQ = 0x01
_HEAD, _FIXED_PART = 6, 74
_CALLED, _CALLING = slice(10, 26), slice(26, 42)
#: One of 128 contexts with every transfer syntax takes some 200 KiB.
_LONGEST = 1 << 20
#: A request is waited for up to this length; the rest of a longer one is read inside.
_AWAITED = 64 * 1024
#: PS3.8 tables 9-21 and 9-26: transient, local limit exceeded; whose AE title it was; not recognised.
_LIMIT_EXCEEDED = bytes((0x03, 0, 0, 0, 0, 4, 0, 2, 3, 2))
_BAD_CALLING = bytes((0x03, 0, 0, 0, 0, 4, 0, 1, 1, 3))
_BAD_CALLED = bytes((0x03, 0, 0, 0, 0, 4, 0, 1, 1, 7))
_ABORT = bytes((0x07, 0, 0, 0, 0, 4, 0, 0, 2, 1))
#: Seconds, and bytes, that are left to a caller who was turned away.
_FAREWELL_SECONDS, _FAREWELL_BYTES = 2.0, 1 << 20

Address = tuple[Any, ...]


@dataclass(eq=False)
class _Visitor:
    """A connection at the door."""

    connection: socket.socket
    address: Address
    since: float
    #: Bytes of its request that must be there before it is looked at again.
    needed: int = _HEAD
    #: It was answered, and may still read that until then.
    leaves_at: float | None = None
    drained: int = field(default=0)

    @property
    def host(self) -> str:
        return str(self.address[0])


class Door:
    """Lets in who asks for an association; the rest is turned away, and told of."""

    def __init__(
        self,
        tell: Callable[[TurnedAway], None],
        *,
        max_associations: int,
        max_waiting: int,
        patience: float,
    ) -> None:
        self._complaints = Complaints(tell)
        self._places = max_associations
        # A fifth is kept for others, where there are enough to divide.
        self._share = max_associations - max_associations // 5
        self._max_waiting = max_waiting
        self._patience = patience
        self._enter: Callable[[socket.socket, Address], None] | None = None
        self._inside: Counter[str] = Counter()
        self._lock = threading.Lock()
        self._visitors: list[_Visitor] = []
        self._newcomers: queue.SimpleQueue[_Visitor | None] = queue.SimpleQueue()
        self._bell, self._doorbell = socket.socketpair()
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, name="door", daemon=True)

    def open(self, enter: Callable[[socket.socket, Address], None]) -> None:
        """Begin; `enter` takes a connection whose request is there."""
        self._enter = enter
        self._thread.start()

    def close(self) -> None:
        """Turn everybody away who still waits."""
        if self._enter is not None:
            self._newcomers.put(None)
            self._doorbell.send(b"!")
            self._thread.join()
            self._enter = None
        for each in (self._selector, self._bell, self._doorbell):
            each.close()

    def knock(self, connection: socket.socket, address: Address) -> None:
        """A connection was accepted; from another thread."""
        self._newcomers.put(_Visitor(connection=connection, address=address, since=time.monotonic()))
        self._doorbell.send(b"!")

    def left(self, host: str) -> None:
        """An association of this address has ended; from any thread."""
        with self._lock:
            self._inside[host] -= 1
            self._inside += Counter()

    # In the door's own thread from here on

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select(self._until_next()):
                if key.data is not None:
                    self._look(key.data)
                elif not self._welcome():
                    self._clear()
                    return
            self._end_visits(time.monotonic())
            self._complaints.repeat(time.monotonic())

    def _until_next(self) -> float:
        """Seconds until a visit is over."""
        if not self._visitors:
            return 1.0
        first = min(self._ends_at(visitor) for visitor in self._visitors)
        return min(1.0, max(0.0, first - time.monotonic()))

    def _ends_at(self, visitor: _Visitor) -> float:
        return visitor.since + self._patience if visitor.leaves_at is None else visitor.leaves_at

    def _welcome(self) -> bool:
        """Take in who knocked; False at the end."""
        self._bell.recv(4096)
        while not self._newcomers.empty():
            visitor = self._newcomers.get()
            if visitor is None:
                return False
            if len(self._visitors) >= self._max_waiting:
                self._make_room()
            self._visitors.append(visitor)
            self._await(visitor, _HEAD)
            self._selector.register(visitor.connection, selectors.EVENT_READ, visitor)
        return True

    def _make_room(self) -> None:
        """End the oldest visit of the address that holds most of them."""
        (host, _), *_ = Counter(visitor.host for visitor in self._visitors).most_common(1)
        oldest = next(visitor for visitor in self._visitors if visitor.host == host)
        if oldest.leaves_at is None:
            self._complain(oldest, "it held too many connections without asking for an association")
        self._forget(oldest)
        oldest.connection.close()

    @staticmethod
    def _await(visitor: _Visitor, count: int) -> None:
        """Be told when so many bytes are there: until then they lie in the kernel, and nobody is woken."""
        visitor.needed = count
        with contextlib.suppress(OSError):
            visitor.connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, count)

    def _look(self, visitor: _Visitor) -> None:
        """What a visitor has sent so far, without taking it."""
        if visitor.leaves_at is not None:
            self._drain(visitor)
            return
        try:
            most = max(visitor.needed, _FIXED_PART)
            head = visitor.connection.recv(most, socket.MSG_PEEK | socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            head = b""
        if len(head) < visitor.needed:
            # Who only looks whether the port is open, as a balancer does each second, is no event.
            if head:
                self._complain(visitor, "it broke off while it asked for an association")
            self._forget(visitor)
            visitor.connection.close()
        elif visitor.needed == _HEAD:
            self._measure(visitor, head)
        else:
            self._admit(visitor, head)

    def _measure(self, visitor: _Visitor, head: bytes) -> None:
        """Wait for the rest of a request; turn away what is none (PS3.8 table 9-10, Sta2: AA-1)."""
        kind, _, length = struct.unpack_from(">BBL", head)
        if kind != _A_ASSOCIATE_RQ:
            self._turn_away(visitor, _ABORT, _language(head))
        elif not _FIXED_PART - _HEAD <= length <= _LONGEST:
            self._turn_away(visitor, _ABORT, f"its request for an association claims {length} bytes")
        else:
            self._await(visitor, min(_HEAD + length, _AWAITED))

    def _admit(self, visitor: _Visitor, head: bytes) -> None:
        """Let a caller in whose request is there, if there is a place for it."""
        called, calling = head[_CALLED], head[_CALLING]
        with self._lock:
            taken, by_it = self._inside.total(), self._inside[visitor.host]
        if not _is_title(calling):
            self._turn_away(visitor, _BAD_CALLING, "its calling AE title is not text (PS3.5 6.2)", head)
        elif not _is_title(called):
            self._turn_away(visitor, _BAD_CALLED, "the AE title that it called is not text (PS3.5 6.2)", head)
        elif taken >= self._places:
            self._turn_away(visitor, _LIMIT_EXCEEDED, "too many associations are open", head)
        elif by_it >= self._share:
            reason = f"too many associations are open from its address: {by_it} of {self._places}"
            self._turn_away(visitor, _LIMIT_EXCEEDED, reason, head)
        else:
            self._let_in(visitor)

    def _let_in(self, visitor: _Visitor) -> None:
        assert self._enter is not None
        self._forget(visitor)
        self._await(visitor, 1)
        with self._lock:
            self._inside[visitor.host] += 1
        try:
            self._enter(visitor.connection, visitor.address)
        except Exception as error:  # noqa: BLE001 - everybody else still wants to come in
            LOGGER.error("a connection from %s failed: %s", visitor.host, type(error).__name__)
            visitor.connection.close()
            self.left(visitor.host)

    def _turn_away(self, visitor: _Visitor, answer: bytes, reason: str, head: bytes = b"") -> None:
        """Answer, and leave a moment to read that: a connection with unread bytes is closed by a reset."""
        self._complain(visitor, reason, head)
        visitor.leaves_at = time.monotonic() + _FAREWELL_SECONDS
        self._await(visitor, 1)
        with contextlib.suppress(OSError):
            visitor.connection.send(answer, socket.MSG_DONTWAIT)
            visitor.connection.shutdown(socket.SHUT_WR)

    def _drain(self, visitor: _Visitor) -> None:
        try:
            count = len(visitor.connection.recv(1 << 16, socket.MSG_DONTWAIT))
        except BlockingIOError:
            return
        except OSError:
            count = 0
        visitor.drained += count
        if count == 0 or visitor.drained > _FAREWELL_BYTES:
            self._forget(visitor)
            visitor.connection.close()

    def _end_visits(self, now: float) -> None:
        for visitor in [each for each in self._visitors if now >= self._ends_at(each)]:
            if visitor.leaves_at is None:
                self._complain(visitor, f"it did not ask for an association within {self._patience:g} s")
            self._forget(visitor)
            visitor.connection.close()

    def _complain(self, visitor: _Visitor, reason: str, head: bytes = b"") -> None:
        away = TurnedAway(
            address=visitor.host, calling=_text(head[_CALLING]), called=_text(head[_CALLED]), reason=reason
        )
        self._complaints.tell(away, time.monotonic())

    def _forget(self, visitor: _Visitor) -> None:
        self._visitors.remove(visitor)
        self._selector.unregister(visitor.connection)

    def _clear(self) -> None:
        for visitor in self._visitors:
            visitor.connection.close()
        self._visitors.clear()


def _language(head: bytes) -> str:
    """What a caller speaks that is not DICOM."""
    if head[:4] in (b"GET ", b"HEAD", b"POST", b"PUT ", b"OPTI", b"CONN", b"PRI "):
        return "it speaks HTTP, and this port DICOM"
    if head[:2] == b"\x16\x03":
        return "it speaks TLS, and this port does not"
    return "what it sent is no request for an association"


def _is_title(title: bytes) -> bool:
    """PS3.5 table 6.2-1, AE: characters of the default repertoire without controls and backslash."""
    return all(0x20 <= byte <= 0x7E and byte != 0x5C for byte in title)


def _text(title: bytes) -> str:
    """An AE title as the log may have it, whatever it holds."""
    return ascii(title.decode("latin-1").strip())[1:-1]
