"""Results go to a real Orthanc, by C-STORE and by STOW-RS, and are there afterwards."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import (
    Comprehensive3DSRStorage,
    ExplicitVRLittleEndian,
    SegmentationStorage,
)
from pynetdicom.sop_class import LabelMapSegmentationStorage

from dicom_node import echo, errors, results
from dicom_node.results import not_performed
from dicom_node.senders import Destination, Outcome, Verdict, open_sender
from dicom_node.senders.files import identify
from engines.findings import ModelIdentity
from tests.support import phantoms
from tests.support.orthanc import Orthanc, running

pytestmark = pytest.mark.peer("orthanc")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return phantoms.write(phantoms.datasets(phantoms.Phantom()), tmp_path / "images")


@pytest.fixture(params=["cstore", "stow"])
def destination(request: pytest.FixtureRequest, orthanc: Orthanc) -> Destination:
    return orthanc.destination() if request.param == "cstore" else orthanc.stow_destination()


def send(destination: Destination, paths: list[Path]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    open_sender(destination).send(paths, outcomes.append)
    return outcomes


def result(folder: Path, sop_class: str, *, size: int = 0) -> Path:
    """An object of a result's class and size, of the phantom's patient: senders look at no more."""
    (ds,) = phantoms.datasets(phantoms.Phantom(shape=(1, 16, 16)))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    if size:
        ds.Rows, ds.Columns = size // 2048, 1024
        ds.PixelData = np.random.default_rng(1).bytes(size)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{ds.SOPInstanceUID}.dcm"
    ds.save_as(path, enforce_file_format=True)
    return path


def test_every_instance_is_there_with_the_same_bytes(
    orthanc: Orthanc, destination: Destination, images: list[Path]
) -> None:
    # When a series is sent
    outcomes = send(destination, images)
    # Then each instance is told delivered, and Orthanc lists exactly these
    assert [(each.path, each.verdict, each.status) for each in outcomes] == [
        (path, Verdict.DELIVERED, 0x0000) for path in images
    ]
    assert set(orthanc.instances()) == {identify(path).sop_instance_uid for path in images}
    # And holds the same data sets, byte by byte
    for path in images:
        stored = orthanc.file(identify(path).sop_instance_uid)
        assert _data_set(stored) == _data_set(path.read_bytes())


def _data_set(content: bytes) -> bytes:
    return content[144 + int.from_bytes(content[140:144], "little") :]


def test_sending_again_changes_nothing(
    orthanc: Orthanc, destination: Destination, images: list[Path]
) -> None:
    first = send(destination, images)
    second = send(destination, images)
    assert {each.verdict for each in [*first, *second]} <= {Verdict.DELIVERED, Verdict.WARNING}
    assert len(orthanc.instances()) == len(images)


def test_a_segmentation_and_a_report_are_delivered_at_once(
    orthanc: Orthanc, destination: Destination, tmp_path: Path
) -> None:
    # Given a SEG of 5 MB and an SR
    paths = [
        result(tmp_path, SegmentationStorage, size=5 * 1024 * 1024),
        result(tmp_path, Comprehensive3DSRStorage),
    ]
    send(destination, [result(tmp_path, Comprehensive3DSRStorage)])  # the first has Orthanc load its code
    # When they are sent
    began = time.monotonic()
    outcomes = send(destination, paths)
    took = time.monotonic() - began
    # Then they are there; the bar is 0.2 s on an idle machine, tests run on busy ones
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED] * 2
    assert len(orthanc.instances()) == 3
    assert took < 1.0


def test_that_there_is_no_answer_is_delivered(
    orthanc: Orthanc, destination: Destination, images: list[Path], tmp_path: Path
) -> None:
    # Given a series in the PACS that was not analysed
    send(destination, images)
    failure = results.Failure(
        headers=not_performed.headers_of(images),
        job_identity="job-1",
        model=ModelIdentity(name="chest-ct", version="1.0.0", manufacturer="secondread", digest="0" * 64),
        created_at=datetime(2026, 11, 20, tzinfo=UTC),
        secondread_version="0.1.0",
        reason="missing-slice",
        error="1 slice is missing. Send the series again, complete.",
    )
    made = results.make_failure(failure, tmp_path / "results")
    assert made.problem == ""
    # When the PACS is told, twice, since the first answer was lost
    assert [send(destination, [made.path])[0].verdict for _ in range(2)] == [Verdict.DELIVERED] * 2
    # Then it is there once, in the series' study
    assert len(orthanc.instances()) == len(images) + 1
    held = dcmread(BytesIO(orthanc.file(made.sop_instance_uid)))
    assert held.StudyInstanceUID == dcmread(images[0]).StudyInstanceUID
    assert held.SeriesDescription.startswith("AI not performed")
    # And the probe knows its class beforehand
    assert echo.verify(destination, echo.result_contexts([results.NOT_PERFORMED])).healthy


def test_many_small_instances_do_not_wait_for_delayed_acknowledgements(
    orthanc: Orthanc, images: list[Path]
) -> None:
    # DCMTK writes an answer in two pieces with Nagle's algorithm on: 40 ms each, if the ACK is delayed
    send(orthanc.destination(), images[:1])
    best = min(_seconds(orthanc.destination(), images) for _ in range(3))
    assert best < len(images) * 0.030


def _seconds(destination: Destination, paths: list[Path]) -> float:
    began = time.monotonic()
    send(destination, paths)
    return time.monotonic() - began


def test_a_label_map_is_refused_by_c_store_and_the_others_go(
    orthanc: Orthanc, images: list[Path], tmp_path: Path
) -> None:
    # Orthanc 1.10 does not know 1.2.840.10008.5.1.4.1.1.66.7 and is told to take no unknown class
    label_map = result(tmp_path / "results", LabelMapSegmentationStorage)
    outcomes = send(orthanc.destination(), [images[0], label_map, images[1]])
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED, Verdict.REFUSED, Verdict.DELIVERED]
    assert outcomes[1].comment == (
        "peer accepts no presentation context for Label Map Segmentation Storage; enable it there"
    )
    assert set(orthanc.instances()) == {identify(path).sop_instance_uid for path in images[:2]}
    # And the probe says so before any job has run
    report = echo.verify(
        orthanc.destination(),
        [*echo.RESULT_CONTEXTS, (str(LabelMapSegmentationStorage), str(ExplicitVRLittleEndian))],
    )
    assert not report.healthy
    assert [sop_class for sop_class, _ in report.refused] == [LabelMapSegmentationStorage]


def test_the_probe_tells_which_kinds_it_takes(orthanc: Orthanc) -> None:
    kinds = ("seg", "labelmap", "sr", "key-images", "key-objects", results.NOT_PERFORMED)
    report = echo.verify(orthanc.destination(), echo.result_contexts(kinds))
    assert echo.kinds_taken(kinds, report.accepted) == tuple(kind for kind in kinds if kind != "labelmap")


def test_a_label_map_alone_is_refused(orthanc: Orthanc, tmp_path: Path) -> None:
    (outcome,) = send(orthanc.destination(), [result(tmp_path, LabelMapSegmentationStorage)])
    assert outcome.verdict is Verdict.REFUSED
    assert orthanc.instances() == {}


def test_a_label_map_goes_where_unknown_classes_are_accepted(tmp_path: Path) -> None:
    label_map = result(tmp_path / "results", LabelMapSegmentationStorage)
    with running(tmp_path / "orthanc", settings={"UnknownSopClassAccepted": True}) as orthanc:
        (outcome,) = send(orthanc.destination(), [label_map])
        assert outcome.verdict is Verdict.DELIVERED
        assert len(orthanc.instances()) == 1


def test_an_instance_without_what_orthanc_needs_is_not_called_delivered(
    orthanc: Orthanc, destination: Destination, images: list[Path], tmp_path: Path
) -> None:
    # Given an instance without Study, Series and Patient, between two good ones
    ds = dcmread(images[1])
    del ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.PatientID
    bad = tmp_path / "bad.dcm"
    ds.save_as(bad, enforce_file_format=True)
    outcomes = {each.path: each for each in send(destination, [images[0], bad, images[2]])}
    # Then what is told is what Orthanc holds
    held = set(orthanc.instances())
    for path, outcome in outcomes.items():
        delivered = outcome.verdict in (Verdict.DELIVERED, Verdict.WARNING)
        assert delivered == (outcome.sop_instance_uid in held), (path, outcome)
    assert outcomes[bad].verdict in (Verdict.REFUSED, Verdict.RETRY)
    assert len(outcomes) == 3


def test_a_wrong_called_ae_title_says_what_to_change(orthanc: Orthanc, images: list[Path]) -> None:
    with pytest.raises(errors.SendError, match="it is not called 'NOBODY': correct `ae_title`"):
        send(orthanc.destination(ae_title="NOBODY"), images)
    assert orthanc.instances() == {}


def test_a_wrong_service_root_says_what_to_change(orthanc: Orthanc, images: list[Path]) -> None:
    outcomes = send(orthanc.stow_destination(url=f"http://127.0.0.1:{orthanc.http_port}/no-such"), images[:2])
    assert {each.verdict for each in outcomes} == {Verdict.REFUSED}
    assert "correct `url`" in outcomes[0].comment


def test_credentials_are_asked_for_and_accepted(tmp_path: Path, images: list[Path]) -> None:
    settings = {"AuthenticationEnabled": False, "RegisteredUsers": {"ai": "pass"}}
    with running(tmp_path / "orthanc", settings=settings) as plain:
        assert echo.verify(plain.stow_destination()).healthy
    # "ai:pass", RFC 7617
    settings["AuthenticationEnabled"] = True
    with running(tmp_path / "orthanc2", settings=settings, authorization="Basic YWk6cGFzcw==") as orthanc:
        report = echo.verify(orthanc.stow_destination())
        assert (report.reachable, report.associated) == (True, False)
        assert "set `authorization`" in report.problem
        (outcome,) = send(orthanc.stow_destination(), images[:1])
        assert (outcome.verdict, outcome.status) == (Verdict.REFUSED, 401)
        (outcome,) = send(orthanc.stow_destination(authorization="Basic YWk6cGFzcw=="), images[:1])
        assert outcome.verdict is Verdict.DELIVERED


def test_the_probe_finds_both_services_healthy(orthanc: Orthanc, destination: Destination) -> None:
    report = echo.verify(destination)
    assert report.healthy, report.problem
    assert report.accepted == echo.RESULT_CONTEXTS
    assert orthanc.instances() == {}


def test_an_orthanc_that_is_killed_leaves_each_instance_one_outcome(
    tmp_path: Path, images: list[Path]
) -> None:
    # Given an Orthanc that dies after the third answer
    with running(tmp_path / "orthanc") as orthanc:
        outcomes: list[Outcome] = []

        def kill_after_three(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if len(outcomes) == 3:
                orthanc.process.kill()
                orthanc.process.wait()

        open_sender(orthanc.destination()).send(images, kill_after_three)
        # Then what was answered is delivered and the rest is to be tried again
        assert [each.path for each in outcomes] == images
        assert [each.verdict for each in outcomes] == [Verdict.DELIVERED] * 3 + [Verdict.RETRY] * (
            len(images) - 3
        )
        with pytest.raises(errors.Unreachable):
            send(orthanc.destination(), images)
        with pytest.raises(errors.Unreachable):
            send(orthanc.stow_destination(), images)
