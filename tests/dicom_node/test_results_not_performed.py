"""A missing answer becomes a document that says so: of which series, why, and that it is no negative result."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_node import own_uids, results
from dicom_node.results import Failure, files, not_performed, reasons
from dicom_node.results.context import Report
from dicom_node.series import read_series
from tests.support import phantoms
from tests.support import results as cases

SOURCE = cases.series(cases.LIES["axial"])
ERROR = "Slice 4 of 12 is missing: 5 mm lie between its neighbours instead of 2.5 mm. Send the series again."


def failure(**changes: Any) -> Failure:
    """A job that ended without an answer; `changes` replace parts."""
    values: dict[str, Any] = {
        "headers": SOURCE.datasets,
        "job_identity": "job-1",
        "model": cases.MODEL,
        "created_at": datetime(2026, 11, 20, 10, 0, 0, 123456, tzinfo=UTC),
        "secondread_version": "0.1.0",
        "zone": UTC,
        "reason": "missing-slice",
        "error": ERROR,
    }
    return Failure(**{**values, **changes})


def make(folder: Path, **changes: Any) -> Dataset:
    """The document as it is on disk."""
    made = results.make_failure(failure(**changes), folder)
    assert made.problem == ""
    return pydicom.dcmread(made.path)


def texts(ds: Dataset) -> str:
    return "\n".join(item.TextValue for item in ds.ContentSequence if item.ValueType == "TEXT")


def test_it_says_what_is_missing_of_which_series_and_why(tmp_path: Path) -> None:
    ds = make(tmp_path)
    image = SOURCE.datasets[0]
    assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.11"
    assert ds.SeriesDescription == "AI not performed (research): chest-ct 1.0.0"
    assert (ds.Modality, ds.VerificationFlag, ds.CompletionFlag) == ("SR", "UNVERIFIED", "COMPLETE")
    assert (ds.PatientName, ds.PatientID) == (image.PatientName, image.PatientID)
    assert ds.StudyInstanceUID == image.StudyInstanceUID
    assert "chest-ct 1.0.0 did not analyse series" in texts(ds)
    assert "at least one image is missing" in texts(ds) and ERROR in texts(ds)
    assert "no negative result" in texts(ds)
    by_type = {item.ValueType: item for item in ds.ContentSequence if item.RelationshipType == "CONTAINS"}
    assert by_type["CODE"].ConceptCodeSequence[0].CodeValue == "110523"
    assert image.SeriesInstanceUID == by_type["UIDREF"].UID
    assert by_type["IMAGE"].ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.SOPInstanceUID
    assert own_uids.is_ours(ds.SOPInstanceUID)
    parts = [item.get("ContributionDescription", "") for item in ds.ContributingEquipmentSequence]
    assert "Algorithm that was to analyse the images, and did not" in parts


def test_a_model_that_is_no_research_is_not_called_so(tmp_path: Path) -> None:
    ds = make(tmp_path, model=replace(cases.MODEL, research_only=False))
    assert ds.SeriesDescription == "AI not performed: chest-ct 1.0.0"


def test_the_same_failure_is_the_same_bytes_and_another_one_another_object(tmp_path: Path) -> None:
    first = results.make_failure(failure(), tmp_path / "a")
    again = results.make_failure(failure(), tmp_path / "b")
    assert first.path.read_bytes() == again.path.read_bytes()
    other = results.make_failure(failure(reason="engine", error="the runtime died"), tmp_path / "a")
    assert other.sop_instance_uid != first.sop_instance_uid
    assert other.series_instance_uid != first.series_instance_uid
    assert first.path.exists() and other.path != first.path


def test_its_number_stands_behind_those_of_all_results(tmp_path: Path) -> None:
    context = cases.context(SOURCE)
    assert make(tmp_path).SeriesNumber > max(context.series_number(kind) for kind in results.KINDS)


@pytest.mark.parametrize(
    "word", ["missing-slice", "gantry-tilt", "undecodable", "engine", "time-limit", "parameters", "new"]
)
def test_every_reason_has_a_standard_code(word: str, tmp_path: Path) -> None:
    ds = make(tmp_path, reason=word)
    code = reasons.of(word)
    assert code.code.scheme == "DCM" and code.words in texts(ds)


def test_every_reason_of_the_series_reader_has_words() -> None:
    named = set(re.findall(r'"([a-z-]+)"', read_series.__doc__ or ""))
    assert len(named) > 20
    # Those leave it open whose images these are: nothing is announced
    named -= {"mixed-patient", "mixed-study", "mixed-series"}
    assert [word for word in sorted(named) if reasons.of(word).code.value == "110513"] == []


def _title(ds: Dataset) -> None:
    ds.ConceptNameCodeSequence[0].CodeValue = "AI-MEASUREMENTS"


def _reason(ds: Dataset) -> None:
    [item] = [
        one for one in ds.ContentSequence if one.ValueType == "CODE" and one.RelationshipType == "CONTAINS"
    ]
    item.ConceptCodeSequence[0].CodeValue = "110513"


def _words(ds: Dataset) -> None:
    [item, *_] = [
        one for one in ds.ContentSequence if (one.ValueType, one.RelationshipType) == ("TEXT", "CONTAINS")
    ]
    item.TextValue = "chest-ct found nothing."


def _more(ds: Dataset) -> None:
    ds.ContentSequence.append(ds.ContentSequence[-3])


def _patient(ds: Dataset) -> None:
    ds.add_new("PatientID", "LO", "another")


def _standing(ds: Dataset) -> None:
    ds.SeriesDescription = "chest-ct"


@pytest.mark.parametrize("change", [_title, _reason, _words, _more, _patient, _standing])
def test_the_gate_holds_back_what_says_something_else(
    change: Callable[[Dataset], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = files.write

    def write(ds: Dataset, path: Path) -> None:
        change(ds)
        whole(ds, path)

    monkeypatch.setattr(files, "write", write)
    assert results.make_failure(failure(), tmp_path).problem


def test_a_header_is_taken_from_a_file_whose_pixels_are_cut_off(tmp_path: Path) -> None:
    made = phantoms.datasets(cases.LIES["axial"])[:3]
    paths = [tmp_path / f"{index}.dcm" for index in range(3)]
    for ds, path in zip(made, paths, strict=True):
        ds.save_as(path)
    whole = paths[1].read_bytes()
    paths[0].write_bytes(b"no DICOM at all")
    paths[1].write_bytes(whole[:-100])
    assert uids(paths) == [made[1].SOPInstanceUID, made[2].SOPInstanceUID]
    # Cut off among the elements that say whose it is
    paths[1].write_bytes(whole[: whole.index(str(made[1].StudyInstanceUID).encode()) + 10])
    assert uids(paths) == [made[2].SOPInstanceUID]
    assert uids(paths[:2]) == []


def uids(paths: list[Path]) -> list[str]:
    return [str(ds.SOPInstanceUID) for ds in not_performed.headers_of(paths)]


def test_a_later_report_takes_its_place_and_says_so(tmp_path: Path) -> None:
    said = make(tmp_path / "a")
    document = Report(
        sop_class_uid=str(said.SOPClassUID),
        sop_instance_uid=str(said.SOPInstanceUID),
        series_instance_uid=str(said.SeriesInstanceUID),
    )
    context = cases.context(SOURCE, announced=(document,))
    [made] = results.make_results(context, cases.findings(SOURCE), ("sr",), tmp_path / "b")
    assert made.problem == ""
    report = pydicom.dcmread(made.path)
    [series] = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == said.SOPInstanceUID
    assert "it was performed since" in made.path.read_bytes().decode("utf-8", "replace")
