"""Storage commitment at the listener: what is told, what is answered, what is refused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import build_role, dimse_messages, evt
from pynetdicom.dimse_primitives import N_ACTION, N_EVENT_REPORT
from pynetdicom.dsutils import encode
from pynetdicom.sop_class import Verification

from dicom_node import commitment
from dicom_node.access import KnownPeer
from dicom_node.commitment import CommitmentAsk, CommitmentReport, Failure, Reference
from dicom_node.commitment_events import (
    CommitmentAsked,
    CommitmentReported,
    CommitmentTurnedAway,
    OpenLine,
)
from dicom_node.errors import CommitmentError, SendError
from tests.support import phantoms
from tests.support.entity import Entity
from tests.support.listening import CT, Listening, Wire, listening, resident_bytes, until, value

PUSH = commitment.SOP_CLASS_UID
WELL_KNOWN = commitment.SOP_INSTANCE_UID
PEER = KnownPeer(name="pacs", ae_title="PACS", host="127.0.0.1")
TRANSACTION = "1.2.826.0.1.3680043.9"


@dataclass
class Desk:
    """Keeps what the listener tells about storage commitment."""

    requests: list[tuple[CommitmentAsked, OpenLine]] = field(default_factory=list)
    reports: list[CommitmentReported] = field(default_factory=list)
    refusals: list[CommitmentTurnedAway] = field(default_factory=list)
    #: Raised by whatever is told next.
    trouble: Exception | None = None

    def asked(self, asked: CommitmentAsked, line: OpenLine) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.requests.append((asked, line))

    def reported(self, reported: CommitmentReported) -> None:
        if self.trouble is not None:
            raise self.trouble
        self.reports.append(reported)

    def turned_away(self, refused: CommitmentTurnedAway) -> None:
        self.refusals.append(refused)


@dataclass
class Node:
    """A listener with a desk behind it."""

    listening: Listening
    desk: Desk

    @property
    def port(self) -> int:
        return self.listening.port


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    desk = Desk()
    settings: dict[str, Any] = {"peers": (PEER,), "require_known_peers": False, "network_timeout": 20.0}
    with listening(tmp_path / "spool", commitments=desk, **settings) as at:
        yield Node(at, desk)


@dataclass
class Pacs:
    """A peer that asked and listens for the answer on its own association."""

    assoc: Any
    heard: list[tuple[int, Dataset]] = field(default_factory=list)
    #: What it answers to a report.
    status: int = 0x0000

    def ask(self, ds: Dataset | None, *, action: int = 1, instance: str = WELL_KNOWN) -> int:
        answer, _ = self.assoc.send_n_action(ds, action, PUSH, instance)
        return int(answer.Status)

    def report(self, ds: Dataset, *, event_type: int = 1, instance: str = WELL_KNOWN) -> int:
        answer, _ = self.assoc.send_n_event_report(ds, event_type, PUSH, instance)
        return int(answer.Status)

    def on_report(self, event: Any) -> tuple[int, None]:
        self.heard.append((event.event_type, event.event_information))
        return self.status, None


@contextmanager
def pacs(port: int, *, title: str = "PACS", syntax: str = ImplicitVRLittleEndian) -> Iterator[Pacs]:
    """An association of a peer that may ask and report."""
    ae = Entity(ae_title=title)
    ae.add_requested_context(PUSH, syntax)
    ae.add_requested_context(Verification)
    ae.add_requested_context(CT)
    ae.dimse_timeout = ae.network_timeout = ae.acse_timeout = 30
    peer = Pacs(None)
    peer.assoc = ae.associate(
        "127.0.0.1",
        port,
        ae_title="SECONDREAD",
        ext_neg=[build_role(PUSH, scu_role=True, scp_role=True)],
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, peer.on_report)],
    )
    assert peer.assoc.is_established
    try:
        yield peer
    finally:
        if peer.assoc.is_established:
            peer.assoc.release()


def references(count: int) -> tuple[Reference, ...]:
    return tuple(
        Reference(sop_class_uid=CT, sop_instance_uid=f"1.2.826.0.1.3680043.8.498.{10**30 + number}")
        for number in range(count)
    )


def ask(count: int = 2) -> Dataset:
    return commitment.encode_ask(CommitmentAsk(transaction_uid=TRANSACTION, references=references(count)))


def report_of(count: int = 2) -> CommitmentReport:
    return CommitmentReport(transaction_uid=TRANSACTION, committed=references(count), failed=())


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_request_is_told_before_it_is_answered(node: Node, syntax: str) -> None:
    with pacs(node.port, syntax=syntax) as peer:
        assert peer.ask(ask()) == 0x0000

        ((asked, line),) = node.desk.requests
        assert line.is_open
    assert asked.ask == CommitmentAsk(transaction_uid=TRANSACTION, references=references(2))
    opened = node.listening.events.associations[0]
    assert asked.caller.association_id == opened.association_id
    assert (asked.caller.calling_ae_title, asked.caller.peer) == ("PACS", "pacs")
    assert asked.caller.address == "127.0.0.1"
    until(lambda: not line.is_open, "the line to close with its association")


def test_a_request_that_cannot_be_recorded_is_to_be_asked_again(node: Node) -> None:
    node.desk.trouble = OSError("no space left for DOE^JANE")
    with pacs(node.port) as peer:
        assert peer.ask(ask()) == 0x0213
        node.desk.trouble = CommitmentError("this transaction was about other instances")
        assert peer.ask(ask()) == 0x0115
        node.desk.trouble = None
        assert peer.ask(ask()) == 0x0000

    assert [refused.reason for refused in node.desk.refusals] == [
        "it could not be recorded: OSError",
        "this transaction was about other instances",
    ]


def test_bad_requests_are_refused_and_the_association_goes_on(node: Node) -> None:
    nameless = Dataset()
    nameless.TransactionUID = TRANSACTION
    with pacs(node.port) as peer:
        assert peer.ask(ask(), action=2) == 0x0123
        assert peer.ask(ask(), instance="1.2.3") == 0x0112
        assert peer.ask(nameless) == 0x0115
        assert peer.ask(None) == 0x0115
        assert peer.assoc.send_c_echo().Status == 0x0000
        assert peer.ask(ask()) == 0x0000

    assert len(node.desk.refusals) == 4
    assert len(node.desk.requests) == 1


def test_another_class_on_the_context_is_refused(node: Node) -> None:
    with pacs(node.port) as peer:
        answer, _ = peer.assoc.send_n_action(ask(), 1, "1.2.840.10008.5.1.1.1", WELL_KNOWN, meta_uid=PUSH)
        assert answer.Status == 0x0118


def test_a_request_for_a_very_large_study_is_taken(node: Node) -> None:
    with pacs(node.port) as peer:
        assert peer.ask(ask(10_000)) == 0x0000

    assert len(node.desk.requests[0][0].ask.references) == 10_000


def test_a_hundred_thousand_references_cost_no_more_than_their_bytes(node: Node) -> None:
    """They are more than the bound: the association ends, and nobody else notices."""
    item = bytes.fromhex("feff00e028000000") + bytes.fromhex("08005011") + (10).to_bytes(4, "little")
    item += b"1.2.3.4.5\0" + bytes.fromhex("08005511") + (14).to_bytes(4, "little") + b"1.2.3.4.567890"
    item = item.replace(bytes.fromhex("feff00e028000000"), b"\xfe\xff\x00\xe0" + (40).to_bytes(4, "little"))
    data = bytes.fromhex("08009911") + (len(item) * 100_000).to_bytes(4, "little") + item * 100_000
    before = resident_bytes()
    with Wire(node.port) as wire, pacs(node.port) as other:
        wire.associate({1: (PUSH, [ImplicitVRLittleEndian])}, calling="PACS")
        wire.send_values(value(1, 3, action_command()))
        for start in range(0, len(data), 16_000):
            last = 2 if start + 16_000 >= len(data) else 0
            wire.send_values(value(1, last, data[start : start + 16_000]))
        assert wire.status() == 0x0115
        assert other.ask(ask()) == 0x0000

    assert resident_bytes() - before < 100 << 20
    assert "more than" in node.desk.refusals[0].reason


def test_a_message_without_end_ends_its_association(node: Node) -> None:
    before = resident_bytes()
    with Wire(node.port) as wire, pacs(node.port) as other:
        wire.associate({1: (PUSH, [ImplicitVRLittleEndian])}, calling="PACS")
        wire.send_values(value(1, 3, action_command()))
        # The command repeated beside each fragment must not hide how much there is by now.
        piece = value(1, 0, b"") + value(1, 0, bytes(64_000))
        with pytest.raises(OSError):
            for _ in range(2_000):
                wire.send_pdu(0x04, piece)
        assert other.ask(ask()) == 0x0000

    assert resident_bytes() - before < 100 << 20
    assert node.listening.events.wait("aborted").reason == "a message that is not for storage is too long"


def test_requests_without_waiting_for_answers_end_the_association(node: Node) -> None:
    """One request at a time was agreed; each report would otherwise get a thread of its own."""
    gate = threading.Event()
    node.desk.reported = lambda reported: gate.wait(20) and None  # type: ignore[method-assign,assignment]
    threads = threading.active_count()
    try:
        with Wire(node.port) as wire:
            wire.associate({1: (PUSH, [ImplicitVRLittleEndian])}, calling="PACS")
            with pytest.raises(OSError):
                for _ in range(2_000):
                    wire.send_values(value(1, 3, report_command()), value(1, 2, report_bytes()))
                    time.sleep(0.001)
            assert threading.active_count() < threads + 10
            gate.set()
    finally:
        gate.set()
    assert "more requests" in node.listening.events.wait("aborted").reason


@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_bytes_that_are_no_data_set_are_refused(node: Node) -> None:
    with Wire(node.port) as wire:
        wire.associate({1: (PUSH, [ImplicitVRLittleEndian])}, calling="PACS")
        for garbage in (b"\xff" * 64, b"DOE^JANE", b"\x08\x00\x99\x11\xff\xff\xff\x7f\0\0"):
            wire.send_values(value(1, 3, action_command()), value(1, 2, garbage))
            assert wire.status() == 0x0115

    assert len(node.desk.refusals) == 3
    assert not any("DOE" in refused.reason for refused in node.desk.refusals)


def test_a_stranger_gets_no_context_for_it(node: Node) -> None:
    """It may store where any caller may, but whoever is not known cannot have asked, nor be told."""
    ae = Entity(ae_title="STRANGER")
    ae.add_requested_context(PUSH)
    ae.add_requested_context(Verification)
    assoc = ae.associate("127.0.0.1", node.port, ae_title="SECONDREAD")
    try:
        assert [context.abstract_syntax for context in assoc.accepted_contexts] == [Verification]
    finally:
        assoc.release()


def test_the_answer_goes_back_on_the_same_association(node: Node) -> None:
    failed = Failure(reference=references(3)[2], reason=0x0112)
    said = CommitmentReport(transaction_uid=TRANSACTION, committed=references(2), failed=(failed,))
    with pacs(node.port) as peer:
        assert peer.ask(ask(3)) == 0x0000
        line = node.desk.requests[0][1]
        until(lambda: line.is_quiet, "the peer to wait")

        assert line.send(said) == 0x0000
        assert peer.assoc.send_c_echo().Status == 0x0000

        ((event_type, ds),) = peer.heard
        assert commitment.decode_report(event_type, ds) == said


def test_a_large_answer_goes_back_whole(node: Node) -> None:
    with pacs(node.port) as peer:
        assert peer.ask(ask()) == 0x0000

        assert node.desk.requests[0][1].send(report_of(5_000)) == 0x0000

        assert len(peer.heard[0][1].ReferencedSOPSequence) == 5_000


def test_the_peers_own_status_comes_back(node: Node) -> None:
    with pacs(node.port) as peer:
        peer.status = 0x0110
        assert peer.ask(ask()) == 0x0000

        assert node.desk.requests[0][1].send(report_of()) == 0x0110


def test_an_answer_that_crosses_requests_of_the_peer_arrives_and_so_do_theirs(node: Node) -> None:
    with pacs(node.port) as peer:
        assert peer.ask(ask()) == 0x0000
        line = node.desk.requests[0][1]
        statuses: list[int] = []
        reporter = threading.Thread(
            target=lambda: statuses.extend(line.send(report_of(500)) for _ in range(10))
        )
        reporter.start()
        echoes = []
        while reporter.is_alive():
            echoes.append(peer.assoc.send_c_echo().Status)
        reporter.join()

    assert statuses == [0x0000] * 10
    assert set(echoes) == {0x0000}
    assert len(peer.heard) == 10


def test_a_peer_that_still_stores_is_not_quiet(node: Node) -> None:
    image = phantoms.datasets(phantoms.Phantom(shape=(2, 8, 8)))[0]
    with pacs(node.port) as peer:
        assert peer.ask(ask()) == 0x0000
        line = node.desk.requests[0][1]
        assert not line.is_quiet
        until(lambda: line.is_quiet, "the peer to wait")
        assert peer.assoc.send_c_store(image).Status == 0x0000
        assert not line.is_quiet
        until(lambda: line.is_quiet, "the peer to wait again")


def test_a_peer_that_leaves_instead_of_answering_is_not_waited_for(node: Node) -> None:
    with Wire(node.port) as wire:
        wire.associate({1: (PUSH, [ImplicitVRLittleEndian])}, calling="PACS")
        wire.send_values(value(1, 3, action_command()), value(1, 2, ask_bytes()))
        assert wire.status() == 0x0000
        line = node.desk.requests[0][1]
        threading.Timer(0.3, wire.socket.close).start()

        began = time.monotonic()
        with pytest.raises(SendError, match="ended its association"):
            line.send(report_of())
        assert time.monotonic() - began < 10


def test_a_report_is_told_before_it_is_answered(node: Node) -> None:
    with pacs(node.port) as peer:
        kind, ds = commitment.encode_report(report_of())
        assert peer.report(ds, event_type=kind) == 0x0000

    (told,) = node.desk.reports
    assert told.report == report_of()
    assert told.caller.peer == "pacs"


def test_bad_reports_are_refused(node: Node) -> None:
    _, ds = commitment.encode_report(report_of())
    with pacs(node.port) as peer:
        assert peer.report(ds, event_type=3) == 0x0113
        assert peer.report(ds, event_type=2) == 0x0115
        assert peer.report(ds, instance="1.2.3") == 0x0112
        node.desk.trouble = CommitmentError("nobody asked for it")
        assert peer.report(ds) == 0x0115
        node.desk.trouble = RuntimeError("the database is away")
        assert peer.report(ds) == 0x0213

    assert node.desk.reports == []
    assert len(node.desk.refusals) == 5


def test_a_listener_without_a_desk_takes_no_commitment(tmp_path: Path) -> None:
    with listening(tmp_path / "spool", peers=(PEER,)) as at:
        ae = Entity(ae_title="PACS")
        ae.add_requested_context(PUSH)
        assoc = ae.associate("127.0.0.1", at.port, ae_title="SECONDREAD")
        assert not assoc.is_established


def encoded(ds: Dataset) -> bytes:
    data: bytes | None = encode(ds, True, True)
    assert data is not None
    return data


def ask_bytes() -> bytes:
    return encoded(ask())


def report_bytes() -> bytes:
    return encoded(commitment.encode_report(report_of())[1])


def action_command() -> bytes:
    request = N_ACTION()
    request.MessageID, request.ActionTypeID = 1, 1
    request.RequestedSOPClassUID, request.RequestedSOPInstanceUID = PUSH, WELL_KNOWN
    return _command(request, "N_ACTION_RQ")


def report_command() -> bytes:
    request = N_EVENT_REPORT()
    request.MessageID, request.EventTypeID = 1, 1
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = PUSH, WELL_KNOWN
    return _command(request, "N_EVENT_REPORT_RQ")


def _command(request: Any, name: str) -> bytes:
    """The command set of a request that announces a data set."""
    message = getattr(dimse_messages, name)()
    message.primitive_to_message(request)
    message.command_set.CommandDataSetType = 0x0001
    return encoded(message.command_set)
