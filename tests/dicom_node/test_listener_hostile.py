"""The listener among callers that mean no good: bounded in memory and time, told of, and everybody else is served."""

from __future__ import annotations

import logging
import os
import random
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from dicom_node.turned_away import Complaints, TurnedAway
from tests.support import peers
from tests.support.listening import (
    CT,
    EXPLICIT,
    IMPLICIT,
    Listening,
    Wire,
    association_request,
    data_set_bytes,
    listening,
    resident_bytes,
    store_command,
    until,
    value,
)
from tests.support.phantoms import Phantom, datasets, write

ABORT, ACCEPT, REJECT = 0x07, 0x02, 0x03
MEBIBYTE = 1 << 20
CONTEXTS = {1: (CT, [EXPLICIT])}
#: Loopback addresses that are not the hostile one's.
OTHER = "127.0.0.2"
#: PS3.8 table 9-21: transient, presentation related, local limit exceeded.
LIMIT_EXCEEDED = (2, 3, 2)


@contextmanager
def held(count: int, port: int, begin: Callable[[socket.socket, int], None]) -> Iterator[list[socket.socket]]:
    """So many connections from 127.0.0.1, each begun in some way."""
    with ExitStack() as stack:
        made = []
        for number in range(count):
            connection = socket.create_connection(("127.0.0.1", port), timeout=20)
            stack.callback(connection.close)
            begin(connection, number)
            made.append(connection)
        yield made


@contextmanager
def dripping(connections: list[socket.socket], data: bytes) -> Iterator[None]:
    """A byte into each connection five times a second, as long as it takes."""
    stop = threading.Event()

    def drip() -> None:
        for at in range(len(data)):
            for connection in connections:
                with suppress(OSError):
                    connection.send(data[at : at + 1])
            if stop.wait(0.2):
                return

    thread = threading.Thread(target=drip)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def store(node: Listening, *, source: str = OTHER) -> float:
    """An honest caller stores an image; the seconds that it took."""
    ds = datasets(Phantom(shape=(1, 16, 16)))[0]
    began = time.monotonic()
    with Wire(node.port, source=source) as wire:
        assert wire.associate(CONTEXTS)[0] == ACCEPT
        request = store_command(CT, ds.SOPInstanceUID)
        wire.send_values(value(1, 0x03, request), value(1, 0x02, data_set_bytes(ds)))
        assert wire.status() == 0
    return time.monotonic() - began


def reasons(node: Listening) -> list[str]:
    return [event.reason for event in node.events.associations if event.kind == "rejected"]


def aborted(node: Listening) -> list[str]:
    """Why associations of the hostile address were aborted."""
    ended = [event for event in node.events.associations if event.kind == "aborted"]
    return [event.reason for event in ended if event.address != OTHER]


def threads() -> int:
    return len([thread for thread in threading.enumerate() if thread.name != "MainThread"])


# Slow callers


@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("start", [b"", association_request(CONTEXTS)[:70]], ids=["silent", "in the request"])
def test_many_slow_callers_cost_little_and_nobody_waits(tmp_path: Path, start: bytes) -> None:
    files = write(datasets(Phantom(shape=(4, 64, 64))), tmp_path / "files")
    rest = association_request(CONTEXTS)[len(start) :]
    with listening(tmp_path / "spool", association_timeout=60) as node:
        memory, count = resident_bytes(), threads()
        with held(200, node.port, lambda connection, _: connection.sendall(start)) as slow:
            with dripping(slow, rest[:100]):
                began = time.monotonic()
                sent = subprocess.run(
                    [peers.path("storescu"), "-aec", "SECONDREAD", "127.0.0.1", str(node.port), *files],
                    timeout=60,
                    check=False,
                    env={**os.environ, "TCP_NODELAY": "1"},
                )
                took = time.monotonic() - began
                # It waits at the door, without a thread; those of the good caller may not have ended yet
                assert threads() - count < 8
            assert sent.returncode == 0
            assert len(node.dicom_files()) == 4
            assert took < 10
            assert resident_bytes() - memory < 16 * MEBIBYTE


def test_who_drips_its_request_is_closed_in_the_end(tmp_path: Path) -> None:
    with listening(tmp_path, association_timeout=1) as node, Wire(node.port) as wire:
        began = time.monotonic()
        with dripping([wire.socket], association_request(CONTEXTS)):
            assert wire.receive_pdu() == b""
        assert time.monotonic() - began < 20
        assert reasons(node) == ["it did not ask for an association within 1 s"]


def test_a_request_may_come_in_pieces(tmp_path: Path) -> None:
    request = association_request(CONTEXTS)
    with listening(tmp_path) as node, Wire(node.port) as wire:
        for piece in (request[:3], request[3:40], request[40:]):
            wire.socket.sendall(piece)
            time.sleep(0.2)
        assert wire.receive_pdu()[0] == ACCEPT


def test_a_very_long_request_is_understood(tmp_path: Path) -> None:
    # 128 contexts with 40 transfer syntaxes each
    syntaxes = [EXPLICIT, IMPLICIT, *(f"1.2.840.10008.1.2.4.{number}" for number in range(51, 89))]
    contexts = {number: (CT, syntaxes) for number in range(1, 256, 2)}
    assert len(association_request(contexts)) > 128 * 1024
    with listening(tmp_path) as node, Wire(node.port) as wire:
        assert wire.associate(contexts)[0] == ACCEPT


def test_when_the_door_is_full_the_one_who_fills_it_loses_its_oldest(tmp_path: Path) -> None:
    with listening(tmp_path, max_waiting=20, association_timeout=60) as node:
        with (
            socket.create_connection(("127.0.0.1", node.port), source_address=(OTHER, 0)) as patient,
            held(100, node.port, lambda connection, _: None) as slow,
        ):
            until(lambda: closed(slow) >= 81, "the oldest to be closed")
            assert not closed(slow[-19:])
            assert store(node) < 5
            patient.sendall(association_request(CONTEXTS))
            patient.settimeout(20)
            assert patient.recv(1) == bytes((ACCEPT,))
        # Told of once, not eighty times
        assert reasons(node) == ["it held too many connections without asking for an association"]


def closed(connections: list[socket.socket]) -> int:
    """How many of these the listener has closed."""
    ended = 0
    for connection in connections:
        connection.setblocking(False)
        try:
            ended += connection.recv(1) == b""
        except ConnectionResetError:
            ended += 1
        except BlockingIOError:
            pass
    return ended


def test_a_slow_data_set_holds_up_only_its_sender(tmp_path: Path) -> None:
    def begin(connection: socket.socket, _: int) -> None:
        connection.sendall(association_request(CONTEXTS))
        assert connection.recv(1) == bytes((ACCEPT,))
        request = value(1, 0x03, store_command(CT, "1.2.3"))
        connection.sendall(struct.pack(">BBL", 0x04, 0, len(request)) + request)
        connection.sendall(struct.pack(">BBLLBB", 0x04, 0, 5000, 4996, 1, 0x02))

    with listening(tmp_path, max_associations=10, network_timeout=3) as node:
        began = time.monotonic()
        with held(8, node.port, begin) as slow, dripping(slow, bytes(5000)):
            assert store(node) < 3
            until(lambda: len(aborted(node)) == 8, "the slow ones to be aborted")
        assert time.monotonic() - began < 15
        assert set(aborted(node)) == {"the peer stopped in the middle of a PDU"}


def test_the_end_does_not_wait_for_who_waits_at_the_door(tmp_path: Path) -> None:
    with (
        listening(tmp_path, association_timeout=60) as node,
        held(50, node.port, lambda connection, _: None) as slow,
    ):
        began = time.monotonic()
        node.listener.stop()
        assert time.monotonic() - began < 30
        until(lambda: closed(slow) == 50, "all to be closed")


# Many callers


def test_a_peer_with_500_associations_leaves_places_for_others(tmp_path: Path) -> None:
    answers = []

    def associate(connection: socket.socket, _: int) -> None:
        connection.sendall(association_request(CONTEXTS))
        answers.append(connection.recv(10))

    with listening(tmp_path, max_associations=10) as node:
        memory = resident_bytes()
        with held(500, node.port, associate) as many:
            assert [answer[0] for answer in answers].count(ACCEPT) == 8
            assert {tuple(answer[7:10]) for answer in answers if answer[0] == REJECT} == {LIMIT_EXCEEDED}
            # A buffer for each that is in, and little else
            assert resident_bytes() - memory < (8 + 16) * MEBIBYTE
            assert store(node) < 5
            # Its places are free again when it leaves them, also without a word
            for connection in many[:8]:
                connection.close()
            until(lambda: len(aborted(node)) == 8, "its associations to end")
            assert store(node, source="127.0.0.1") < 5
        assert reasons(node) == ["too many associations are open from its address: 8 of 10"]


def test_rejected_callers_that_stay_give_their_places_back(tmp_path: Path) -> None:
    # Given callers that nobody knows and who keep their connections after the rejection
    with listening(tmp_path, max_associations=5) as node, ExitStack() as stack:
        for _ in range(4):
            wire = stack.enter_context(Wire(node.port))
            assert wire.associate(CONTEXTS, called="ELSE")[0] == REJECT
        # Then their places are soon free for others from there
        until(lambda: node.listener._server.active_associations == [], "them to end", seconds=10)
        assert store(node, source="127.0.0.1") < 5


# Nonsense


@pytest.mark.parametrize(
    ("sent", "reason"),
    [
        (b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", "it speaks HTTP, and this port DICOM"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", "it speaks TLS, and this port does not"),
        (b"\x04\x00\x00\x00\x00\x08Doe^Jane", "what it sent is no request for an association"),
        (b"\x01\x00\xff\xff\xff\xff" + bytes(100), "its request for an association claims 4294967295 bytes"),
        (b"\x01\x00\x00\x00\x00\x04Jane", "its request for an association claims 4 bytes"),
        (association_request(CONTEXTS)[:100], "it broke off while it asked for an association"),
    ],
    ids=["http", "tls", "other pdu", "4 GiB", "short", "broken off"],
)
def test_who_does_not_speak_dicom_is_told_of_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, sent: bytes, reason: str
) -> None:
    with listening(tmp_path) as node:
        caplog.set_level(logging.INFO)
        for _ in range(5):
            with Wire(node.port) as wire:
                wire.socket.sendall(sent)
                wire.socket.shutdown(socket.SHUT_WR)
                pdu = wire.receive_pdu()
                assert pdu == b"" or pdu[0] == ABORT
        (event,) = [event for event in node.events.associations if event.kind == "rejected"]
        assert (event.reason, event.address, event.calling_ae_title) == (reason, "127.0.0.1", "")
        (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("dicom_node")]
        assert reason in line and "Doe" not in caplog.text
        assert store(node) < 5


def test_who_only_looks_whether_the_port_is_open_is_no_event(tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        for _ in range(20):
            Wire(node.port).socket.close()
        assert store(node) < 5
        assert reasons(node) == []


@pytest.mark.parametrize("title", ["A\x00B", "EVIL\x1b[31m", "BACK\\SLASH", "T\x7f"])
def test_an_ae_title_that_is_no_text_is_rejected(tmp_path: Path, title: str) -> None:
    with listening(tmp_path) as node:
        with Wire(node.port) as wire:
            pdu = wire.associate(CONTEXTS, calling=title)
            # PS3.8 table 9-21: permanent, service user, calling AE title not recognised
            assert (pdu[0], tuple(pdu[7:10])) == (REJECT, (1, 1, 3))
        with Wire(node.port) as wire:
            pdu = wire.associate(CONTEXTS, called=title)
            assert (pdu[0], tuple(pdu[7:10])) == (REJECT, (1, 1, 7))
        until(lambda: len(reasons(node)) == 2, "two events")
        for event in node.events.associations:
            assert (event.calling_ae_title + event.called_ae_title).isprintable()


@pytest.mark.parametrize("inside", [False, True], ids=["before", "inside"])
def test_random_bytes_harm_nobody(tmp_path: Path, inside: bool) -> None:
    chance = random.Random(f"hostile {inside}")
    with listening(tmp_path, network_timeout=1, association_timeout=1) as node:
        memory = resident_bytes()
        for number in range(60):
            with Wire(node.port) as wire:
                if inside:
                    assert wire.associate(CONTEXTS)[0] == ACCEPT
                data = chance.randbytes(chance.randrange(1, 4000))
                if number % 3 == 0:
                    # What begins well is read further
                    data = struct.pack(">BBL", 0x04 if inside else 0x01, 0, len(data)) + data
                with suppress(OSError):
                    wire.socket.sendall(data)
            if number % 20 == 0:
                assert store(node) < 5
        assert store(node) < 5
        until(lambda: node.listener._server.active_associations == [], "all to end", seconds=30)
        assert resident_bytes() - memory < 32 * MEBIBYTE
        assert {path.name for path in node.spool.root.glob("[0-9]*/*/*.dcm")} == {
            Path(stored.path).name for stored in node.events.stored
        }


@pytest.mark.parametrize("how", ["abort", "reset"])
def test_an_end_in_the_middle_of_a_pdu(tmp_path: Path, how: str) -> None:
    with listening(tmp_path) as node:
        with Wire(node.port) as wire:
            wire.associate(CONTEXTS)
            wire.send_values(value(1, 0x03, store_command(CT, "1.2.3")))
            wire.socket.sendall(struct.pack(">BBLLBB", 0x04, 0, 5000, 4996, 1, 0x02) + bytes(100))
            if how == "abort":
                wire.socket.sendall(bytes((ABORT, 0, 0, 0, 0, 4, 0, 0, 0, 0)))
            else:
                wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        assert node.events.wait("aborted").reason == "the connection was lost"
        assert node.dicom_files() == []
        assert store(node) < 5


# Complaints


def test_what_is_told_again_and_again_is_counted() -> None:
    told: list[str] = []
    complaints = Complaints(lambda away: told.append(f"{away.address}: {away.reason}"))

    def away(address: str, reason: str = "HTTP") -> TurnedAway:
        return TurnedAway(address=address, calling="", called="", reason=reason)

    for second in range(30):
        complaints.tell(away("10.0.0.1"), float(second))
        complaints.repeat(float(second))
    complaints.tell(away("10.0.0.2"), 30.0)
    complaints.tell(away("10.0.0.1", "TLS"), 30.0)
    assert told == ["10.0.0.1: HTTP", "10.0.0.2: HTTP", "10.0.0.1: TLS"]
    complaints.repeat(60.0)
    assert told[3:] == ["10.0.0.1: HTTP (29 more times in 60 s)"]
    # And who is quiet is forgotten
    complaints.repeat(200.0)
    assert complaints._told == {} and len(told) == 4


def test_no_number_of_addresses_fills_the_memory() -> None:
    complaints = Complaints(lambda away: None)
    for number in range(5000):
        complaints.tell(TurnedAway(address=str(number), calling="", called="", reason="HTTP"), 1.0)
    assert len(complaints._told) <= 1000
