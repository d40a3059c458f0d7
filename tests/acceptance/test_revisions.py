"""Late slices and corrected ones, sent by DCMTK: Orthanc gets one set of results for each, in one line."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.acceptance import installation
from tests.acceptance.installation import DEMO_CT, Installation, until
from tests.support import peers
from tests.support.orthanc import Orthanc

pytestmark = [pytest.mark.peer("dcmtk"), pytest.mark.peer("orthanc"), pytest.mark.peer("dicom3tools")]


@pytest.fixture
def last(tmp_path: Path, pacs: Orthanc) -> Iterator[Installation]:
    """`secondread up` that analyses the bytes that came last."""
    made = installation.configure(tmp_path / "node", pacs, node={"conflicts": "keep-last"})
    with installation.running(made) as running:
        yield running


def copy(folder: Path) -> tuple[str, list[Path]]:
    """The demo CT as a study of its own, slice by slice."""
    study, series = generate_uid(), generate_uid()
    made = sorted(
        (pydicom.dcmread(path) for path in DEMO_CT.iterdir()),
        key=lambda ds: float(ds.ImagePositionPatient[2]),
    )
    folder.mkdir()
    for number, ds in enumerate(made):
        ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study, series, generate_uid()
        ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
        ds.save_as(folder / f"{number:03}.dcm")
    return str(study), sorted(folder.iterdir())


def sets(pacs: Orthanc, why: dict[str, Any]) -> list[dict[str, Dataset]]:
    """By job and kind, the objects that it made, as Orthanc has them."""
    return [
        {
            made["kind"]: pydicom.dcmread(BytesIO(pacs.file(made["sop_instance_uid"])))
            for made in job["objects"]
        }
        for job in why["jobs"]
    ]


def in_pacs(pacs: Orthanc, study: str) -> int:
    """How many instances of a study Orthanc has."""
    found = [
        each for each in pacs.rest("/studies?expand") if each["MainDicomTags"]["StudyInstanceUID"] == study
    ]
    return sum(len(pacs.rest(f"/studies/{each['ID']}/instances")) for each in found)


def predecessor(report: Dataset) -> str:
    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    return str(instance.ReferencedSOPInstanceUID)


def send(node: Installation, study: str, files: list[Path], *, revision: int) -> dict[str, Any]:
    """Send files and wait until this revision of their study is done."""
    sent = node.dcmsend(*files)
    assert sent.returncode == 0, sent.stderr

    def ended() -> dict[str, Any]:
        answer = node.why(study)
        there = answer and (answer["study"]["revision"], answer["study"]["state"]) == (revision, "done")
        return answer if there else {}

    found: dict[str, Any] = until(ended, f"revision {revision} of the study", seconds=180)
    return found


def test_late_and_corrected_slices_are_answered_anew(
    last: Installation, pacs: Orthanc, tmp_path: Path
) -> None:
    study, files = copy(tmp_path / "ct")
    last.note(*files)
    # When most of the study comes, then its last slices, then one of them with other pixels
    send(last, study, files[:45], revision=1)
    send(last, study, files[45:], revision=2)
    corrected = pydicom.dcmread(files[20])
    corrected.PixelData = pydicom.dcmread(files[0]).PixelData
    corrected.save_as(files[20])
    why = send(last, study, [files[20]], revision=3)
    # Then Orthanc has three sets, of which each names the one before
    jobs = why["jobs"]
    assert [job["state"] for job in jobs] == ["done"] * 3
    assert [job["supersedes"] for job in jobs] == [None, jobs[0]["id"], jobs[1]["id"]]
    assert in_pacs(pacs, study) == 6
    first, second, third = sets(pacs, why)
    assert "PredecessorDocumentsSequence" not in first["sr"]
    assert predecessor(second["sr"]) == first["sr"].SOPInstanceUID
    assert predecessor(third["sr"]) == second["sr"].SOPInstanceUID
    for kind in ("seg", "sr"):
        assert first[kind].SeriesDescription.startswith("AI unverified (research)")
        assert second[kind].SeriesDescription.startswith("AI rev 2 unverified (research, replaces rev 1)")
        assert third[kind].SeriesDescription.startswith("AI rev 3 unverified (research, replaces rev 2)")
    # The corrected slice was analysed: everything else is as it was
    assert second["seg"].PixelData != third["seg"].PixelData
    path = tmp_path / "third.dcm"
    for each in third.values():
        each.save_as(path)
        said = subprocess.run(
            [peers.path("dciodvfy"), "-new", path], capture_output=True, text=True, check=False
        )
        assert "Error" not in said.stdout + said.stderr
    # And what came again as it was starts nothing
    assert last.dcmsend(files[20], files[3]).returncode == 0
    until(lambda: last.why(study)["series"][0]["repeated"] == 2, "the repeated images to be counted")
    after = last.why(study)
    assert (after["study"]["revision"], after["series"][0]["set_aside"], len(after["jobs"])) == (3, 1, 3)
    assert in_pacs(pacs, study) == 6
    # Whoever asks gets the newest answer
    told = [line for line in last.get("/api/findings") if line["study_instance_uid"] == study]
    assert told and {(line["job_id"], line["revision"], line["current"]) for line in told} == {
        (jobs[2]["id"], 3, True)
    }
    said = last.run("why", study)
    assert f"replaces job {jobs[1]['id']}" in said.stdout and "came again as they were: 2" in said.stdout
