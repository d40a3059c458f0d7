"""Storage commitment asked for on the wire: of peers that keep their word, and of others."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from pydicom.uid import generate_uid

from dicom_node import errors
from dicom_node.commitment import CommitmentAsk, CommitmentReport, Failure, FailureReason, Reference
from dicom_node.senders import Destination, Verdict, commitment
from tests.support import committing, pacs
from tests.support.committing import Committer

SEG = "1.2.840.10008.5.1.4.1.1.66.4"


def asking(*uids: str) -> CommitmentAsk:
    """A request about these instances."""
    references = tuple(
        Reference(sop_class_uid=SEG, sop_instance_uid=uid) for uid in uids or ("1.2.3", "1.2.4")
    )
    return CommitmentAsk(transaction_uid=str(generate_uid(prefix=None)), references=references)


def keeping(ask: CommitmentAsk) -> dict[str, int]:
    """Nothing fails."""
    return {}


def ask(
    destination: Destination, request: CommitmentAsk, *, wait_seconds: float = 5.0, **how: Any
) -> list[CommitmentReport]:
    """Ask; the reports that came on the same association."""
    reports: list[CommitmentReport] = []
    how = {"on_report": reports.append, **how}
    commitment.ask(destination, request, wait_seconds=wait_seconds, **how)
    assert pacs.wait_until(lambda: not pacs.network_threads())
    return reports


def test_a_report_on_the_same_association_is_taken_and_answered() -> None:
    committer, request = Committer(failing=keeping), asking()
    with committing.running(committer) as peer:
        (report,) = ask(peer.destination(), request)
    # Then it says what the peer said, and the peer knows that it was heard
    assert committer.asks == [request]
    assert report == CommitmentReport(
        transaction_uid=request.transaction_uid, committed=request.references, failed=()
    )
    assert committer.answers == [0x0000]
    assert (peer.released, peer.aborted) == (1, 0)


def test_a_report_names_what_failed_and_why() -> None:
    request = asking("1.2.3", "1.2.4")
    committer = Committer(failing=lambda ask: {"1.2.4": 0x0112})
    with committing.running(committer) as peer:
        (report,) = ask(peer.destination(), request)
    assert report.committed == request.references[:1]
    assert report.failed == (Failure(reference=request.references[1], reason=0x0112),)


def test_a_report_may_overtake_the_answer_to_the_request() -> None:
    committer = Committer(way="before", failing=keeping)
    with committing.running(committer) as peer:
        assert len(ask(peer.destination(), asking())) == 1
    assert committer.answers == [0x0000]


def test_no_answer_is_stolen_and_no_thread_hangs_however_often_one_asks() -> None:
    # Given a report that comes at once: while our answer goes out, we already want to release
    committer = Committer(failing=keeping)
    with committing.running(committer, maximum_associations=50) as peer:
        for _ in range(40):
            assert len(ask(peer.destination(timeout_seconds=30.0), asking())) >= 1
        assert pacs.wait_until(lambda: peer.released == 40)
    assert peer.aborted == 0


def test_a_peer_that_repeats_itself_while_we_take_our_leave_holds_nobody_up() -> None:
    # Given a pynetdicom peer that waits for the answer to its second report and not for our release
    committer = Committer(failing=keeping, times=2)
    with committing.running(committer) as peer:
        began = time.monotonic()
        assert len(ask(peer.destination(), asking())) >= 1
        assert time.monotonic() - began < 15


def test_the_peer_hears_success_only_once_the_report_is_written_down() -> None:
    written = threading.Event()

    def write(report: CommitmentReport) -> None:
        time.sleep(0.5)
        assert committer.answers == []
        written.set()

    committer = Committer(failing=keeping)
    with committing.running(committer) as peer:
        ask(peer.destination(), asking(), on_report=write)
        assert written.is_set()
        assert pacs.wait_until(lambda: committer.answers == [0x0000])


@pytest.mark.parametrize(
    ("raised", "status"), [(errors.CommitmentError("not ours"), 0x0115), (OSError("disk"), 0x0213)]
)
def test_a_report_that_cannot_be_taken_is_answered_so(raised: Exception, status: int) -> None:
    def refuse(report: CommitmentReport) -> None:
        raise raised

    committer = Committer(failing=keeping)
    with committing.running(committer) as peer:
        ask(peer.destination(), asking(), on_report=refuse, wait_seconds=1.0)
        assert pacs.wait_until(lambda: committer.answers == [status])


def test_without_a_report_the_wait_ends_and_the_peer_may_report_later() -> None:
    committer = Committer(way="never")
    with committing.running(committer) as peer:
        began = time.monotonic()
        assert ask(peer.destination(), asking(), wait_seconds=0.5) == []
        assert 0.5 <= time.monotonic() - began < 15
        assert pacs.wait_until(lambda: peer.released == 1)


def test_the_wait_ends_as_soon_as_it_is_over() -> None:
    committer = Committer(way="never")
    with committing.running(committer) as peer:
        began = time.monotonic()
        ask(peer.destination(), asking(), wait_seconds=30.0, is_over=lambda: len(committer.asks) == 1)
        assert time.monotonic() - began < 10


def test_a_report_about_another_transaction_does_not_end_the_wait() -> None:
    # Given a peer that catches up on an earlier request first
    earlier = asking("1.9")
    committer = Committer(
        report=lambda ask: CommitmentReport(
            transaction_uid=earlier.transaction_uid, committed=earlier.references, failed=()
        )
    )
    with committing.running(committer) as peer:
        (report,) = ask(peer.destination(), asking(), wait_seconds=1.0)
    assert report.transaction_uid == earlier.transaction_uid


@pytest.mark.parametrize("status", sorted(commitment.REFUSALS))
def test_a_request_that_is_refused_for_good_says_what_to_change(status: int) -> None:
    committer = Committer(status=status, words="ask somebody else")
    with (
        committing.running(committer) as peer,
        pytest.raises(errors.CommitmentRefused, match=f"0x{status:04X}.*somebody else.*commitment: true"),
    ):
        ask(peer.destination(), asking())


@pytest.mark.parametrize("status", [0x0110, 0x0131, 0x0210, 0x0213, 0xA700, 0xC001])
def test_a_request_that_is_not_taken_now_may_be_taken_later(status: int) -> None:
    with (
        committing.running(Committer(status=status)) as peer,
        pytest.raises(errors.SendError, match=f"now: 0x{status:04X}") as raised,
    ):
        ask(peer.destination(), asking())
    assert not isinstance(raised.value, errors.CommitmentRefused)


def test_a_peer_without_storage_commitment_refuses_for_good() -> None:
    with pacs.running() as peer, pytest.raises(errors.CommitmentRefused, match="takes no storage commitment"):
        ask(peer.destination(), asking())


def test_an_abort_in_place_of_an_answer_is_known_at_once() -> None:
    committer = Committer(before=lambda event: event.assoc.abort(), way="never")
    began = time.monotonic()
    with committing.running(committer) as peer, pytest.raises(errors.SendError, match="instead of answering"):
        ask(peer.destination(timeout_seconds=30.0), asking())
    assert time.monotonic() - began < 10


def test_an_abort_after_the_answer_ends_the_wait_and_nothing_else() -> None:
    # Given a peer that takes the request and is gone; it has it, and may report later
    def abort_soon(event: Any) -> None:
        threading.Timer(0.3, event.assoc.abort).start()

    committer = Committer(before=abort_soon, way="never")
    with committing.running(committer) as peer:
        began = time.monotonic()
        assert ask(peer.destination(), asking(), wait_seconds=30.0) == []
        assert time.monotonic() - began < 10


def test_a_peer_that_never_answers_the_request_is_left_in_time() -> None:
    committer = Committer(before=lambda event: time.sleep(3), way="never")
    with (
        committing.running(committer) as peer,
        pytest.raises(errors.SendError, match="did not answer the request within 1 s"),
    ):
        ask(peer.destination(timeout_seconds=1.0), asking())


def test_nobody_there_is_unreachable() -> None:
    with pacs.running() as peer:
        gone = peer.destination()
    with pytest.raises(errors.Unreachable):
        ask(gone, asking())


@pytest.mark.parametrize(
    ("reason", "verdict"),
    [
        (FailureReason.NO_SUCH_INSTANCE, Verdict.RETRY),
        (FailureReason.PROCESSING_FAILURE, Verdict.RETRY),
        (FailureReason.RESOURCE_LIMITATION, Verdict.RETRY),
        (FailureReason.DUPLICATE_TRANSACTION, Verdict.RETRY),
        (FailureReason.CLASS_NOT_SUPPORTED, Verdict.REFUSED),
        (FailureReason.CLASS_INSTANCE_CONFLICT, Verdict.REFUSED),
        (0x9999, Verdict.RETRY),
    ],
)
def test_each_failure_reason_has_its_verdict(reason: int, verdict: Verdict) -> None:
    found, words = commitment.failure(reason)
    assert found is verdict
    assert words.startswith(f"0x{reason:04X} ")


def test_the_table_of_failures_has_every_reason_of_the_standard() -> None:
    assert set(commitment.FAILURES) == set(FailureReason)
