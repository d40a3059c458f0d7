"""What is drawn: every arrow, box and line is where the mask has what it is of, on the right image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results, series
from dicom_node.errors import GateError
from dicom_node.results import content_tree, verify, verify_sr_display
from engines import diameter
from engines.findings import Findings, Measurement, Urgency
from tests.support import enhanced, phantoms
from tests.support import results as cases

SOURCE = cases.series(cases.LIES["axial"])
LONGEST, MM = cases.LONGEST, cases.MILLIMETRE


def found(**changes: Any) -> Findings:
    """The usual findings, and the nodule's longest diameter."""
    found = cases.findings(SOURCE, **changes)
    line = diameter.longest(found.mask == 3, found.geometry.spacing)
    if line is None:
        return found
    longest = Measurement(
        key="longest", name=LONGEST, value=line.mm, unit=MM, segment_number=3, ends=line.ends
    )
    return replace(found, measurements=(*found.measurements, longest))


def make(folder: Path, findings: Findings) -> Dataset:
    [file] = results.make_results(cases.context(SOURCE), findings, ("sr-display",), folder)
    assert file.problem == ""
    return dcmread(file.path)


def shapes(ds: Dataset) -> list[verify_sr_display.Shape]:
    return list(verify_sr_display.read_shapes(ds).values())


def test_arrows_point_at_their_segments_with_words_and_numbers(tmp_path: Path) -> None:
    ds = make(tmp_path, found())
    arrows = [shape for shape in shapes(ds) if shape.graphic_type == "POINT"]
    # The smallest says most: it comes first
    assert [shape.comments for shape in arrows] == [
        ["Right lung, 2789 mL, 3.25 % (AI, not verified)"],
        ["Nodule, 14 mm (AI, not verified)"],
        ["Left lung, 2346 mL, -812 HU (AI, not verified)"],
    ]
    uids = [image.SOPInstanceUID for image in SOURCE.datasets]
    mask = cases.mask(SOURCE.volume.geometry.shape)
    for shape, number in zip(arrows, (2, 3, 1), strict=True):
        column, row = np.floor(shape.points[0]).astype(int)
        assert mask[uids.index(shape.image[0]), row, column] == number


def test_a_box_spans_the_outer_edges_of_its_pixels(tmp_path: Path) -> None:
    boxes = [shape for shape in shapes(make(tmp_path, found())) if len(shape.points) == 5]
    mask = cases.mask(SOURCE.volume.geometry.shape)
    index = [image.SOPInstanceUID for image in SOURCE.datasets].index(boxes[0].image[0])
    rows, columns = np.nonzero(mask[index] == 2)
    assert boxes[0].points.min(axis=0).tolist() == [columns.min(), rows.min()]
    assert boxes[0].points.max(axis=0).tolist() == [columns.max() + 1, rows.max() + 1]
    # clockwise from the top left, as OHIF reads a rectangle
    assert (np.diff(boxes[0].points, axis=0)[0] > 0).tolist() == [True, False]


def test_what_fills_the_image_gets_no_box(tmp_path: Path) -> None:
    everything = np.ones(SOURCE.volume.geometry.shape, np.uint8)
    drawn = shapes(make(tmp_path, found(mask=everything, findings=())))
    assert [shape.graphic_type for shape in drawn] == ["POINT"]


def test_a_line_is_as_long_as_its_number(tmp_path: Path) -> None:
    [line] = [shape for shape in shapes(make(tmp_path, found())) if len(shape.points) == 2]
    [(name, unit, derivation, value, _)] = line.numbers
    assert (name, unit, derivation) == (LONGEST, MM, None)
    down, across = SOURCE.volume.geometry.spacing[1:]
    steps = (line.points[1] - line.points[0]) * (across, down)
    assert np.hypot(*steps) == pytest.approx(value, rel=1e-5)


def test_every_group_is_one_shape_that_a_viewer_can_load(tmp_path: Path) -> None:
    """OHIF 3.13 loads nothing at all where one group has no coordinates."""
    ds = make(tmp_path, found())
    assert ds.ConceptNameCodeSequence[0].CodeValue == "126000"
    groups = [item for item in content_tree.walk(ds) if content_tree.name(item) == ("125007", "DCM")]
    assert len(groups) == len(shapes(ds)) == 3 + 3 + 1
    tools = {shape.tracking_id.split(":")[1] for shape in shapes(ds)}
    assert tools == {"ArrowAnnotate", "RectangleROI", "Length"}
    assert all(shape.tracking_id.startswith("Cornerstone3DTools@^0.1.0:") for shape in shapes(ds))


def test_an_arrow_bears_the_identity_of_its_segment(tmp_path: Path) -> None:
    made = results.make_results(cases.context(SOURCE), found(), ("seg", "sr-display"), tmp_path)
    segments, drawn = (dcmread(file.path) for file in made)
    tracked = set(verify_sr_display.read_shapes(drawn))
    assert {item.TrackingUID for item in segments.SegmentSequence} < tracked


def test_a_finding_that_is_present_is_said_first(tmp_path: Path) -> None:
    urgent = replace(cases.FINDINGS[0], present=True, urgency=Urgency.URGENT, segment_numbers=(1,))
    first = shapes(make(tmp_path, found(findings=(urgent,))))[0]
    assert first.comments[0].startswith("Pulmonary emphysema, Left lung, 2346 mL")


def test_of_very_many_segments_those_that_matter_most_are_drawn(tmp_path: Path) -> None:
    mask = np.zeros(SOURCE.volume.geometry.shape, np.uint16)
    # From 1 to 80 the parts grow; the largest is a finding
    mask.flat[: 80 * 81 // 2] = np.repeat(np.arange(1, 81), np.arange(1, 81))
    parts = tuple(
        replace(cases.SEGMENTS[0], number=number, label=f"Part {number}") for number in range(1, 81)
    )
    present = replace(cases.FINDINGS[0], present=True, segment_numbers=(80,))
    many = cases.findings(SOURCE, mask=mask, segments=parts, measurements=(), findings=(present,))
    drawn = shapes(make(tmp_path, many))
    assert len(drawn) == 50
    arrows = [shape.comments[0] for shape in drawn if shape.graphic_type == "POINT"]
    assert [words.split(" (")[0].split(", ")[-1] for words in arrows[:4]] == [
        "Part 80",
        "Part 1",
        "Part 2",
        "Part 3",
    ]


def test_nothing_to_draw_is_no_report(tmp_path: Path) -> None:
    nothing = cases.findings(SOURCE, mask=np.zeros(SOURCE.volume.geometry.shape, np.uint8))
    assert results.make_results(cases.context(SOURCE), nothing, ("sr-display",), tmp_path) == []


def test_another_reader_finds_the_regions(tmp_path: Path) -> None:
    report = highdicom.sr.srread(make(tmp_path, found()).filename)
    planar = report.content.get_planar_roi_measurement_groups()
    assert [group.finding_type.meaning for group in planar[:2]] == ["Right lung", "Right lung"]
    assert [str(group.roi.graphic_type) for group in planar[:2]] == [
        "GraphicTypeValues.POINT", "GraphicTypeValues.POLYLINE",
    ]  # fmt: skip
    assert len(report.content.get_image_measurement_groups()) == 1


def test_a_retry_makes_the_same_bytes(tmp_path: Path) -> None:
    make(tmp_path / "a", found())
    make(tmp_path / "b", found())
    assert (tmp_path / "a/sr-display.dcm").read_bytes() == (tmp_path / "b/sr-display.dcm").read_bytes()


def test_on_a_multi_frame_image_each_shape_names_its_frame(tmp_path: Path) -> None:
    paths = phantoms.write([enhanced.image(phantoms.datasets(cases.LIES["axial"]))], tmp_path / "source")
    source = series.read_series(paths)
    [file] = results.make_results(cases.context(source), cases.findings(source), ("sr-display",), tmp_path)
    assert file.problem == ""
    mask, keys = cases.mask(source.volume.geometry.shape), cases.context(source).source_slices()
    drawn = shapes(dcmread(file.path))
    assert {shape.image[1] for shape in drawn} == {3, 5}
    for shape in (shape for shape in drawn if shape.graphic_type == "POINT"):
        column, row = np.floor(shape.points[0]).astype(int)
        assert mask[keys.index(shape.image), row, column] > 0


def coordinates(ds: Dataset, points: int) -> Dataset:
    """The first shape of so many points."""
    return next(
        item
        for item in content_tree.walk(ds)
        if item.ValueType == "SCOORD" and len(item.GraphicData) == 2 * points
    )


def move(points: int, by: float) -> Callable[[Dataset], None]:
    def damage(ds: Dataset) -> None:
        item = coordinates(ds, points)
        item.GraphicData = [value + by for value in item.GraphicData]

    return damage


def swap(points: int) -> Callable[[Dataset], None]:
    """Rows for columns."""

    def damage(ds: Dataset) -> None:
        item = coordinates(ds, points)
        item.GraphicData = np.array(item.GraphicData).reshape(-1, 2)[:, ::-1].ravel().tolist()

    return damage


def on_another_image(ds: Dataset) -> None:
    [image] = coordinates(ds, 5).ContentSequence
    image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = SOURCE.datasets[0].SOPInstanceUID


def lose_the_coordinates(ds: Dataset) -> None:
    group = next(item for item in content_tree.walk(ds) if content_tree.name(item) == ("125007", "DCM"))
    group.ContentSequence = [item for item in group.ContentSequence if item.ValueType != "SCOORD"]


def say_another_number(ds: Dataset) -> None:
    number = next(item for item in content_tree.walk(ds) if item.ValueType == "NUM")
    number.MeasuredValueSequence[0].NumericValue = "12"
    number.MeasuredValueSequence[0].FloatingPointValue = 12.0


def say_other_words(ds: Dataset) -> None:
    [*_, words] = [item for item in content_tree.walk(ds) if item.ValueType == "TEXT"]
    words.TextValue = "nothing"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (move(1, 20), "arrow of"),
        (swap(1), "arrow of"),
        (move(5, 1), "box of"),
        (swap(5), "box of"),
        (move(2, 1), "line of"),
        (swap(2), "line of"),
        (on_another_image, "another image"),
        (lose_the_coordinates, "not one shape"),
        (say_another_number, "numbers of"),
        (say_other_words, "words of"),
        (lambda ds: ds.CurrentRequestedProcedureEvidenceSequence.clear(), "evidence"),
        (lambda ds: setattr(ds, "VerificationFlag", "VERIFIED"), "UNVERIFIED"),
    ],
)
def test_what_is_drawn_wrong_is_caught(damage: Callable[[Dataset], None], says: str, tmp_path: Path) -> None:
    ds = make(tmp_path, found())
    damage(ds)
    buffer = BytesIO()
    ds.save_as(buffer)
    with pytest.raises(GateError, match=says):
        verify.check(buffer.getvalue(), "sr-display", cases.context(SOURCE), found(), ())
