"""The structure set: its outlines, filled by others' rules, are the mask; what is wrong does not pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.errors import GateError, SeriesError
from dicom_node.results import reasons, rtstruct, verify
from dicom_node.series import SeriesImages
from engines.findings import Findings
from tests.support import phantoms
from tests.support import results as cases

SOURCE = cases.series(cases.LIES["not bytewise"])

#: Pixels of a drawing for each voxel.
_SCALE = 8


def ring(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The three blocks, one with a hole in which a part of its own lies, and voxels that touch at a corner."""
    mask = cases.mask(shape)
    mask[5, 18:25, 20:27] = 3
    mask[5, 19:24, 21:26] = 0
    mask[5, 21, 23] = 3
    mask[6, 3, 3] = mask[6, 4, 4] = 2
    return mask


def make(folder: Path, found: Findings, source: SeriesImages = SOURCE) -> Dataset:
    """The structure set as it is on disk."""
    [made] = results.make_results(cases.context(source), found, ("rtstruct",), folder)
    assert made.verified, made.problem
    return dcmread(made.path)


def drawn(ds: Dataset, source: SeriesImages, combine: Callable[..., NDArray[np.uint8]]) -> NDArray[np.uint8]:
    """The mask as a reader fills it: each outline by Pillow, in the rows and columns of the image that it names."""
    geometry = source.volume.geometry
    mask = np.zeros(geometry.shape, np.uint8)
    slices = {str(image.SOPInstanceUID): index for index, image in enumerate(source.datasets)}
    for region in ds.ROIContourSequence:
        filled = np.zeros(geometry.shape, np.uint8)
        for contour in region.ContourSequence:
            points = geometry.to_index(np.array(contour.ContourData, float).reshape(-1, 3))
            index = slices[contour.ContourImageSequence[0].ReferencedSOPInstanceUID]
            assert np.allclose(points[:, 0], index, atol=1e-3)
            canvas = Image.new("1", (geometry.shape[2] * _SCALE, geometry.shape[1] * _SCALE))
            corners = ((points[:, :0:-1] + 0.5) * _SCALE).round().astype(int)
            ImageDraw.Draw(canvas).polygon([tuple(point) for point in corners.tolist()], fill=1)
            # At voxels' centres: Pillow draws the line itself too
            inside = np.asarray(canvas)[_SCALE // 2 :: _SCALE, _SCALE // 2 :: _SCALE]
            filled[index] = combine(filled[index], inside)
        mask[filled > 0] = region.ReferencedROINumber
    return mask


@pytest.mark.parametrize("lie", cases.LIES)
@pytest.mark.parametrize("combine", [np.bitwise_or, np.bitwise_xor])
def test_readers_that_add_and_readers_that_exclude_see_the_mask(
    lie: str, combine: Callable[..., NDArray[np.uint8]], tmp_path: Path
) -> None:
    source = cases.series(cases.LIES[lie])
    mask = ring(source.volume.geometry.shape)
    ds = make(tmp_path, cases.findings(source, mask=mask), source)
    assert np.array_equal(drawn(ds, source, combine), mask)


def test_it_says_what_the_regions_are(tmp_path: Path) -> None:
    mask = ring(SOURCE.volume.geometry.shape)
    mask[mask == 1] = 0
    ds = make(tmp_path, cases.findings(SOURCE, mask=mask))
    # An empty segment is no region
    assert [(item.ROINumber, item.ROIName) for item in ds.StructureSetROISequence] == [
        (2, "Right lung"),
        (3, "Nodule"),
    ]
    assert [item.RTROIInterpretedType for item in ds.RTROIObservationsSequence] == ["ORGAN", ""]
    assert [list(item.ROIDisplayColor) for item in ds.ROIContourSequence] == [[255, 80, 80], [255, 220, 0]]
    assert {item.ROIGenerationAlgorithm for item in ds.StructureSetROISequence} == {"AUTOMATIC"}
    assert ds.ApprovalStatus == "UNAPPROVED" and ds.StructureSetLabel == "AI unverified"
    assert ds.SeriesDescription.startswith("AI unverified (research): outlines +2")
    voxel = SOURCE.volume.geometry.voxel_volume_mm3 / 1000
    assert float(ds.StructureSetROISequence[1].ROIVolume) == pytest.approx((mask == 3).sum() * voxel)


@pytest.mark.parametrize("value", ["91723000", "123037004"])
def test_an_anatomical_structure_is_an_organ(value: str) -> None:
    segment = replace(cases.SEGMENTS[2], category=replace(cases.STRUCTURE, value=value))
    assert rtstruct.interpreted(segment) == "ORGAN"
    assert rtstruct.interpreted(cases.SEGMENTS[2]) == ""


def test_an_outline_longer_than_64_kilobytes_is_whole(tmp_path: Path) -> None:
    source = cases.series(phantoms.Phantom(shape=(2, 200, 200), spacing=(2.5, 0.7031, 0.7031)))
    mask = np.zeros((2, 200, 200), np.uint8)
    mask[1, ::2] = 1
    mask[1, 1::2, 1::2] = 1
    mask[1, :, 0] = 1
    ds = make(tmp_path, cases.findings(source, mask=mask), source)
    [contour] = ds.ROIContourSequence[0].ContourSequence
    assert len(contour.get_item("ContourData").value) > 65536
    assert ds.file_meta.TransferSyntaxUID.is_implicit_VR


def test_three_hundred_regions(tmp_path: Path) -> None:
    source = cases.series(phantoms.Phantom(shape=(2, 40, 40)))
    mask = np.zeros((2, 40, 40), np.uint16)
    mask[1].flat[:300] = np.arange(1, 301)
    parts = tuple(
        replace(cases.SEGMENTS[0], number=number, label=f"Part {number}") for number in range(1, 301)
    )
    found = cases.findings(source, mask=mask, segments=parts, measurements=(), findings=())
    assert len(make(tmp_path, found, source).ROIContourSequence) == 300


def test_nothing_segmented_makes_none(tmp_path: Path) -> None:
    nothing = cases.findings(SOURCE, mask=np.zeros(SOURCE.volume.geometry.shape, np.uint8))
    assert results.make_results(cases.context(SOURCE), nothing, ("rtstruct",), tmp_path) == []


def test_images_without_a_frame_of_reference_have_none(tmp_path: Path) -> None:
    headers = phantoms.datasets(cases.LIES["axial"])
    for ds in headers:
        del ds.FrameOfReferenceUID
    source = cases.series(cases.LIES["axial"], headers)
    context = cases.context(source)
    [said] = results.left_out(context, cases.findings(source), ("rtstruct", "sr"))
    assert said.startswith("no rtstruct: the source images have no Frame of Reference")
    made = results.make_results(context, cases.findings(source), ("rtstruct", "sr"), tmp_path)
    assert [file.kind for file in made] == ["sr"]
    with pytest.raises(SeriesError):
        results.make_results(context, cases.findings(source), ("rtstruct",), tmp_path)


def test_a_mask_of_specks_is_left_out_and_said(tmp_path: Path) -> None:
    source = cases.series(phantoms.Phantom(shape=(50, 130, 128)))
    mask = np.zeros(source.volume.geometry.shape, np.uint8)
    mask[:, ::2, ::2] = 1
    context, found = cases.context(source), cases.findings(source, mask=mask)
    [said] = results.left_out(context, found, ("rtstruct", "sr"))
    assert said.startswith("no rtstruct: the mask is too ragged: it has 208000 outlines of 832000 points")
    assert [file.kind for file in results.make_results(context, found, ("rtstruct", "sr"), tmp_path)] == [
        "sr"
    ]
    with pytest.raises(SeriesError) as caught:
        results.make_results(context, found, ("rtstruct",), tmp_path)
    assert caught.value.reason == "ragged-mask"
    assert reasons.of("ragged-mask").words == "what the model marked is too ragged to be outlined"
    # As many points in fewer lines are not too many
    mask[:, ::2] = 1
    mask[:, 1::2, ::4] = 1
    assert results.left_out(context, found, ("rtstruct", "sr")) == ()


def test_a_mask_of_holes_is_left_out_and_said() -> None:
    source = cases.series(phantoms.Phantom(shape=(2, 801, 801)))
    mask = np.ones(source.volume.geometry.shape, np.uint8)
    mask[:, 1:-1:2, 1:-1:2] = 0
    [said] = results.left_out(cases.context(source), cases.findings(source, mask=mask), ("rtstruct", "sr"))
    assert "320002 outlines of 1280008 points" in said


def test_a_mask_of_teeth_is_left_out_and_said() -> None:
    source = cases.series(phantoms.Phantom(shape=(2, 1500, 1500)))
    mask = np.zeros(source.volume.geometry.shape, np.uint8)
    mask[:, ::4] = mask[:, :, 0] = 1
    mask[:, 1::4, ::2] = mask[:, 3::4, 2::2] = 1
    [said] = results.left_out(cases.context(source), cases.findings(source, mask=mask), ("rtstruct", "sr"))
    assert "1500 outlines of 4497004 points" in said


def test_a_retry_makes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        make(tmp_path / name, cases.findings(SOURCE))
    first, second = ((tmp_path / name / "rtstruct.dcm").read_bytes() for name in ("a", "b"))
    assert first == second


def first_contour(ds: Dataset) -> Dataset:
    contour: Dataset = ds.ROIContourSequence[0].ContourSequence[0]
    return contour


def shift(ds: Dataset, axis: int, away: float) -> None:
    """Move every point of the first region."""
    for contour in ds.ROIContourSequence[0].ContourSequence:
        points = np.array(contour.ContourData, float).reshape(-1, 3)
        points[:, axis] += away
        contour.ContourData = [f"{value:.4f}" for value in points.ravel()]


def rename(ds: Dataset) -> None:
    other = ds.ROIContourSequence[0].ContourSequence[1].ContourImageSequence
    first_contour(ds).ContourImageSequence = other


def repeat(ds: Dataset) -> None:
    contours = ds.ROIContourSequence[0].ContourSequence
    ds.ROIContourSequence[0].ContourSequence = [*contours, contours[0], contours[0]]


def lose(ds: Dataset) -> None:
    ds.ROIContourSequence[0].ContourSequence = ds.ROIContourSequence[0].ContourSequence[1:]


def fill(ds: Dataset) -> None:
    """Take the hole's corners out of the ring."""
    for contour in ds.ROIContourSequence[2].ContourSequence:
        if contour.NumberOfContourPoints > 8:
            contour.ContourData, contour.NumberOfContourPoints = contour.ContourData[:12], 4


def lose_a_reference(ds: Dataset) -> None:
    study = ds.ReferencedFrameOfReferenceSequence[0].RTReferencedStudySequence[0]
    series = study.RTReferencedSeriesSequence[0]
    series.ContourImageSequence = series.ContourImageSequence[1:]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda ds: shift(ds, 0, 0.7), "do not enclose"),
        (lambda ds: shift(ds, 1, -0.8), "do not enclose"),
        (lambda ds: shift(ds, 2, 2.5), "2.500 mm off its slice"),
        (rename, "off its slice"),
        (repeat, "do not enclose"),
        (lose, "are not outlined"),
        (fill, "do not enclose"),
        (lose_a_reference, "images referred to"),
        (lambda ds: setattr(first_contour(ds), "ContourGeometricType", "OPEN_PLANAR"), "not closed"),
        (lambda ds: setattr(first_contour(ds), "NumberOfContourPoints", 3), "not as many points"),
        (lambda ds: setattr(ds.ROIContourSequence[0], "ReferencedROINumber", 2), "are not the segments"),
        (lambda ds: setattr(ds.ROIContourSequence[1], "ROIDisplayColor", [1, 2, 3]), "are not the segments"),
        (lambda ds: setattr(ds.StructureSetROISequence[0], "ROIName", "Spleen"), "are not the segments"),
        (
            lambda ds: setattr(ds.RTROIObservationsSequence[0], "RTROIInterpretedType", "EXTERNAL"),
            "are not the segments",
        ),
        (lambda ds: setattr(ds, "ApprovalStatus", "APPROVED"), "UNAPPROVED"),
        (lambda ds: setattr(ds, "FrameOfReferenceUID", "2.25.5"), "Frame of Reference"),
        (lambda ds: delattr(ds, "StructureSetLabel"), "StructureSetLabel is absent"),
    ],
)
def test_a_wrong_structure_set_is_caught(
    damage: Callable[[Dataset], None], says: str, tmp_path: Path
) -> None:
    found = cases.findings(SOURCE, mask=ring(SOURCE.volume.geometry.shape))
    ds = make(tmp_path, found)
    damage(ds)
    buffer = BytesIO()
    ds.save_as(buffer)
    with pytest.raises(GateError, match=says):
        verify.check(buffer.getvalue(), "rtstruct", cases.context(SOURCE), found, ())
