"""A real Orthanc is asked to keep what it was sent, and reports to our listener on an association of its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from pydicom.uid import generate_uid

from dicom_node.commitment import CommitmentAsk, Failure, FailureReason, Reference
from dicom_node.commitment_events import (
    CommitmentAsked,
    CommitmentReported,
    CommitmentTurnedAway,
    OpenLine,
)
from dicom_node.listener_config import KnownPeer
from dicom_node.senders import commitment, open_sender
from dicom_node.senders.files import identify
from tests.support import phantoms
from tests.support.listening import listening, until
from tests.support.orthanc import Orthanc

pytestmark = pytest.mark.peer("orthanc")


@dataclass
class Desk:
    """Keeps the reports that come."""

    reports: list[CommitmentReported] = field(default_factory=list)

    def asked(self, asked: CommitmentAsked, line: OpenLine) -> None:
        raise AssertionError("nobody asks us here")

    def reported(self, reported: CommitmentReported) -> None:
        self.reports.append(reported)

    def turned_away(self, refused: CommitmentTurnedAway) -> None:
        raise AssertionError(refused.reason)


@pytest.fixture
def desk(orthanc: Orthanc, tmp_path: Path) -> Iterator[Desk]:
    """A listener that Orthanc knows, and who takes its reports."""
    made = Desk()
    known = KnownPeer(name="orthanc", ae_title=orthanc.ae_title, host="127.0.0.1")
    with listening(tmp_path / "spool", commitments=made, peers=(known,)) as listener:
        orthanc.add_modality("secondread", ae_title="SECONDREAD", port=listener.port)
        yield made


@pytest.fixture
def references(orthanc: Orthanc, tmp_path: Path) -> tuple[Reference, ...]:
    """Images that Orthanc was sent."""
    made = phantoms.write(phantoms.datasets(phantoms.Phantom(shape=(4, 16, 16))), tmp_path / "images")
    open_sender(orthanc.destination()).send(made, lambda outcome: None)
    files = [identify(path) for path in made]
    return tuple(
        Reference(sop_class_uid=file.sop_class_uid, sop_instance_uid=file.sop_instance_uid) for file in files
    )


def asking(references: tuple[Reference, ...]) -> CommitmentAsk:
    return CommitmentAsk(transaction_uid=str(generate_uid(prefix=None)), references=references)


def ask(orthanc: Orthanc, desk: Desk, request: CommitmentAsk) -> CommitmentReported:
    """Ask, and wait for what comes to the listener."""

    def refuse(report: object) -> None:
        raise AssertionError("Orthanc reports on an association of its own")

    commitment.ask(orthanc.destination(), request, on_report=refuse, wait_seconds=0.5)
    until(lambda: bool(desk.reports), "Orthanc's report")
    return desk.reports[-1]


def test_it_commits_to_what_it_has(orthanc: Orthanc, desk: Desk, references: tuple[Reference, ...]) -> None:
    request = asking(references)
    reported = ask(orthanc, desk, request)
    assert reported.report.transaction_uid == request.transaction_uid
    assert set(reported.report.committed) == set(references)
    assert reported.report.failed == ()
    assert reported.caller.calling_ae_title.strip() == orthanc.ae_title


def test_it_says_what_it_does_not_have(
    orthanc: Orthanc, desk: Desk, references: tuple[Reference, ...]
) -> None:
    gone = references[1]
    orthanc.rest(f"/instances/{orthanc.instances()[gone.sop_instance_uid]}", method="DELETE")
    reported = ask(orthanc, desk, asking(references))
    assert set(reported.report.committed) == {*references} - {gone}
    assert reported.report.failed == (Failure(reference=gone, reason=FailureReason.NO_SUCH_INSTANCE),)


def test_it_can_be_asked_before_the_first_result(orthanc: Orthanc) -> None:
    assert commitment.check(orthanc.destination()) == ""
    assert "rejected the association" in commitment.check(orthanc.destination(ae_title="NOT-IT"))
