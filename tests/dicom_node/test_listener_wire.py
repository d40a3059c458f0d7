"""The listener against bytes that no DICOM library sends: limits, time-outs, fragments."""

from __future__ import annotations

import os
import socket
import struct
import time
from pathlib import Path

import pytest

from dicom_node.statuses import StoreStatus
from tests.support.listening import (
    CT,
    EXPLICIT,
    IMPLICIT,
    VERIFICATION,
    Wire,
    data_set_bytes,
    listening,
    resident_bytes,
    store_command,
    until,
    value,
)
from tests.support.phantoms import Phantom, datasets

ABORT, ACCEPT, REJECT = 0x07, 0x02, 0x03
MEBIBYTE = 1 << 20
CONTEXTS = {1: (CT, [EXPLICIT]), 3: (VERIFICATION, [IMPLICIT])}


def ended(wire: Wire) -> bool:
    """Whether the listener aborts or closes, and nothing else."""
    pdu = wire.receive_pdu()
    return pdu == b"" or pdu[0] == ABORT


def flood(wire: Wire, count: int) -> int:
    """Send this many bytes, or as many as the other side lets."""
    block, sent = bytes(MEBIBYTE), 0
    try:
        while sent < count:
            sent += wire.socket.send(block)
    except OSError:
        pass
    return sent


@pytest.mark.parametrize("kind", [0x01, 0x04, 0x05, 0x07])
def test_a_claim_of_4_gib_before_association_costs_no_memory(tmp_path: Path, kind: int) -> None:
    with listening(tmp_path) as node, Wire(node.port) as wire:
        before = resident_bytes()
        wire.socket.sendall(struct.pack(">BBL", kind, 0, 0xFFFFFFFF))
        sent = flood(wire, 200 * MEBIBYTE)

        assert resident_bytes() - before < 16 * MEBIBYTE
        assert sent < 100 * MEBIBYTE
        assert "rejected" in node.events.kinds


def test_a_claim_of_4_gib_in_an_association_is_aborted(tmp_path: Path) -> None:
    with listening(tmp_path) as node, Wire(node.port) as wire:
        assert wire.associate(CONTEXTS)[0] == ACCEPT
        before = resident_bytes()
        wire.socket.sendall(struct.pack(">BBL", 0x04, 0, 0xFFFFFFFF))

        assert wire.receive_pdu()[0] == ABORT
        flood(wire, 100 * MEBIBYTE)
        assert resident_bytes() - before < 16 * MEBIBYTE
        assert "claims 4294967295 bytes" in node.events.wait("aborted").reason


@pytest.mark.parametrize("excess", [2_000, MEBIBYTE])
def test_a_pdu_beyond_the_agreed_length_is_aborted(tmp_path: Path, excess: int) -> None:
    with listening(tmp_path, max_pdu=16384) as node, Wire(node.port) as wire:
        accepted = wire.associate(CONTEXTS)
        # PS3.8 D.1: what we offer to take is what we hold peers to
        assert struct.pack(">BBHL", 0x51, 0, 4, 16384) in accepted
        wire.send_values(value(1, 0x03, bytes(16384 + excess)))

        assert ended(wire)
        node.events.wait("aborted")


@pytest.mark.parametrize(
    "values",
    [
        [value(1, 0x02, b"data without a command")],
        [value(1, 0x03, b"\x00\x00")],
        [value(1, 0x03, b"\x08\x00\x18\x00\x02\x00\x00\x001.")],
        [value(1, 0x03, store_command(CT, "1.2.3")), value(1, 0x03, store_command(CT, "1.2.4"))],
        [struct.pack(">LBB", 4096, 1, 0x02)],
        [struct.pack(">LBB", 0, 1, 0x02)],
        [b"\x00\x00"],
        [value(1, 0x01, bytes(20_000))],
        [value(5, 0x03, store_command(CT, "1.2.3"))],
    ],
    ids=[
        "data first",
        "cut command",
        "no command group",
        "second command",
        "item longer than PDU",
        "item too short",
        "cut item",
        "endless command",
        "unknown context",
    ],
)
def test_broken_messages_abort(tmp_path: Path, values: list[bytes]) -> None:
    with listening(tmp_path) as node, Wire(node.port) as wire:
        wire.associate(CONTEXTS)
        wire.send_values(*values)

        assert ended(wire)
        node.events.wait("aborted")
        assert node.dicom_files() == []


def test_an_endless_message_that_is_not_for_storage_aborts(tmp_path: Path) -> None:
    with listening(tmp_path) as node, Wire(node.port) as wire:
        wire.associate(CONTEXTS)
        before = resident_bytes()
        try:
            for _ in range(2_000):
                wire.send_values(value(3, 0x01, bytes(100_000)))
        except OSError:
            pass

        node.events.wait("aborted")
        assert resident_bytes() - before < 32 * MEBIBYTE


@pytest.mark.parametrize(
    "greeting", [b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03"]
)
def test_other_protocols_are_turned_away(tmp_path: Path, greeting: bytes) -> None:
    with listening(tmp_path) as node, Wire(node.port) as wire:
        wire.socket.sendall(greeting)

        assert ended(wire)


def test_a_connection_that_says_nothing_is_closed(tmp_path: Path) -> None:
    with listening(tmp_path, association_timeout=0.5) as node, Wire(node.port) as wire:
        began = time.monotonic()

        assert ended(wire)
        assert time.monotonic() - began < 20


@pytest.mark.parametrize("start", [b"\x01", b"\x01\x00\x00\x00\x01\x00\x00\x01"], ids=["header", "body"])
def test_a_connection_that_stalls_in_its_request_is_closed(tmp_path: Path, start: bytes) -> None:
    with listening(tmp_path, association_timeout=0.5, network_timeout=0.5) as node, Wire(node.port) as wire:
        wire.socket.sendall(start)

        assert ended(wire)


def test_a_peer_that_stalls_in_an_instance_is_aborted(tmp_path: Path) -> None:
    with listening(tmp_path, network_timeout=0.5) as node, Wire(node.port) as wire:
        wire.associate(CONTEXTS)
        wire.send_values(value(1, 0x03, store_command(CT, "1.2.3")))
        wire.socket.sendall(struct.pack(">BBLLBB", 0x04, 0, 5000, 4996, 1, 0x02) + bytes(100))

        assert ended(wire)
        assert "stopped in the middle" in node.events.wait("aborted").reason


def test_a_peer_that_drips_is_aborted(tmp_path: Path) -> None:
    # Given a peer whose single bytes always come before the time-out of one read
    with listening(tmp_path, network_timeout=0.6) as node, Wire(node.port) as wire:
        wire.associate(CONTEXTS)
        wire.socket.sendall(struct.pack(">BBLLBB", 0x04, 0, 5000, 4996, 1, 0x03))
        began = time.monotonic()
        try:
            while "aborted" not in node.events.kinds and time.monotonic() - began < 30:
                wire.socket.send(b"\0")
                time.sleep(0.1)
        except OSError:
            pass

        node.events.wait("aborted")
        assert time.monotonic() - began < 20


def test_any_fragmentation_gives_the_same_bytes(tmp_path: Path) -> None:
    # Given the same image cut in ways that PS3.8 allows
    made = datasets(Phantom(shape=(4, 8, 8)))
    with listening(tmp_path) as node, Wire(node.port) as wire:
        wire.associate(CONTEXTS)
        for index, ds in enumerate(made):
            data, command = data_set_bytes(ds), store_command(CT, ds.SOPInstanceUID, message_id=index)
            if index == 0:  # all in one PDU
                wire.send_values(value(1, 0x03, command), value(1, 0x02, data))
            elif index == 1:  # each byte a fragment
                for position in range(len(command)):
                    last = 0x03 if position == len(command) - 1 else 0x01
                    wire.send_values(value(1, last, command[position : position + 1]))
                for position in range(len(data)):
                    wire.send_values(value(1, 0x00, data[position : position + 1]))
                wire.send_values(value(1, 0x02, b""))
            elif index == 2:  # many items to a PDU, some of them empty
                items = [value(1, 0x00, data[at : at + 7]) for at in range(0, len(data), 7)]
                wire.send_values(value(1, 0x01, b""), value(1, 0x03, command), value(1, 0x00, b""), *items)
                wire.send_values(value(1, 0x02, b""))
            else:  # a PDU at a time, slowly
                wire.send_values(value(1, 0x03, command))
                time.sleep(1.3)
                wire.send_values(value(1, 0x02, data))
            assert wire.status() == StoreStatus.SUCCESS

        stored = {instance.sop_instance_uid: instance for instance in node.events.stored}
        for ds in made:
            assert data_set_bytes(node.spool.root / stored[ds.SOPInstanceUID].path) == data_set_bytes(ds)


def test_memory_stays_flat_for_a_large_multiframe(tmp_path: Path) -> None:
    # Given a data set of 300 MiB, most of it pixels
    ds = datasets(Phantom(shape=(1, 8, 8)))[0]
    del ds.PixelData
    head = data_set_bytes(ds) + struct.pack("<HH2sHL", 0x7FE0, 0x0010, b"OW", 0, 300 * MEBIBYTE)
    block = os.urandom(120_000)
    with listening(tmp_path) as node, Wire(node.port) as wire:
        wire.associate(CONTEXTS)
        before = resident_bytes()
        wire.send_values(value(1, 0x03, store_command(CT, ds.SOPInstanceUID)), value(1, 0x00, head))
        left, most = 300 * MEBIBYTE, 0
        while left:
            count = min(left, len(block))
            left -= count
            wire.send_values(value(1, 0x00 if left else 0x02, block[:count]))
            most = max(most, resident_bytes())

        assert wire.status() == StoreStatus.SUCCESS
        assert most - before < 16 * MEBIBYTE
        (stored,) = node.events.stored
        assert stored.size > 300 * MEBIBYTE


@pytest.mark.parametrize("uid", ["../../../../tmp/owned", "1.2/3", "", "1..2", "1." * 40])
def test_a_request_with_a_bad_uid_is_refused_and_the_next_one_stored(tmp_path: Path, uid: str) -> None:
    ds = datasets(Phantom(shape=(1, 8, 8)))[0]
    with listening(tmp_path / "spool") as node, Wire(node.port) as wire:
        wire.associate(CONTEXTS)
        wire.send_values(value(1, 0x03, store_command(CT, uid)), value(1, 0x02, data_set_bytes(ds)))
        assert wire.status() == StoreStatus.BAD_UID
        wire.send_values(
            value(1, 0x03, store_command(CT, ds.SOPInstanceUID)), value(1, 0x02, data_set_bytes(ds))
        )
        assert wire.status() == StoreStatus.SUCCESS

        assert [refused.sop_instance_uid for refused in node.events.refusals] == [""]
        assert len(node.dicom_files()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]


@pytest.mark.parametrize("keep", [0, 1, 100, 200, 300])
def test_truncated_and_foreign_bytes_are_refused(tmp_path: Path, keep: int) -> None:
    ds = datasets(Phantom(shape=(1, 8, 8)))[0]
    with listening(tmp_path) as node, Wire(node.port) as wire:
        wire.associate(CONTEXTS)
        for data in (data_set_bytes(ds)[:keep], b"\x89PNG\r\n\x1a\n" + bytes(keep)):
            wire.send_values(value(1, 0x03, store_command(CT, ds.SOPInstanceUID)), value(1, 0x02, data))
            assert wire.status() == StoreStatus.NOT_A_DATA_SET

        assert [refused.sop_instance_uid for refused in node.events.refusals] == [ds.SOPInstanceUID] * 2
        assert node.dicom_files() == []


def test_another_instance_than_announced_is_refused(tmp_path: Path) -> None:
    ds = datasets(Phantom(shape=(1, 8, 8)))[0]
    with listening(tmp_path) as node, Wire(node.port) as wire:
        wire.associate(CONTEXTS)
        wire.send_values(value(1, 0x03, store_command(CT, "1.2.3")), value(1, 0x02, data_set_bytes(ds)))

        assert wire.status() == StoreStatus.DOES_NOT_MATCH
        assert node.dicom_files() == []


def test_a_lost_connection_leaves_no_instance(tmp_path: Path) -> None:
    ds = datasets(Phantom(shape=(1, 8, 8)))[0]
    with listening(tmp_path) as node:
        with Wire(node.port) as wire:
            wire.associate(CONTEXTS)
            wire.send_values(
                value(1, 0x03, store_command(CT, ds.SOPInstanceUID)), value(1, 0x00, data_set_bytes(ds))
            )
            for _ in range(20):
                wire.send_values(value(1, 0x00, bytes(100_000)))
            until(lambda: list(node.spool.root.glob("incoming/*/*.part")) != [], "a file to be begun")
            # A reset, as by a cable or a crashed host
            wire.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        node.events.wait("aborted")

        # Then what had been written lies aside, and is no instance
        partial = node.spool.root / "partial"
        until(lambda: len(list(partial.iterdir())) == 1, "the unfinished file to be set aside")
        assert node.events.stored == [] and node.dicom_files() == []


def test_a_storage_data_set_may_not_change_context(tmp_path: Path) -> None:
    with listening(tmp_path) as node, Wire(node.port) as wire:
        wire.associate({1: (CT, [EXPLICIT]), 5: (CT, [IMPLICIT])})
        wire.send_values(value(1, 0x03, store_command(CT, "1.2.3")), value(5, 0x02, b"data"))

        assert ended(wire)
        node.events.wait("aborted")
