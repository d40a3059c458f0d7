"""When a study is complete, at a real installation: by its sender's count, by parts, and across a crash."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid
from pynetdicom import evt
from pynetdicom.sop_class import (
    CTImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from dicom_node.senders import Outcome, open_sender
from tests.acceptance import installation
from tests.acceptance.installation import SCANNER, Installation, until
from tests.support import orthanc as orthanc_support
from tests.support import phantoms
from tests.support.entity import Entity
from tests.support.orthanc import Orthanc
from tests.support.phantoms import Phantom

pytestmark = [pytest.mark.peer("dcmtk"), pytest.mark.peer("orthanc")]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A PACS that sends to us, says how many images it has, and takes the results."""
    settings = {"DicomAlwaysAllowFind": True}
    with orthanc_support.running(tmp_path_factory.mktemp("archive"), settings=settings) as running:
        yield running


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory, archive: Orthanc) -> Iterator[Installation]:
    """`secondread up` that asks the PACS; a study is waited for long, so that a short wait is no accident."""
    pacs = {"name": "pacs", "ae_title": archive.ae_title, "host": "127.0.0.1", "port": archive.dicom_port}
    made = installation.configure(
        tmp_path_factory.mktemp("evidence"),
        archive,
        node={"long_quiet_seconds": 600},
        peers=[{"name": "ct scanner", "ae_title": SCANNER, "host": "127.0.0.1"}, {**pacs, "count": "cfind"}],
    )
    with installation.running(made) as running:
        yield running


@contextmanager
def _sending(node: Installation, made: Sequence[Dataset], calling: str) -> Iterator[Any]:
    """Send images, and hold the association open while the block runs."""
    ae = Entity(ae_title=calling)
    ae.add_requested_context(CTImageStorage, ExplicitVRLittleEndian)
    ae.add_requested_context(StorageCommitmentPushModel, ExplicitVRLittleEndian)
    reported = [(evt.EVT_N_EVENT_REPORT, lambda event: (0x0000, None))]
    association = ae.associate("127.0.0.1", node.dicom_port, ae_title="SECONDREAD", evt_handlers=reported)
    assert association.is_established
    try:
        for ds in made:
            node.tokens |= {str(ds.PatientID)}
            assert association.send_c_store(ds).Status == 0x0000
        yield association
    finally:
        if association.is_established:
            association.release()


def _ask_to_commit(association: Any, made: Sequence[Dataset]) -> None:
    """Storage commitment for these images (PS3.4 J.3.2)."""
    request = Dataset()
    request.TransactionUID = generate_uid()
    request.ReferencedSOPSequence = [Dataset() for _ in made]
    for item, ds in zip(request.ReferencedSOPSequence, made, strict=True):
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    status, _ = association.send_n_action(
        request, 1, StorageCommitmentPushModel, StorageCommitmentPushModelInstance
    )
    assert status.Status == 0x0000


def _why(node: Installation, uid: str) -> str:
    said = node.run("why", uid)
    assert said.returncode == 0, said.stderr
    return " ".join(said.stdout.split())


def _results(archive: Orthanc, uid: str) -> list[str]:
    """SOP Instance UIDs of the SEG and SR objects that the PACS holds of a study."""
    found: list[dict[str, Any]] = []
    for modality in ("SEG", "SR"):
        wanted = {"StudyInstanceUID": uid, "Modality": modality}
        body = {"Level": "Instance", "Expand": True, "Query": wanted}
        found += archive.rest("/tools/find", method="POST", body=body)
    return sorted(each["MainDicomTags"]["SOPInstanceUID"] for each in found)


def test_a_pacs_that_keeps_its_association_open_is_asked_how_many_images_it_has(
    node: Installation, archive: Orthanc, tmp_path: Path
) -> None:
    made = phantoms.datasets(Phantom(patient_id="EVIDENCE-COUNT-1"))
    said: list[Outcome] = []
    open_sender(archive.destination()).send(phantoms.write(made, tmp_path), said.append)
    uid = str(made[0].StudyInstanceUID)
    with _sending(node, made, archive.ae_title):
        why = node.done(uid, seconds=90)
        assert why["evidence"]["signal"] == "count of the sender"
        assert (why["evidence"]["counted"], why["evidence"]["counted_by"]) == (12, "pacs (C-FIND)")
        assert [one["outcome"] for one in why["evidence"]["associations"]] == ["open"]
    assert "count of the sender" in _why(node, uid)
    assert "pacs (C-FIND) has 12, 12 arrived" in _why(node, uid)
    assert len(_results(archive, uid)) == 2


def test_a_modality_that_asks_for_commitment_has_sent_all(node: Installation) -> None:
    made = phantoms.datasets(Phantom(patient_id="EVIDENCE-COMMIT-1"))
    with _sending(node, made, SCANNER) as association:
        _ask_to_commit(association, made)
        why = node.done(str(made[0].StudyInstanceUID), seconds=90)
    assert (why["evidence"]["signal"], why["evidence"]["named"]) == ("storage commitment request", 12)
    assert [one["outcome"] for one in why["evidence"]["associations"]] == ["open"]


def test_a_series_is_analysed_while_its_study_arrives_and_once_whatever_dies(
    node: Installation, archive: Orthanc, tmp_path: Path
) -> None:
    # Given a series on an association of its own, and another that still arrives
    uid = generate_uid()
    first, second = (
        phantoms.datasets(
            Phantom(patient_id="EVIDENCE-SERIES-1", study_uid=uid, series_uid=f"{uid[:60]}.{n}")
        )
        for n in (1, 2)
    )
    assert node.dcmsend(*phantoms.write(first, tmp_path / "first")).returncode == 0
    with _sending(node, second[:5], SCANNER):
        # When its own job has ended, the study has not
        def early() -> dict[str, Any]:
            found = node.why(uid)
            return found if [job["state"] for job in found.get("jobs", [])] == ["done"] else {}

        why = until(early, "the first series' job to be done", seconds=90)
        assert why["study"]["state"] == "receiving"
        assert "the association of ct scanner" in why["waiting_for"][0]
        # By UID: which of two listeners wrote its rows first is chance
        complete = {one["series_instance_uid"]: one["evidence"] is not None for one in why["series"]}
        assert complete == {first[0].SeriesInstanceUID: True, second[0].SeriesInstanceUID: False}
        assert "complete before its study: associations released" in _why(node, uid)
        # And everything dies before the study is closed
        node.kill()
    node.start()
    # When its sender comes again, and says that this was all
    with _sending(node, second, SCANNER) as association:
        _ask_to_commit(association, [*first, *second])
        # Then the rest is made, and nothing twice
        why = node.done(uid, seconds=120)
    assert why["evidence"]["named"] == 24
    assert [job["state"] for job in why["jobs"]] == ["done", "done"]
    assert len({job["series_instance_uid"] for job in why["jobs"]}) == 2
    assert len(why["decisions"]) == 2
    assert why["study"]["revision"] == 1, _why(node, uid)
    made = sorted(one["sop_instance_uid"] for job in why["jobs"] for one in job["objects"])
    assert _results(archive, uid) == made
    assert len(made) == 4
