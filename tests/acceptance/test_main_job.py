"""The main job on a real CT, between programs that others wrote."""

from __future__ import annotations

import csv
import gzip
import io
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from tests.acceptance.conftest import Answer
from tests.acceptance.installation import DEMO_CT, Installation, until
from tests.support import peers, phantoms
from tests.support.orthanc import Orthanc

pytestmark = [pytest.mark.peer("dcmtk"), pytest.mark.peer("orthanc")]

SEGMENTATION = "1.2.840.10008.5.1.4.1.1.66.4"
COMPREHENSIVE_3D_SR = "1.2.840.10008.5.1.4.1.1.88.34"
LABELS = {1: "Left lung", 2: "Right lung", 3: "Body without lungs"}
#: The validator's style sheet exceeds the limits that newer Java has on XPath expressions.
_JAVA = "-Djdk.xml.xpathExprOpLimit=0 -Djdk.xml.xpathTotalOpLimit=0 -Djdk.xml.xpathExprGrpLimit=0"


def run(program: str, *arguments: str | Path) -> str:
    """What a program says, on either stream."""
    done = subprocess.run(
        [peers.path(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=120,
        check=False,
        env={**os.environ, "JAVA_TOOL_OPTIONS": _JAVA},
    )
    return done.stdout + done.stderr


def test_orthanc_lists_segmentation_and_report(answer: Answer, pacs: Orthanc) -> None:
    (study,) = [
        each
        for each in pacs.rest("/studies?expand")
        if each["MainDicomTags"]["StudyInstanceUID"] == answer.uid
    ]
    series = [pacs.rest(f"/series/{identifier}") for identifier in study["Series"]]
    assert sorted(each["MainDicomTags"]["Modality"] for each in series) == ["SEG", "SR"]
    # Under the patient and study that they are of
    first = pydicom.dcmread(next(DEMO_CT.iterdir()), stop_before_pixels=True)
    assert study["PatientMainDicomTags"]["PatientID"] == first.PatientID
    assert {pydicom.dcmread(path).SOPClassUID for path in answer.files.values()} == {
        SEGMENTATION,
        COMPREHENSIVE_3D_SR,
    }
    assert {one["state"] for one in answer.job["deliveries"]} == {"sent"}
    assert {segment["number"]: segment["label"] for segment in answer.job["segments"]} == LABELS


@pytest.mark.peer("dicom3tools")
@pytest.mark.parametrize(("kind", "iod"), [("seg", "Segmentation"), ("sr", "Comprehensive3DSR")])
def test_dciodvfy_finds_no_error(answer: Answer, kind: str, iod: str) -> None:
    said = run("dciodvfy", "-new", answer.files[kind])
    assert iod in said
    assert "Error" not in said, said


@pytest.mark.peer("pixelmed")
def test_the_report_fits_its_template(answer: Answer) -> None:
    said = run("DicomSRValidator", answer.files["sr"])
    assert "Found Root Template TID_1500" in said
    assert "IOD validation complete" in said
    assert "Error" not in said, said


@pytest.mark.peer("dcmqi")
def test_dcmqi_counts_the_stored_voxels_and_the_left_lung_is_on_the_left(
    answer: Answer, tmp_path: Path
) -> None:
    run(
        "segimage2itkimage",
        *("--inputDICOM", answer.files["seg"]),
        *("--outputDirectory", tmp_path, "--outputType", "nrrd"),
    )
    read = {number: read_nrrd(tmp_path / f"{number}.nrrd") for number in LABELS}
    counted = {number: voxels for number, (voxels, _) in read.items()}
    assert counted == {segment["number"]: segment["voxels"] for segment in answer.job["segments"]}
    assert min(counted.values()) > 100_000
    # The patient's left is +x (PS3.3 C.7.6.2.1.1), whichever way the patient lay
    assert read[1][1][0] - read[2][1][0] > 100


def read_nrrd(path: Path) -> tuple[int, NDArray[np.float64]]:
    """How many voxels are not zero, and their centre in the patient (LPS, mm)."""
    head, _, data = path.read_bytes().partition(b"\n\n")
    fields = dict(line.split(": ", 1) for line in head.decode().splitlines() if ": " in line)
    assert fields["space"] == "left-posterior-superior"
    raw = gzip.decompress(data) if fields["encoding"] == "gzip" else data
    kind = {"unsigned char": np.uint8, "short": np.int16, "unsigned short": np.uint16}[fields["type"]]
    sizes = [int(size) for size in fields["sizes"].split()]
    index = np.argwhere(np.frombuffer(raw, kind).reshape(sizes, order="F"))
    axes = np.array([vector(text) for text in fields["space directions"].split()])
    return len(index), index.mean(axis=0) @ axes + np.array(vector(fields["space origin"]))


def vector(text: str) -> list[float]:
    """An nrrd vector, e.g. "(1,0,0)"."""
    return [float(part) for part in text.strip("()").split(",")]


def test_every_way_to_ask_gives_the_same_answer(answer: Answer, node: Installation) -> None:
    # why and jobs show, by command and by API
    assert node.ask("why", answer.uid)["jobs"] == answer.why["jobs"]
    assert node.ask("jobs", "show", answer.job["id"]) == answer.job
    assert node.get(f"/api/jobs/{answer.job['id']}") == answer.job
    assert answer.why["evidence"]["signal"] == "associations released"
    assert answer.why["evidence"]["instances"] == 50
    # the measurements
    measured = {(one["key"], one["segment"]): one["value"] for one in answer.job["measurements"]}
    said = node.run("findings", "--code", "laa950", "--csv")
    assert said.returncode == 0, said.stderr
    lines = [
        row for row in csv.DictReader(io.StringIO(said.stdout)) if row["study_instance_uid"] == answer.uid
    ]
    assert {row["segment"] for row in lines} == {"Left lung", "Right lung", ""}
    assert {("laa950", row["segment"]): float(row["value"]) for row in lines} == {
        key: value for key, value in measured.items() if key[0] == "laa950"
    }
    total = measured["lung_volume", ""]
    assert 2000 < total < 6000
    assert total == pytest.approx(
        measured["lung_volume", "Left lung"] + measured["lung_volume", "Right lung"]
    )
    # the list and the metrics
    states = [line["state"] for line in node.get("/api/jobs?limit=500")]
    metrics = dict(line.rsplit(" ", 1) for line in node.get("/metrics").splitlines() if line[0] != "#")
    assert float(metrics['secondread_jobs{state="done"}']) == states.count("done") > 0
    (line,) = [one for one in node.get("/api/studies?limit=500") if one["study_instance_uid"] == answer.uid]
    assert (line["state"], line["instances"], line["jobs"]) == ("done", 50, {"done": 1})


def test_the_text_of_why_tells_the_story(answer: Answer, node: Installation) -> None:
    said = node.run("why", answer.uid)
    assert said.returncode == 0, said.stderr
    for words in (
        "50 images in 1 series",
        "complete: associations released",
        "Modality",
        "chest-ct",
        "to pacs: sent",
    ):
        assert words in said.stdout


def test_sending_it_again_makes_nothing_new(answer: Answer, node: Installation, pacs: Orthanc) -> None:
    before = set(pacs.instances())
    sent = node.dcmsend(DEMO_CT)
    assert sent.returncode == 0, sent.stderr
    again = "SELECT sum(duplicates) FROM instances JOIN series ON series.id = series_id JOIN studies ON studies.id = study_id"
    query = f"{again} WHERE study_instance_uid = '{answer.uid}'"
    until(lambda: node.rows(query) == [(50,)], "the images to be known as duplicates")
    time.sleep(2)  # the quiet time, and the sweep after it
    assert node.why(answer.uid)["jobs"] == answer.why["jobs"]
    assert set(pacs.instances()) == before


def test_orthanc_sends_and_gets_the_answer(node: Installation, pacs: Orthanc, tmp_path: Path) -> None:
    made = phantoms.datasets(phantoms.Phantom(patient_id="FROM-ORTHANC", patient_name="Sender^Orthanc"))
    files = phantoms.write(made, tmp_path)
    node.note(*files)
    run("dcmsend", "-aec", "ORTHANC", "127.0.0.1", str(pacs.dicom_port), *files)
    uid = str(made[0].StudyInstanceUID)
    (study,) = [
        each["ID"]
        for each in pacs.rest("/studies?expand")
        if each["MainDicomTags"]["StudyInstanceUID"] == uid
    ]
    pacs.rest("/modalities/secondread/store", method="POST", body={"Resources": [study], "Synchronous": True})
    why = node.done(uid)
    assert [job["state"] for job in why["jobs"]] == ["done"]
    assert [one["peer"] for one in why["evidence"]["associations"]] == ["pacs"]
    held = set(pacs.instances())
    assert {made["sop_instance_uid"] for made in why["jobs"][0]["objects"]} <= held
