"""A result that takes an earlier one's place says so, in words and by reference, and the gate sees to it."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.results import ResultFile, header, sr
from dicom_node.results.context import Predecessor, Report
from tests.support import results as cases

SOURCE = cases.series(cases.LIES["axial"])
REPORT = Report(
    sop_class_uid="1.2.840.10008.5.1.4.1.1.88.34",
    sop_instance_uid="2.25.1001",
    series_instance_uid="2.25.1002",
)
EARLIER = Predecessor(revision=1, created_at=datetime(2026, 3, 2, 9, 30, tzinfo=UTC), report=REPORT)


def make(folder: Path, predecessor: Predecessor | None = EARLIER, **changes: Any) -> dict[str, ResultFile]:
    """The results of a phantom by kind."""
    context = cases.context(SOURCE, predecessor=predecessor, **changes)
    made = results.make_results(context, cases.findings(SOURCE), ("seg", "sr"), folder)
    return {file.kind: file for file in made}


def read(files: dict[str, ResultFile], kind: str) -> Dataset:
    assert files[kind].problem == ""
    return pydicom.dcmread(files[kind].path)


def test_the_report_refers_to_the_one_whose_place_it_takes(tmp_path: Path) -> None:
    report = read(make(tmp_path), "sr")
    (study,) = report.PredecessorDocumentsSequence
    (series,) = study.ReferencedSeriesSequence
    (instance,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == report.StudyInstanceUID
    assert series.SeriesInstanceUID == REPORT.series_instance_uid
    assert instance.ReferencedSOPClassUID == REPORT.sop_class_uid
    assert instance.ReferencedSOPInstanceUID == REPORT.sop_instance_uid


def test_a_first_report_and_one_after_a_lone_segmentation_refer_to_none(tmp_path: Path) -> None:
    assert "PredecessorDocumentsSequence" not in read(make(tmp_path / "a", None), "sr")
    after = read(make(tmp_path / "b", replace(EARLIER, report=None)), "sr")
    assert "PredecessorDocumentsSequence" not in after
    assert after.SeriesDescription.startswith("AI rev 2 unverified")


def test_descriptions_and_words_say_so_where_viewers_cut_them(tmp_path: Path) -> None:
    files = make(tmp_path, replace(EARLIER, revision=2))
    for kind in ("seg", "sr"):
        description = read(files, kind).SeriesDescription
        assert description.startswith("AI rev 3 unverified (research, replaces rev 2)")
        assert description[:20].startswith("AI rev 3 unverified") and len(description) <= 64
    texts = [
        child.TextValue
        for group in read(files, "sr").ContentSequence[-2].ContentSequence
        for child in group.ContentSequence
        if child.ValueType == "TEXT"
    ]
    (said,) = [text for text in texts if "replaces" in text]
    assert said.startswith("Rev 3: replaces rev 2 of 2026-03-02")
    assert said.endswith(f"This report is of {len(SOURCE.datasets)} images.")


def test_later_results_sort_behind_those_they_replace() -> None:
    numbers = [
        cases.context(SOURCE, predecessor=predecessor).series_number(kind)
        for predecessor in (None, EARLIER, replace(EARLIER, revision=3), replace(EARLIER, revision=99))
        for kind in ("seg", "sr")
    ]
    assert [number % 1000 for number in numbers] == [901, 902, 921, 922, 961, 962, 961, 962]


def test_a_retry_makes_the_same_bytes(tmp_path: Path) -> None:
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert [file.sha256 for file in first.values()] == [file.sha256 for file in second.values()]
    assert first["sr"].sha256 != make(tmp_path / "c", replace(EARLIER, revision=2))["sr"].sha256


@pytest.mark.parametrize(
    "build",
    [
        lambda made: made.__delattr__("PredecessorDocumentsSequence"),
        lambda made: made.PredecessorDocumentsSequence.append(made.PredecessorDocumentsSequence[0]),
        lambda made: setattr(
            made.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0],
            "ReferencedSOPInstanceUID",
            "2.25.7",
        ),
        lambda made: setattr(made.PredecessorDocumentsSequence[0], "StudyInstanceUID", "2.25.8"),
    ],
    ids=["none", "two", "another", "in another study"],
)
def test_the_gate_lets_no_other_predecessor_pass(
    build: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = sr.build

    def built(*arguments: Any) -> Dataset:
        made = original(*arguments)
        build(made)
        return made

    monkeypatch.setattr(sr, "build", built)
    assert "predecessor" in make(tmp_path)["sr"].problem


def test_the_gate_lets_no_description_pass_that_does_not_say_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(header, "describe", lambda *_: "AI unverified (research): lungs")
    files = make(tmp_path)
    assert "Series Description" in files["seg"].problem and "Series Description" in files["sr"].problem
