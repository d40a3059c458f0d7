"""What peers are told about what they ask us to commit to: the truth, at least once, whatever dies."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from db import commitment_requests, models
from dicom_node.commitment import CommitmentReport, FailureReason
from dicom_node.errors import SendError
from dicom_node.instance import StoredInstance
from dicom_node.senders import Destination
from tests.worker import journey as journeys
from tests.worker.journey import Crash, Journey
from worker import commitment_answers
from worker.commitment_answers import GRACE, Clerk

TRANSACTION = "1.2.826.0.1.3680043.8.498.9"
PACS = Destination(name="pacs", ae_title="PACS", host="127.0.0.1")


class Peer:
    """A peer that is told, and what it says to that."""

    def __init__(self) -> None:
        self.told: list[CommitmentReport] = []
        self.answers: list[int | BaseException] = []

    def report(self, destination: Destination, said: CommitmentReport) -> int:
        assert destination.name == "pacs"
        self.told.append(said)
        answer = self.answers.pop(0) if self.answers else 0x0000
        if isinstance(answer, BaseException):
            raise answer
        return answer


@pytest.fixture
def peer() -> Peer:
    return Peer()


def clerk(journey: Journey, peer: Peer, **changes: Any) -> Clerk:
    made = Clerk(
        database=journey.database,
        spool_root=journey.storage / "spool",
        destinations={"pacs": PACS},
        report=peer.report,
        owner=f"worker-{journey.owner}",
    )
    return replace(made, **changes)


def stored(journey: Journey, *, rows: bool = True) -> list[StoredInstance]:
    """The images of a study, with or without their rows."""
    files = journey.store(journeys.datasets())
    if rows:
        journey.receive(files)
    return files


def ask(journey: Journey, files: list[StoredInstance], *, at: datetime | None = None, **changes: Any) -> int:
    """A request about these files, which no listener holds any more."""
    values = {
        "transaction_uid": TRANSACTION,
        "association_id": "a1",
        "peer": "pacs",
        "calling_ae_title": "PACS",
        "address": "127.0.0.1",
        "received_at": at or datetime.now(UTC),
        "lease_owner": "",
        "lease_until": None,
        **changes,
    }
    with journey.database.write() as session:
        return commitment_requests.record(
            session, values, [(each.sop_class_uid, each.sop_instance_uid) for each in files]
        )


def due(journey: Journey, request_id: int) -> None:
    """Let every wait and every lease of the request be over."""
    past = datetime.now(UTC) - timedelta(seconds=1)
    with journey.database.write() as session:
        session.execute(
            update(models.CommitmentRequest)
            .where(models.CommitmentRequest.id == request_id)
            .values(lease_until=None, next_attempt_at=past)
        )


def request(journey: Journey) -> models.CommitmentRequest:
    (row,) = journey.rows(models.CommitmentRequest)
    assert isinstance(row, models.CommitmentRequest)
    return row


def reasons(report: CommitmentReport) -> list[int]:
    return [failure.reason for failure in report.failed]


LONG_AGO = datetime.now(UTC) - 2 * GRACE


def test_what_is_held_is_committed_to(journey: Journey, peer: Peer) -> None:
    files = stored(journey)
    request_id = ask(journey, files)

    commitment_answers.answer(clerk(journey, peer), request_id)

    (told,) = peer.told
    assert told.transaction_uid == TRANSACTION
    assert [each.sop_instance_uid for each in told.committed] == [each.sop_instance_uid for each in files]
    assert told.failed == ()
    assert request(journey).state == "answered"
    assert "6 of 6 images are held" in [event.message for event in journey.why().events][-1]


def test_an_answered_request_is_not_answered_again(journey: Journey, peer: Peer) -> None:
    request_id = ask(journey, stored(journey))

    for _ in range(3):
        commitment_answers.answer(clerk(journey, peer), request_id)

    assert len(peer.told) == 1


def test_what_never_came_is_denied(journey: Journey, peer: Peer) -> None:
    files = stored(journey)
    strange = replace(files[0], sop_instance_uid="1.2.3.4.5")
    request_id = ask(journey, [*files, strange], at=LONG_AGO)

    commitment_answers.answer(clerk(journey, peer), request_id)

    (told,) = peer.told
    assert len(told.committed) == 6
    assert [failure.reference.sop_instance_uid for failure in told.failed] == ["1.2.3.4.5"]
    assert reasons(told) == [FailureReason.NO_SUCH_INSTANCE]
    assert request(journey).comment == "6 of 7 images are held, 1 are not here (0x0112)"


def test_another_class_than_was_stored_is_a_conflict(journey: Journey, peer: Peer) -> None:
    files = stored(journey)
    request_id = ask(journey, [replace(files[0], sop_class_uid="1.2.840.10008.5.1.4.1.1.4")], at=LONG_AGO)

    commitment_answers.answer(clerk(journey, peer), request_id)

    assert reasons(peer.told[0]) == [FailureReason.CLASS_INSTANCE_CONFLICT]


def _gone(path: Path) -> None:
    path.unlink()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def _other(path: Path) -> None:
    """As long as it was, and another digest in its file meta."""
    whole = path.read_bytes()
    digest = bytes.fromhex(_digest_of(path))
    assert digest in whole
    path.write_bytes(whole.replace(digest, b"\1" * 32))


def _digest_of(path: Path) -> str:
    from dicom_node import digests

    with path.open("rb") as file:
        return digests.stated(file)


@pytest.mark.parametrize("damage", [_gone, _cut, _other])
def test_a_row_without_its_file_is_no_promise(journey: Journey, peer: Peer, damage: Any) -> None:
    files = stored(journey)
    damage(journey.storage / "spool" / files[2].path)
    request_id = ask(journey, files, at=LONG_AGO)

    commitment_answers.answer(clerk(journey, peer), request_id)

    assert reasons(peer.told[0]) == [FailureReason.PROCESSING_FAILURE]
    assert len(peer.told[0].committed) == 5
    assert "no longer on disk" in journey.why().events[-1].message


def test_of_two_files_under_one_uid_both_must_be_there(journey: Journey, peer: Peer) -> None:
    first = stored(journey)
    changed = journeys.datasets()[:1]
    changed[0].PixelData = bytes(len(changed[0].PixelData))
    (side,) = journey.store(changed, association="a2")
    assert side.conflicting
    journey.receive([side])

    commitment_answers.answer(clerk(journey, peer), ask(journey, first))
    (journey.storage / "spool" / side.path).unlink()
    again = ask(journey, first, at=LONG_AGO)
    commitment_answers.answer(clerk(journey, peer), again)

    assert [len(told.committed) for told in peer.told] == [6, 5]


def test_rows_may_come_a_little_later_than_the_request(journey: Journey, peer: Peer) -> None:
    files = stored(journey, rows=False)
    request_id = ask(journey, files)

    commitment_answers.answer(clerk(journey, peer), request_id)

    assert peer.told == []
    assert request(journey).next_attempt_at == request(journey).received_at + GRACE
    journey.receive(files)
    due(journey, request_id)
    commitment_answers.answer(clerk(journey, peer), request_id)
    assert len(peer.told[0].committed) == 6


def test_a_peer_that_is_away_is_told_later(journey: Journey, peer: Peer) -> None:
    peer.answers = [SendError("nobody there"), 0x0213, 0x0000]
    request_id = ask(journey, stored(journey))
    at = clerk(journey, peer)

    for waits in (30, 60):
        began = datetime.now(UTC)
        commitment_answers.answer(at, request_id)
        row = request(journey)
        assert row.state == "pending"
        assert row.next_attempt_at is not None
        assert waits - 1 <= (row.next_attempt_at - began).total_seconds() <= waits + 10
        commitment_answers.answer(at, request_id)
        due(journey, request_id)
    commitment_answers.answer(at, request_id)

    assert request(journey).state == "answered"
    assert len(peer.told) == 3


def test_after_three_days_it_is_given_up(journey: Journey, peer: Peer) -> None:
    peer.answers = [SendError("nobody there")]
    request_id = ask(journey, stored(journey), at=datetime.now(UTC) - timedelta(hours=73))

    commitment_answers.answer(clerk(journey, peer), request_id)

    assert request(journey).state == "dead"
    (event,) = [each for each in journey.rows(models.Event) if each.kind == "commitment-unanswered"]
    assert event.message == "pacs asked for storage commitment and could not be told: nobody there"


def test_a_peer_that_refuses_the_report_is_not_told_again(journey: Journey, peer: Peer) -> None:
    peer.answers = [0x0112]
    request_id = ask(journey, stored(journey))

    commitment_answers.answer(clerk(journey, peer), request_id)

    assert (request(journey).state, request(journey).comment) == ("dead", "it refused our report: 0x0112")


@pytest.mark.parametrize(
    "destinations", [{}, {"pacs": replace(PACS, ae_title="*")}, {"pacs": replace(PACS, ae_title="")}]
)
def test_whoever_cannot_be_called_is_told_on_its_own_association_or_not_at_all(
    journey: Journey, peer: Peer, destinations: dict[str, Destination]
) -> None:
    request_id = ask(journey, stored(journey))

    commitment_answers.answer(clerk(journey, peer, destinations=destinations), request_id)

    assert peer.told == []
    assert request(journey).state == "dead"
    assert "peers.pacs.ae_title" in request(journey).comment


def test_a_sender_that_dies_before_or_after_it_told_leaves_it_to_the_next(
    journey: Journey, peer: Peer
) -> None:
    request_id = ask(journey, stored(journey))
    peer.answers = [Crash()]

    journey.die(lambda: commitment_answers.answer(clerk(journey, peer), request_id))

    # Its lease holds until somebody knows that it is dead.
    commitment_answers.answer(clerk(journey, peer), request_id)
    assert len(peer.told) == 1
    with journey.database.write() as session:
        assert commitment_requests.free_orphans(session) == 1
    commitment_answers.answer(clerk(journey, peer), request_id)
    assert request(journey).state == "answered"
    assert len(peer.told) == 2
    assert peer.told[0] == peer.told[1]


def test_who_lost_the_request_meanwhile_writes_nothing(journey: Journey, peer: Peer) -> None:
    """Its peer asked again while it was being told: that request is another's to answer."""
    files = stored(journey)
    request_id = ask(journey, files)
    at = clerk(journey, peer)

    def interrupted(destination: Destination, said: CommitmentReport) -> int:
        ask(journey, files, lease_owner="listener", lease_until=datetime.now(UTC) + GRACE)
        return peer.report(destination, said)

    commitment_answers.answer(replace(at, report=interrupted), request_id)

    assert request(journey).state == "pending"
    assert request(journey).lease_owner == "listener"


def test_purged_images_are_denied(journey: Journey, peer: Peer) -> None:
    files = stored(journey)
    with journey.database.write() as session:
        session.execute(models.Instance.__table__.delete())  # type: ignore[attr-defined]

    commitment_answers.answer(clerk(journey, peer), ask(journey, files, at=LONG_AGO))

    assert reasons(peer.told[0]) == [FailureReason.NO_SUCH_INSTANCE] * 6
