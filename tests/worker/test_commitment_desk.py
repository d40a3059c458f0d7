"""A peer asks on the wire and is told: where it waits, or at its own address; a row before each answer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.dataset import Dataset

from db import commitments
from db.models import Commitment
from dicom_node import commitment
from dicom_node.commitment import CommitmentReport, FailureReason
from tests.support import asking, phantoms
from tests.support.asking import Asker, Node, asker, ear, node, references
from tests.support.listening import until
from worker import commitment_answers, commitment_desk

CT = "1.2.840.10008.5.1.4.1.1.2"
TRANSACTION = "1.2.826.0.1.3680043.8.498.77"


@pytest.fixture
def images() -> list[Dataset]:
    return phantoms.datasets(phantoms.Phantom(shape=(5, 16, 16)))


@pytest.fixture
def at(tmp_path: Path) -> Iterator[Node]:
    """A node with a peer that nobody can call."""
    with node(
        tmp_path, {"name": "pacs", "ae_title": "PACS", "port": 1}, {"name": "any", "ae_title": "*"}
    ) as made:
        yield made


def heard(peer: Asker, count: int = 1) -> CommitmentReport:
    until(lambda: len(peer.told) >= count, "the report", seconds=30)
    return peer.told[-1]


def answered(at: Node) -> None:
    until(lambda: {row.state for row in at.requests()} == {"answered"}, "the request to be answered")


def test_a_peer_that_stores_and_waits_is_told_on_its_own_association(at: Node, images: list[Dataset]) -> None:
    with asker(at.port, storing=[CT]) as peer:
        peer.store(images)
        assert peer.ask(references(images), transaction_uid=TRANSACTION) == 0x0000

        report = heard(peer)
        answered(at)

    assert report.transaction_uid == TRANSACTION
    assert list(report.committed) == references(images)
    assert report.failed == ()
    (event,) = at.events("commitment-answered")
    assert "pacs asked for storage commitment; it was told: 5 of 5 images are held" in event
    (row,) = at.requests()
    assert (row.peer, row.lease_owner) == ("pacs", "")


def test_what_is_missing_is_denied_only_after_its_row_could_have_come(
    at: Node, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_answers, "GRACE", commitment_answers.GRACE / 4)
    with asker(at.port, storing=[CT]) as peer:
        peer.store(images[:3])
        assert peer.ask(references(images)) == 0x0000

        report = heard(peer)

    assert len(report.committed) == 3
    assert [failure.reason for failure in report.failed] == [FailureReason.NO_SUCH_INSTANCE] * 2


def test_what_comes_while_it_waits_is_committed_to(at: Node, images: list[Dataset]) -> None:
    with asker(at.port, storing=[CT]) as peer:
        peer.store(images[:3])
        assert peer.ask(references(images)) == 0x0000
        peer.store(images[3:])

        assert len(heard(peer).committed) == 5


def test_the_same_request_again_is_told_again(at: Node, images: list[Dataset]) -> None:
    with asker(at.port, storing=[CT]) as peer:
        peer.store(images)
        for count in (1, 2):
            assert peer.ask(references(images), transaction_uid=TRANSACTION) == 0x0000
            heard(peer, count)
            answered(at)
        # Under the same name, another question.
        assert peer.ask(references(images[:1]), transaction_uid=TRANSACTION) == 0x0115

    assert len(at.requests()) == 1
    assert peer.told[0] == peer.told[1]
    assert "was used for other instances before" in at.events("commitment-refused")[0]


def test_many_requests_on_one_association_are_all_answered(at: Node, images: list[Dataset]) -> None:
    with asker(at.port, storing=[CT]) as peer:
        peer.store(images)
        for ds in images:
            assert peer.ask(references([ds])) == 0x0000
        heard(peer, 5)

    assert [len(report.committed) for report in peer.told] == [1] * 5


def test_a_peer_that_leaves_is_told_at_its_own_address(tmp_path: Path, images: list[Dataset]) -> None:
    with (
        ear() as listening,
        node(tmp_path, {"name": "pacs", "ae_title": "PACS", "port": listening.port}) as at,
    ):
        with asker(at.port, storing=[CT]) as peer:
            peer.store(images)
            assert peer.ask(references(images)) == 0x0000
        at.answer_due()

        assert peer.told == []
        (report,) = listening.told
        assert list(report.committed) == references(images)
        assert listening.callers == ["SECONDREAD"]
        assert [row.state for row in at.requests()] == ["answered"]


def test_a_peer_that_goes_on_with_other_things_is_told_at_its_own_address(
    tmp_path: Path, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commitment_desk, "PATIENCE", commitment_desk.PATIENCE / 30)
    with (
        ear() as listening,
        node(tmp_path, {"name": "pacs", "ae_title": "PACS", "port": listening.port}) as at,
        asker(at.port, storing=[CT]) as peer,
    ):
        peer.store(images)
        assert peer.ask(references(images)) == 0x0000

        def busy() -> bool:
            peer.store(images[:1])
            return bool(at.due())

        until(busy, "the request to be left to a sender", seconds=30)
        at.answer_due()

        assert peer.told == []
        assert len(listening.told) == 1


def test_a_peer_that_leaves_and_has_no_address_is_not_told(tmp_path: Path, images: list[Dataset]) -> None:
    with node(tmp_path, {"name": "any", "ae_title": "*"}) as at:
        with asker(at.port) as peer:
            assert peer.ask(references(images)) == 0x0000
        at.answer_due()

        (row,) = at.requests()
        assert row.state == "dead"
        assert "peers.any.ae_title is not a title to call" in row.comment


def test_a_listener_that_stops_leaves_what_it_was_asked_to_a_sender(
    tmp_path: Path, images: list[Dataset]
) -> None:
    peer = {"name": "pacs", "ae_title": "PACS", "port": 1}
    with node(tmp_path, peer) as at, asker(at.port) as held:
        assert held.ask(references(images)) == 0x0000
        at.listener.stop()
    with node(tmp_path, peer) as again:
        assert again.due() == [1]


def test_a_request_that_cannot_be_written_is_not_acknowledged(
    at: Node, images: list[Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: object, **__: object) -> None:
        raise OSError("the database is away")

    with asker(at.port) as peer:
        with monkeypatch.context() as broken:
            broken.setattr("db.commitment_requests.record", away)
            assert peer.ask(references(images), transaction_uid=TRANSACTION) == 0x0213
        assert at.requests() == []
        assert peer.ask(references(images), transaction_uid=TRANSACTION) == 0x0000


def test_a_report_of_somebody_that_nobody_asked_is_refused(at: Node, images: list[Dataset]) -> None:
    said = CommitmentReport(transaction_uid="1.2.3", committed=tuple(references(images)), failed=())
    with asker(at.port) as peer:
        kind, ds = commitment.encode_report(said)
        for _ in range(3):
            answer, _ = peer.assoc.send_n_event_report(ds, kind, asking.PUSH, commitment.SOP_INSTANCE_UID)
            assert answer.Status == 0x0115

    # It may repeat itself without end; one event says so.
    assert len(at.events("commitment-refused")) == 1


def test_a_report_on_our_own_request_is_written_before_it_is_answered(
    at: Node, images: list[Dataset]
) -> None:
    with at.station.database.write() as session:
        session.add(
            Commitment(
                transaction_uid=TRANSACTION,
                destination="pacs",
                state="requested",
                requested_at=at.station.started_at,
            )
        )
    said = CommitmentReport(transaction_uid=TRANSACTION, committed=tuple(references(images)), failed=())
    for title, status in (("OTHER", 0x0115), ("PACS", 0x0000)):
        with asker(at.port, title=title) as peer:
            kind, ds = commitment.encode_report(replace(said))
            answer, _ = peer.assoc.send_n_event_report(ds, kind, asking.PUSH, commitment.SOP_INSTANCE_UID)
            assert answer.Status == status

    with at.station.database.read() as session:
        known = commitments.by_transaction(session, TRANSACTION)
        assert known is not None
        assert known.state == "reported"
