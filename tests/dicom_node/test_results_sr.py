"""The report: every number and statement, said so that a person and a program understand it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.results import content_tree, outline, verify_sr
from engines.findings import Measurement, Urgency
from tests.support import results as cases


def write(folder: Path, kinds: tuple[str, ...] = ("seg", "sr"), **changes: Any) -> Dataset:
    """Write the report of the axial phantom and read it back."""
    source = cases.series(cases.LIES["axial"])
    made = results.make_results(cases.context(source), cases.findings(source, **changes), kinds, folder)
    assert all(item.verified for item in made), [item.problem for item in made]
    return dcmread(made[-1].path)


def groups(ds: Dataset) -> list[verify_sr.Group]:
    """The report's groups in order."""
    return list(verify_sr.read_groups(ds).values())


def test_another_reader_finds_the_numbers_with_their_segments(tmp_path: Path) -> None:
    # Given a written report, when highdicom reads it
    report = highdicom.sr.srread(write(tmp_path).filename)
    left, right, both, _ = report.content.get_volumetric_roi_measurement_groups()
    # Then each group has its segment, its numbers exactly, its units and its site
    assert [item.value for item in left.get_measurements()] == [2345.678901234, -812.25, 14.5]
    assert [item.unit.value for item in left.get_measurements()] == ["mL", "[hnsf'U]", "%"]
    assert left.finding_sites[0].value.meaning == "Left lung"
    assert right.get_measurements()[0].value == 2789.1
    assert [item.value for item in both.get_measurements()] == [5134.778901234, 8.4]


def test_a_person_reads_rounded_numbers(tmp_path: Path) -> None:
    texts = [
        str(item.MeasuredValueSequence[0].NumericValue)
        for item in content_tree.walk(write(tmp_path))
        if item.ValueType == "NUM"
    ]
    assert texts == ["2345.68", "-812.25", "14.5", "2789.1", "3.25", "5134.78", "8.4"]


def test_a_measurement_of_segments_together_refers_to_all_of_them(tmp_path: Path) -> None:
    ds = write(tmp_path)
    instance = cases.context(cases.series(cases.LIES["axial"])).uid("seg", "instance")
    assert [group.segments for group in groups(ds)] == [
        [(instance, 1)],
        [(instance, 2)],
        [(instance, 1), (instance, 2)],
        [(instance, 1), (instance, 2)],
    ]


def test_a_negative_finding_is_stated_with_its_reason(tmp_path: Path) -> None:
    [statement] = groups(write(tmp_path))[-1].statements
    assert statement[0] == cases.EMPHYSEMA
    assert statement[1].meaning == "Absent"
    assert groups(write(tmp_path))[-1].comments == ["LAA-950 8.4 % (threshold 10 %)"]


def test_an_absent_finding_is_never_the_finding_of_its_group(tmp_path: Path) -> None:
    report = highdicom.sr.srread(write(tmp_path).filename)
    assert report.content.get_volumetric_roi_measurement_groups()[-1].finding_type is None


def test_an_urgent_finding_says_so(tmp_path: Path) -> None:
    urgent = replace(cases.FINDINGS[0], present=True, urgency=Urgency.URGENT)
    group = groups(write(tmp_path, findings=(urgent,)))[-1]
    assert group.statements[0][1].meaning == "Present"
    assert group.comments == ["URGENT: LAA-950 8.4 % (threshold 10 %)"]


def test_a_segment_that_was_not_found_is_reported_in_words(tmp_path: Path) -> None:
    found = cases.mask(cases.LIES["axial"].shape)
    found[found == 3] = 0
    comments = [text for group in groups(write(tmp_path, mask=found)) for text in group.comments]
    assert "No voxel was segmented as Nodule." in comments


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_does_not_exist_is_not_invented(value: float, tmp_path: Path) -> None:
    broken = replace(cases.MEASUREMENTS[0], value=value)
    ds = write(tmp_path, measurements=(broken,))
    assert groups(ds)[0].numbers == []
    assert groups(ds)[0].comments == ["Volume (milliliter) could not be computed."]


@pytest.mark.parametrize("value", [0.0, 1e-12, 123456789.5, 1e300, -1024.0, 1 / 3])
def test_any_number_reads_back_exactly(value: float, tmp_path: Path) -> None:
    ds = write(tmp_path, measurements=(replace(cases.MEASUREMENTS[0], value=value),))
    assert groups(ds)[0].numbers[0][3] == value


def test_without_a_segmentation_the_groups_stand_alone(tmp_path: Path) -> None:
    ds = write(tmp_path, kinds=("sr",))
    assert [group.segments for group in groups(ds)] == [[], [], [], []]
    assert [len(group.numbers) for group in groups(ds)] == [3, 2, 2, 0]


def test_a_model_that_found_nothing_says_so(tmp_path: Path) -> None:
    empty = np.zeros(cases.LIES["axial"].shape, np.uint8)
    ds = write(tmp_path, mask=empty, segments=(), measurements=(), findings=(), maps=())
    assert [group.comments for group in groups(ds)] == [["The model ran and reported nothing."]]


def test_measurements_of_no_segment_are_of_the_whole_image(tmp_path: Path) -> None:
    alone = Measurement(key="noise", name=cases.DENSITY, value=12.5, unit=cases.HOUNSFIELD)
    ds = write(tmp_path, measurements=(alone,), findings=())
    assert [(len(group.numbers), group.segments) for group in groups(ds)] == [(1, [])]


def test_the_report_says_who_observed_and_on_what(tmp_path: Path) -> None:
    ds = write(tmp_path)
    said = {
        item.ConceptNameCodeSequence[0].CodeMeaning: item.get("TextValue")
        for item in content_tree.walk(ds)
        if item.ValueType == "TEXT"
    }
    assert said["Device Observer Name"] == "chest-ct 1.0.0"
    assert said["Algorithm Parameters"].startswith("digest: sha256:0123456789abcdef")
    assert (ds.VerificationFlag, ds.CompletionFlag) == ("UNVERIFIED", "COMPLETE")
    assert ds.ConceptNameCodeSequence[0].CodeMeaning == "AI Measurement Report"
    assert ds.ContentTemplateSequence[0].TemplateIdentifier == "1500"


def test_the_procedure_is_the_study_s_own_where_it_has_a_code(tmp_path: Path) -> None:
    source = cases.series(cases.LIES["axial"])
    code, broken = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "CTTH", "99LOCAL", "CT Thorax"
    broken.CodeValue = "NOSCHEME"
    for ds in source.datasets:
        ds.ProcedureCodeSequence = [broken, code]
    [made] = results.make_results(cases.context(source), cases.findings(source), ("sr",), tmp_path)
    assert made.verified, made.problem
    named = [
        item.ConceptCodeSequence[0].CodeMeaning
        for item in dcmread(made.path).ContentSequence
        if item.ConceptNameCodeSequence[0].CodeMeaning == "Procedure reported"
    ]
    assert named == ["CT Thorax"]


def test_the_outline_gives_every_group_an_identity_of_its_own() -> None:
    source = cases.series(cases.LIES["axial"])
    made = outline.groups(cases.context(source), cases.findings(source))
    assert len({group.tracking_uid for group in made}) == len(made) == 4


def test_tracking_uids_are_the_segmentation_s(tmp_path: Path) -> None:
    tracked = set(verify_sr.read_groups(write(tmp_path)))
    segments = dcmread(tmp_path / "seg.dcm").SegmentSequence
    assert {str(item.TrackingUID) for item in segments[:2]} <= tracked


def test_every_container_keeps_its_items_apart(tmp_path: Path) -> None:
    """A viewer that meets CONTINUOUS runs the values together and leaves out what they are of."""

    def containers(item: Dataset) -> Iterator[Dataset]:
        if item.ValueType == "CONTAINER":
            yield item
            for child in item.ContentSequence:
                yield from containers(child)

    marks = [item.ContinuityOfContent for item in containers(write(tmp_path))]
    assert len(marks) > 3
    assert set(marks) == {"SEPARATE"}
