"""The demo and the commands of a newcomer, each as a process of its own."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pydicom
import pytest
from PIL import Image

from tests.acceptance import installation
from tests.acceptance.conftest import Answer
from tests.acceptance.installation import DEMO_CT, Installation, command, free_ports
from tests.support import phantoms
from tests.support.orthanc import Orthanc
from tests.support.phantoms import Phantom

pytestmark = [pytest.mark.peer("dcmtk"), pytest.mark.peer("orthanc")]


def words(text: str) -> str:
    """Text without its line breaks."""
    return " ".join(text.split())


def test_the_demo_shows_the_main_job(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    demo = subprocess.Popen(
        command("demo"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=installation.environment(HOME=str(tmp_path / "home")),
    )
    try:
        said, complaints = demo.communicate(timeout=120)
    finally:
        if demo.poll() is None:
            installation.end(demo)
    assert demo.returncode == 0, said + complaints
    (folder,) = (tmp_path / "secondread-demo").iterdir()
    for line in ("Segmentation Storage", "Comprehensive 3D SR Storage", "Low attenuation area", "Left lung"):
        assert line in words(said)
    assert str(folder / "report.html") in said
    assert (folder / "report.html").stat().st_size > 1000
    pictures = sorted(path.name for path in (folder / "pictures").glob("*.png"))
    assert len(pictures) >= 5
    for name in pictures:
        with Image.open(folder / "pictures" / name) as picture:
            picture.load()
            assert max(picture.size) >= 256
    # Nothing is left running and nothing was written elsewhere
    assert [path for path in (tmp_path / "home").rglob("*") if path.is_file()] == []
    first = pydicom.dcmread(next(DEMO_CT.iterdir()), stop_before_pixels=True)
    assert str(first.PatientID) not in (folder / "up.log").read_text()
    assert "Traceback" not in (folder / "up.log").read_text()


def test_run_finds_what_the_routed_job_found(node: Installation, answer: Answer, tmp_path: Path) -> None:
    done = node.run("run", "chest-ct", DEMO_CT, "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    for line in (
        "Volume, Left lung:",
        "Low attenuation area below -950 HU, all together:",
        "SEG",
        "SR",
        "seconds:",
    ):
        assert line in done.stdout
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    assert {(one["key"], one["segment_label"]): one["value"] for one in found["measurements"]} == {
        (one["key"], one["segment"]): pytest.approx(one["value"]) for one in answer.job["measurements"]
    }
    written = {str(pydicom.dcmread(path).SOPClassUID) for path in (tmp_path / "out").rglob("*.dcm")}
    assert written == {one["sop_class_uid"] for one in answer.job["objects"]}
    assert len(list((tmp_path / "out").glob("*.png"))) >= 5


def test_run_says_why_it_takes_nothing(node: Installation, tmp_path: Path) -> None:
    phantoms.write(phantoms.datasets(Phantom(modality="MR")), tmp_path / "mr")
    done = node.run("run", "chest-ct", tmp_path / "mr", "--out", tmp_path / "out")
    assert done.returncode == 1
    assert "chest-ct takes none of these series" in done.stderr and "Modality" in done.stderr
    assert "Traceback" not in done.stderr


def test_routes_test(node: Installation) -> None:
    done = node.run("routes", "test", DEMO_CT)
    assert done.returncode == 0, done.stderr
    for line in ("1 series", "yes", "chest ct -> chest-ct", "Modality", "found 'CT'"):
        assert line in words(done.stdout)


def test_models_check(node: Installation) -> None:
    (verdict,) = node.ask("models", "check")
    assert (verdict["model"], verdict["agrees"]) == ("chest-ct", True)


def test_doctor_finds_all_well_and_a_peer_that_is_away(
    node: Installation, pacs: Orthanc, tmp_path: Path
) -> None:
    done = node.run("doctor")
    assert done.returncode == 0, done.stdout
    assert f"ORTHANC@127.0.0.1:{pacs.dicom_port}: answers in" in words(done.stdout)
    assert "BAD" not in done.stdout
    (nobody,) = free_ports(1)
    peer = {"name": "pacs", "ae_title": "GONE", "host": "127.0.0.1", "port": nobody}
    away = installation.configure(tmp_path, pacs, peers=[peer])
    done = away.run("doctor")
    assert done.returncode == 1
    assert "BAD" in done.stdout and "peer pacs" in done.stdout


def test_send_to_a_peer_and_to_nobody(node: Installation, pacs: Orthanc, tmp_path: Path) -> None:
    made = phantoms.datasets(Phantom(shape=(5, 32, 40), patient_id="SEND-1234"))
    phantoms.write(made, tmp_path / "files")
    done = node.run("send", tmp_path / "files", "pacs")
    assert (done.returncode, words(done.stdout)) == (0, "5 of 5 objects stored by pacs"), done.stderr
    assert {str(ds.SOPInstanceUID) for ds in made} <= set(pacs.instances())
    unknown = node.run("send", tmp_path / "files", "nobody")
    assert unknown.returncode == 2 and "no peer is called 'nobody'" in unknown.stderr
