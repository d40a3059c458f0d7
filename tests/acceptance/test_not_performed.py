"""A series with a gap: the PACS is told that the AI was not performed, and what comes later says so, too."""

from __future__ import annotations

import subprocess
from io import BytesIO
from pathlib import Path

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.acceptance import installation
from tests.acceptance.installation import until
from tests.support import peers, phantoms
from tests.support.orthanc import Orthanc

pytestmark = [pytest.mark.peer("dcmtk"), pytest.mark.peer("orthanc"), pytest.mark.peer("dicom3tools")]


def test_a_gap_is_announced_and_the_late_image_answered(pacs: Orthanc, tmp_path: Path) -> None:
    # Given a PACS whose viewer shows pictures only, and a route that announces
    pacs_as_peer = {"name": "pacs", "ae_title": pacs.ae_title, "host": "127.0.0.1", "port": pacs.dicom_port}
    scanner = {"name": "ct scanner", "ae_title": installation.SCANNER, "host": "127.0.0.1"}
    route = {"name": "chest ct", "when": {"Modality": "CT"}, "run": ["chest-ct"], "send_to": ["pacs"]}
    made = installation.configure(
        tmp_path / "node",
        peers=[scanner, pacs_as_peer | {"profile": "plain-pacs"}],
        routes=[route | {"announce_failures": True}],
    )
    images = phantoms.datasets(phantoms.Phantom(patient_id="GAP-1", patient_name="Missing^Mona"))
    files = phantoms.write(images, tmp_path / "images")
    uid = str(images[0].StudyInstanceUID)
    with installation.running(made) as node:
        # When a series arrives without one of its images
        assert node.dcmsend(*files[:4], *files[5:]).returncode == 0
        # Then the PACS is told, though there is no answer
        [said] = until(lambda: held(pacs, uid, "AI not performed"), "the PACS to be told")
        assert said.PatientID == "GAP-1"
        [job] = node.done(uid)["jobs"]
        assert (job["state"], job["reason"]) == ("failed", "missing-slice")
        assert [(one["kind"], one["state"]) for one in job["deliveries"]] == [("not-performed", "sent")]
        assert "NOT-PERFORMED" in node.run("why", uid).stdout
        # And when the image comes late, the answer has the forms that the viewer shows, and names what was said
        assert node.dcmsend(files[4]).returncode == 0
        [report] = until(lambda: held(pacs, uid, "AI unverified"), "the report", seconds=120)[:1]
        kinds = {one["kind"] for job in node.done(uid)["jobs"] for one in job["objects"]}
        assert {"not-performed", "sr", "pdf"} <= kinds and "seg" not in kinds
        [series] = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
        assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == said.SOPInstanceUID
    for number, ds in enumerate((said, report)):
        path = tmp_path / f"{number}.dcm"
        ds.save_as(path)
        verdict = subprocess.run(
            [peers.path("dciodvfy"), "-new", path], capture_output=True, text=True, check=False
        )
        assert "Error" not in verdict.stderr + verdict.stdout


def held(pacs: Orthanc, study: str, start: str) -> list[Dataset]:
    """The reports on a study in the PACS whose Series Description begins so."""
    files = (dcmread(BytesIO(pacs.file(uid))) for uid in pacs.instances())
    reports = [ds for ds in files if ds.Modality == "SR" and ds.StudyInstanceUID == study]
    return [ds for ds in reports if ds.SeriesDescription.startswith(start)]
