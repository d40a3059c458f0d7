"""A running listener whose events are kept, and an association spoken byte by byte."""

from __future__ import annotations

import io
import signal
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from dicom_node import file_meta
from dicom_node.commitment_events import CommitmentEvents
from dicom_node.instance import StoredInstance
from dicom_node.listener import AssociationEvent, Listener, ListenerConfig, RefusedInstance
from dicom_node.spool import Spool

CT = "1.2.840.10008.5.1.4.1.1.2"
VERIFICATION = "1.2.840.10008.1.1"
EXPLICIT, IMPLICIT = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2"


@dataclass
class Recorder:
    """Listener events, kept in the order they came."""

    associations: list[AssociationEvent] = field(default_factory=list)
    stored: list[StoredInstance] = field(default_factory=list)
    refusals: list[RefusedInstance] = field(default_factory=list)
    #: Called with each instance before it is kept; may raise.
    before: Callable[[StoredInstance], None] = lambda stored: None

    def association(self, event: AssociationEvent) -> None:
        self.associations.append(event)

    def instance(self, stored: StoredInstance) -> None:
        self.before(stored)
        self.stored.append(stored)

    def refused(self, refused: RefusedInstance) -> None:
        self.refusals.append(refused)

    @property
    def kinds(self) -> list[str]:
        return [str(event.kind) for event in self.associations]

    def wait(self, kind: str, *, count: int = 1, seconds: float = 15.0) -> AssociationEvent:
        """The last event once `count` of this kind have come."""
        until(lambda: self.kinds.count(kind) >= count, f"{count} x {kind}, got {self.kinds}", seconds=seconds)
        return [event for event in self.associations if event.kind == kind][-1]


@dataclass(frozen=True)
class Listening:
    """A listener in this process."""

    listener: Listener
    spool: Spool
    events: Recorder

    @property
    def port(self) -> int:
        return self.listener.port

    def dicom_files(self) -> list[Path]:
        return sorted(self.spool.root.glob("[0-9]*/*/*.dcm"))


@contextmanager
def listening(
    root: Path,
    *,
    watermark_bytes: int = 0,
    commitments: CommitmentEvents | None = None,
    **settings: object,
) -> Iterator[Listening]:
    """A listener on a free port of this host that takes any caller, unless `settings` say otherwise."""
    chosen: dict[str, object] = {
        "ae_title": "SECONDREAD",
        "port": 0,
        "host": "127.0.0.1",
        "require_known_peers": False,
        **settings,
    }
    events = Recorder()
    with Spool(root, watermark_bytes=watermark_bytes) as spool:
        config = ListenerConfig(**chosen)  # type: ignore[arg-type]
        with Listener(config, spool, events, commitments) as listener:
            yield Listening(listener, spool, events)
        left = [thread for thread in threading.enumerate() if "AcceptorThread" in thread.name]
        until(lambda: not any(thread.is_alive() for thread in left), "associations outlive the listener")


def until(condition: Callable[[], bool], what: str, *, seconds: float = 15.0) -> None:
    """Wait for a condition; fails with `what` when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for: {what}"
        time.sleep(0.01)


def data_set_bytes(source: Dataset | Path) -> bytes:
    """What follows the file meta of a file, or of the file that a data set would make."""
    if isinstance(source, Path):
        whole = source.read_bytes()
    else:
        buffer = io.BytesIO()
        dcmwrite(buffer, source, enforce_file_format=True)
        whole = buffer.getvalue()
    return whole[file_meta.decode(whole).data_offset :]


class Wire:
    """An association as bytes, for what no DICOM library would send."""

    def __init__(self, port: int, *, source: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=20, source_address=(source, 0))

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *details: object) -> None:
        self.socket.close()

    def associate(
        self, contexts: dict[int, tuple[str, list[str]]], *, called: str = "SECONDREAD", calling: str = "RAW"
    ) -> bytes:
        """Ask for an association; the answering PDU."""
        self.socket.sendall(association_request(contexts, called=called, calling=calling))
        return self.receive_pdu()

    def send_pdu(self, kind: int, body: bytes) -> None:
        self.socket.sendall(struct.pack(">BBL", kind, 0, len(body)) + body)

    def send_values(self, *values: bytes) -> None:
        """One P-DATA-TF PDU of these presentation data values."""
        self.send_pdu(0x04, b"".join(values))

    def receive_pdu(self) -> bytes:
        """The next PDU, b"" where the connection ended."""
        head = self._exactly(6)
        if len(head) < 6:
            return b""
        return head + self._exactly(struct.unpack(">L", head[2:])[0])

    def status(self) -> int:
        """The status of the response that comes next."""
        pdu = self.receive_pdu()
        assert pdu[:1] == b"\x04", f"no response but {pdu[:1]!r}"
        at = pdu.index(struct.pack("<HHL", 0, 0x0900, 2)) + 8
        return int(struct.unpack_from("<H", pdu, at)[0])

    def _exactly(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            try:
                piece = self.socket.recv(count - len(data))
            except ConnectionResetError:
                break
            if not piece:
                break
            data += piece
        return data


def association_request(
    contexts: dict[int, tuple[str, list[str]]], *, called: str = "SECONDREAD", calling: str = "RAW"
) -> bytes:
    """An A-ASSOCIATE-RQ PDU."""
    items = _item(0x10, b"1.2.840.10008.3.1.1.1")
    for identifier, (abstract, transfers) in contexts.items():
        syntaxes = b"".join(_item(0x40, transfer.encode()) for transfer in transfers)
        items += _item(0x20, bytes((identifier, 0, 0, 0)) + _item(0x30, abstract.encode()) + syntaxes)
    items += _item(0x50, _item(0x51, struct.pack(">L", 16384)) + _item(0x52, b"1.2.3.4"))
    titles = called.ljust(16).encode() + calling.ljust(16).encode()
    body = struct.pack(">HH", 1, 0) + titles + bytes(32) + items
    return struct.pack(">BBL", 0x01, 0, len(body)) + body


def value(context: int, control: int, data: bytes) -> bytes:
    """A presentation data value; control bit 0 says command, bit 1 last fragment (PS3.8 E.2)."""
    return struct.pack(">LBB", len(data) + 2, context, control) + data


def store_command(sop_class: str, sop_instance: str, *, message_id: int = 1) -> bytes:
    """A C-STORE-RQ command set."""
    body = (
        _element(0x0002, _even(sop_class))
        + _element(0x0100, struct.pack("<H", 1))
        + _element(0x0110, struct.pack("<H", message_id))
        + _element(0x0700, struct.pack("<H", 0))
        + _element(0x0800, struct.pack("<H", 0))
        + _element(0x1000, _even(sop_instance))
    )
    return _element(0x0000, struct.pack("<L", len(body))) + body


def resident_bytes() -> int:
    """Memory of this process that is in RAM."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096


def _even(text: str) -> bytes:
    data = text.encode()
    return data + b"\0" if len(data) % 2 else data


def _element(element: int, data: bytes) -> bytes:
    return struct.pack("<HHL", 0, element, len(data)) + data


def _item(kind: int, data: bytes) -> bytes:
    return struct.pack(">BBH", kind, 0, len(data)) + data


def main() -> None:
    """A listener in a process of its own: `python -m tests.support.listening ROOT PORT`.

    Prints its port, then the SOP Instance UID of each instance that was stored, and stops on SIGTERM.
    """
    recorder, terminated = Recorder(), threading.Event()
    recorder.before = lambda stored: print(stored.sop_instance_uid, flush=True)  # noqa: T201
    signal.signal(signal.SIGTERM, lambda *received: terminated.set())
    config = ListenerConfig(
        ae_title="SECONDREAD", port=int(sys.argv[2]), host="127.0.0.1", require_known_peers=False
    )
    with Spool(Path(sys.argv[1]), watermark_bytes=0) as spool, Listener(config, spool, recorder) as listener:
        print(listener.port, flush=True)  # noqa: T201
        terminated.wait()


if __name__ == "__main__":
    main()
