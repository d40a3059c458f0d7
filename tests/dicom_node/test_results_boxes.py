"""Boxes in reports: each is a group of its own, on the right image, at its coordinates, with its extents."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results, series
from dicom_node.errors import GateError
from dicom_node.results import boxes, content_tree, verify, verify_sr
from engines.errors import OutputError
from tests.support import answers, enhanced, phantoms, planar, validators
from tests.support import results as cases

SOURCE = cases.series(cases.LIES["axial"])
FOUND = answers.findings(SOURCE, boxes=answers.BOXES)


def make(folder: Path, kind: str = "sr") -> Dataset:
    [file] = results.make_results(cases.context(SOURCE), FOUND, (kind,), folder)
    assert file.problem == ""
    return dcmread(file.path)


def test_a_box_lies_on_the_slice_through_its_middle() -> None:
    assert [(item.slice, item.first, item.last) for item in boxes.placed(FOUND)] == [
        (4, 2, 5),
        (8, 8, 8),
        (0, 0, 1),
    ]


def test_boxes_are_numbered_within_their_class() -> None:
    assert [item.label for item in boxes.placed(FOUND)] == ["Nodule 1", "Nodule 2", "Mass 1"]


def test_another_reader_finds_each_rectangle_on_its_image(tmp_path: Path) -> None:
    report = highdicom.sr.srread(make(tmp_path).filename)
    found = report.content.get_planar_roi_measurement_groups()
    uids = [image.SOPInstanceUID for image in SOURCE.datasets]
    for group, index, first, last in zip(
        found,
        (4, 8, 0),
        # (column, row); what lies outside the image is cut off.
        ((20.5, 11), (30.5, 20.5), (4.5, 0)),
        ((34.5, 19), (36.5, 24.5), (9.5, 6.5)),
        strict=True,
    ):
        region = group.roi
        points = region.value
        assert (points.min(axis=0).tolist(), points.max(axis=0).tolist()) == (list(first), list(last))
        assert points[0].tolist() == points[-1].tolist() == list(first)
        [image] = [item for item in region.ContentSequence if item.ValueType == "IMAGE"]
        assert image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == uids[index]
    assert [group.finding_type.meaning for group in found] == ["Nodule", "Nodule", "Mass"]


def test_a_box_says_how_certain_and_how_large_it_is(tmp_path: Path) -> None:
    first = next(iter(verify_sr.read_groups(make(tmp_path)).values()))
    said = {name.meaning: (value, unit.value) for name, unit, _, value, _ in first.numbers}
    depth, height, width = SOURCE.volume.geometry.spacing
    assert said == {
        "Certainty of Finding": (93.0, "%"),
        "Width": (pytest.approx(14 * width), "mm"),
        "Height": (pytest.approx(8 * height), "mm"),
        "Depth": (pytest.approx(3 * depth), "mm"),
    }
    assert first.comments == ["Nodule 1, slices 3 to 6 of 12"]


def test_a_box_on_an_image_of_unknown_size_has_no_millimetres(tmp_path: Path) -> None:
    image = planar.sc()
    source = series.read_series(phantoms.write([image], tmp_path / "source"), planar=True)
    found = answers.findings(source, boxes=(answers.box(low=(-0.5, 10, 20), high=(0.5, 18, 30)),))
    [file] = results.make_results(cases.context(source), found, ("sr",), tmp_path)
    assert file.problem == ""
    [group] = verify_sr.read_groups(dcmread(file.path)).values()
    assert [name.meaning for name, *_ in group.numbers] == ["Certainty of Finding"]
    assert group.comments == ["Nodule 1"]


def test_a_box_on_a_frame_names_the_frame(tmp_path: Path) -> None:
    files = phantoms.write([enhanced.image(phantoms.datasets(phantoms.Phantom()))], tmp_path / "source")
    source = series.read_series(files)
    found = answers.findings(source, boxes=answers.BOXES[:1])
    [file] = results.make_results(cases.context(source), found, ("sr",), tmp_path)
    assert file.problem == ""
    [group] = verify_sr.read_groups(dcmread(file.path)).values()
    assert group.regions[0].image == cases.context(source).source_slices()[4]


def test_a_box_outside_the_image_is_refused() -> None:
    with pytest.raises(OutputError, match=r'box "nodule" from .* lies outside the image'):
        answers.findings(SOURCE, boxes=(answers.box(low=(20, 0, 0), high=(25, 4, 4)),))


@pytest.mark.peer("dicom3tools")
@pytest.mark.peer("pixelmed")
@pytest.mark.peer("dcmtk")
@pytest.mark.parametrize("kind", ["sr", "sr-display"])
def test_others_find_nothing_wrong_with_it(kind: str, tmp_path: Path) -> None:
    path = str(make(tmp_path, kind).filename)
    assert validators.errors(validators.run("dciodvfy", "-new", path)) == []
    assert validators.errors(validators.run("DicomSRValidator", path)) == []
    assert "Nodule" in validators.run("dsrdump", path)


def moved(ds: Dataset) -> None:
    drawn(ds).GraphicData[0] += 1


def drawn(ds: Dataset) -> Dataset:
    return next(item for item in content_tree.walk(ds) if item.ValueType == "SCOORD")


def on_another_image(ds: Dataset) -> None:
    other = SOURCE.datasets[5].SOPInstanceUID
    drawn(ds).ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = other


def of_another_class(ds: Dataset) -> None:
    [finding] = [
        item for item in content_tree.children(group(ds)) if content_tree.name(item) == ("121071", "DCM")
    ]
    finding.ConceptCodeSequence[0].CodeValue = answers.MASS.value


def group(ds: Dataset) -> Dataset:
    return next(item for item in content_tree.walk(ds) if content_tree.name(item) == ("125007", "DCM"))


def longer(ds: Dataset) -> None:
    number = next(item for item in content_tree.walk(ds) if item.ValueType == "NUM")
    number.MeasuredValueSequence[0].NumericValue = "92"
    number.MeasuredValueSequence[0].FloatingPointValue = 92.0


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (moved, "does not run around its box"),
        (on_another_image, "does not run around its box"),
        (of_another_class, "something else than its class"),
        (longer, "are not the findings'"),
    ],
)
def test_the_gate_sees_a_harmed_box(harm: Callable[[Dataset], None], said: str, tmp_path: Path) -> None:
    ds = make(tmp_path)
    harm(ds)
    file = BytesIO()
    ds.save_as(file)
    with pytest.raises(GateError, match=said):
        verify.check(file.getvalue(), "sr", cases.context(SOURCE), FOUND, ())


def test_another_order_of_boxes_is_another_report(tmp_path: Path) -> None:
    ds = make(tmp_path)
    turned = replace(FOUND, boxes=(FOUND.boxes[1], FOUND.boxes[0], FOUND.boxes[2]))
    with pytest.raises(GateError):
        verify_sr.check(ds, cases.context(SOURCE), turned, ())


def test_a_detector_that_found_nothing_says_so(tmp_path: Path) -> None:
    [file] = results.make_results(cases.context(SOURCE), answers.findings(SOURCE), ("sr",), tmp_path)
    assert file.problem == ""
    [only] = verify_sr.read_groups(dcmread(file.path)).values()
    assert only.comments == ["The model ran and reported nothing."]
    assert not np.any(FOUND.mask)
