"""The Segmentation: right voxels in the right place, whatever way the series lies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.errors import SeriesError
from dicom_node.results import header, segments
from engines.findings import Code, Segment
from tests.support import phantoms
from tests.support import results as cases

#: What highdicom makes of the images and the mask, less the pixels.
_OF_IMAGES_AND_MASK = (
    "DimensionOrganizationType",
    "NumberOfFrames",
    "PerFrameFunctionalGroupsSequence",
    "ReferencedSeriesSequence",
    "SegmentsOverlap",
    "SharedFunctionalGroupsSequence",
    "SourceImageSequence",
)


def write(phantom: phantoms.Phantom, folder: Path, **changes: Any) -> tuple[Path, Any]:
    """Write the Segmentation of a phantom; its path and the findings that it was made of."""
    source = cases.series(phantom)
    found = cases.findings(source, **changes)
    [made] = results.make_results(cases.context(source), found, ("seg",), folder)
    assert made.verified, made.problem
    return made.path, found


@pytest.mark.parametrize("lie", cases.LIES)
def test_another_reader_places_every_voxel_where_the_mask_has_it(lie: str, tmp_path: Path) -> None:
    # Given a series that lies in its own way, when its mask is written
    phantom = cases.LIES[lie]
    path, found = write(phantom, tmp_path)
    # Then highdicom, from the file alone, finds each segment at the phantom's own points
    volume = highdicom.seg.segread(path).get_volume(combine_segments=True, skip_overlap_checks=True)
    for label in (1, 2, 3):
        read = points(np.argwhere(volume.array == label), volume.affine)
        wanted = points(np.argwhere(found.mask == label), phantoms.affine(phantom))
        assert len(read) > 0
        assert read == wanted


def points(index: Any, affine: Any) -> set[tuple[int, ...]]:
    """Points in the patient, in hundredths of a millimetre."""
    located = index @ affine[:3, :3].T + affine[:3, 3]
    return set(map(tuple, np.rint(located * 100).astype(int).tolist()))


def test_segments_are_described_for_people_and_programs(tmp_path: Path) -> None:
    path, _ = write(cases.LIES["axial"], tmp_path)
    ds = dcmread(path)
    assert ds.SegmentationType == "BINARY"
    assert ds.SegmentsOverlap == "NO"
    assert ds.SeriesDescription == "AI unverified (research): Left lung +2, chest-ct 1.0.0"
    assert ds.ContentLabel == "CHEST_CT"
    nodule = ds.SegmentSequence[2]
    assert nodule.SegmentLabel == "Nodule"
    assert nodule.AnatomicRegionSequence[0].CodeValue == "39607008"
    assert nodule.SegmentAlgorithmType == "AUTOMATIC"
    assert nodule.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion == "1.0.0"
    colour = highdicom.color.CIELabColor.from_dicom_value(nodule.RecommendedDisplayCIELabValue)
    assert np.allclose(colour.to_rgb(), (255, 220, 0), atol=1)


def test_every_frame_names_the_image_that_it_lies_on(tmp_path: Path) -> None:
    source = cases.series(cases.LIES["coronal"])
    [made] = results.make_results(cases.context(source), cases.findings(source), ("seg",), tmp_path)
    ds = dcmread(made.path)
    by_uid = {image.SOPInstanceUID: image for image in source.datasets}
    assert [item.SeriesInstanceUID for item in ds.ReferencedSeriesSequence] == [
        source.datasets[0].SeriesInstanceUID
    ]
    for frame in ds.PerFrameFunctionalGroupsSequence:
        [image] = frame.DerivationImageSequence[0].SourceImageSequence
        position = frame.PlanePositionSequence[0].ImagePositionPatient
        assert np.allclose(position, by_uid[image.ReferencedSOPInstanceUID].ImagePositionPatient, atol=1e-3)


@pytest.mark.parametrize("lie", cases.LIES)
@pytest.mark.parametrize("count", [1, 3])
def test_it_is_what_highdicom_would_write(lie: str, count: int, tmp_path: Path) -> None:
    """Frames and references are bytes of ours; highdicom makes the same from all images and the whole mask."""
    # Given a mask with an empty slice between others
    phantom = cases.LIES[lie]
    labels = np.minimum(cases.mask(phantom.shape), count).astype(np.uint8)
    labels[2] = 0
    source = cases.series(phantom)
    found = cases.findings(source, mask=labels, segments=cases.SEGMENTS[:count], measurements=(), findings=())
    context = cases.context(source)
    # When both write it
    [made] = results.make_results(context, found, ("seg",), tmp_path)
    highdicom.seg.Segmentation(
        source_images=list(source.datasets),
        pixel_array=labels,
        segmentation_type="BINARY",
        segment_descriptions=[segments._describe(context, segment) for segment in found.segments],
        omit_empty_frames=True,
        **header.constructor(context, "seg"),
    ).save_as(tmp_path / "theirs.dcm")
    # Then what depends on the images and on the mask is the same
    ours, theirs = dcmread(made.path), dcmread(tmp_path / "theirs.dcm")
    for keyword in _OF_IMAGES_AND_MASK:
        assert ours.get(keyword) == theirs.get(keyword), keyword
    size = -(-ours.NumberOfFrames * ours.Rows * ours.Columns // 8)
    assert ours.PixelData[:size] == theirs.PixelData[:size]


def test_a_single_segment_is_shared_by_all_frames(tmp_path: Path) -> None:
    labels = np.minimum(cases.mask(cases.LIES["axial"].shape), 1).astype(np.uint8)
    path, _ = write(
        cases.LIES["axial"], tmp_path, mask=labels, segments=cases.SEGMENTS[:1], measurements=(), findings=()
    )
    ds = dcmread(path)
    [shared] = ds.SharedFunctionalGroupsSequence
    assert shared.SegmentIdentificationSequence[0].ReferencedSegmentNumber == 1
    assert not any("SegmentIdentificationSequence" in item for item in ds.PerFrameFunctionalGroupsSequence)
    assert ds.DimensionOrganizationType == "3D"


def test_empty_frames_are_left_out(tmp_path: Path) -> None:
    path, found = write(cases.LIES["axial"], tmp_path)
    wanted = sum(int((found.mask == label).any(axis=(1, 2)).sum()) for label in (1, 2, 3))
    assert dcmread(path).NumberOfFrames == wanted < 3 * found.mask.shape[0]


def test_a_single_voxel_survives(tmp_path: Path) -> None:
    phantom = cases.LIES["not bytewise"]
    labels = np.zeros(phantom.shape, np.uint8)
    labels[7, 28, 36] = 2
    path, _ = write(phantom, tmp_path, mask=labels)
    ds = dcmread(path)
    assert ds.NumberOfFrames == 1
    # A segment that was looked for and not found stays described under its number.
    assert [int(item.SegmentNumber) for item in ds.SegmentSequence] == [1, 2, 3]


def test_three_hundred_segments_need_sixteen_bits(tmp_path: Path) -> None:
    shape = (10, 32, 40)
    labels = (np.arange(np.prod(shape)) % 301).astype(np.uint16).reshape(shape)
    kind = Code(value="85756007", scheme="SCT", meaning="Tissue")
    many = tuple(
        Segment(number=number, label=f"Part {number}", category=kind, type=kind) for number in range(1, 301)
    )
    path, _ = write(
        phantoms.Phantom(shape=shape), tmp_path, mask=labels, segments=many, measurements=(), findings=()
    )
    read = highdicom.seg.segread(path).get_volume(combine_segments=True, skip_overlap_checks=True)
    assert np.array_equal(np.sort(read.array.ravel()), np.sort(labels.ravel()))


def test_nothing_segmented_makes_no_segmentation(tmp_path: Path) -> None:
    source = cases.series(cases.LIES["axial"])
    found = cases.findings(source, mask=np.zeros(source.volume.geometry.shape, np.uint8))
    made = results.make_results(cases.context(source), found, ("seg", "sr"), tmp_path)
    assert [item.kind for item in made] == ["sr"]
    assert made[0].verified, made[0].problem


def test_without_a_frame_of_reference_the_rest_is_made_and_the_report_says_why(tmp_path: Path) -> None:
    headers = phantoms.datasets(cases.LIES["axial"])
    for ds in headers:
        del ds.FrameOfReferenceUID
    context = cases.context(cases.series(cases.LIES["axial"], headers))
    found = cases.findings(context.source)
    # What has no need of a place in the patient is made
    made = results.make_results(context, found, results.KINDS, tmp_path / "all")
    assert [(item.kind, item.problem) for item in made] == [
        ("presentation-state", ""), ("key-images", ""), ("sr", ""), ("sr-display", ""), ("pdf", ""),
        ("key-objects", ""),
    ]  # fmt: skip
    assert [line.split(":")[0] for line in results.left_out(context, found, results.KINDS)] == [
        "no seg", "no labelmap", "no rtstruct", "no parametric-map", "no fractional",
    ]  # fmt: skip
    words, *_ = [text for text in comments(dcmread(made[2].path)) if "There is no" in text]
    assert "no Frame of Reference UID (0020,0052)" in words
    # Where nothing else is wanted, that is the end, with the reason
    with pytest.raises(SeriesError, match=r"no Frame of Reference") as caught:
        results.make_results(context, found, ("seg",), tmp_path / "seg")
    assert caught.value.reason == "no-frame-of-reference"
    assert not (tmp_path / "seg").exists()


def comments(item: Dataset) -> list[str]:
    """Every text of a report."""
    own = [str(item.TextValue)] if item.get("ValueType") == "TEXT" else []
    return own + [text for child in item.get("ContentSequence") or () for text in comments(child)]


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
def test_a_thickness_that_is_no_number_is_the_slices_distance(tmp_path: Path) -> None:
    headers = phantoms.datasets(cases.LIES["axial"])
    for ds in headers:
        ds.SliceThickness = "NaN"
    source = cases.series(cases.LIES["axial"], headers)
    [made] = results.make_results(cases.context(source), cases.findings(source), ("seg",), tmp_path)
    assert made.verified, made.problem
    [measures] = dcmread(made.path).SharedFunctionalGroupsSequence[0].PixelMeasuresSequence
    assert measures.SliceThickness == pytest.approx(source.volume.geometry.spacing[0])


def test_images_that_each_have_a_frame_of_reference_of_their_own_take_the_volume_s(tmp_path: Path) -> None:
    # Given a series whose de-identification gave each image another UID, as one of the public CTs has
    headers = phantoms.datasets(cases.LIES["axial"])
    for number, ds in enumerate(headers):
        ds.FrameOfReferenceUID = f"1.2.3.{number + 1}"
    source = cases.series(cases.LIES["axial"], headers)
    [made] = results.make_results(cases.context(source), cases.findings(source), ("seg",), tmp_path)
    assert made.verified, made.problem
    assert dcmread(made.path).FrameOfReferenceUID == "1.2.3.1"


def test_slices_that_are_not_quite_even_keep_their_own_positions(tmp_path: Path) -> None:
    # Given slices a fifth of a gap off their even places, which the series reader takes
    phantom = cases.LIES["axial"]
    headers = phantoms.datasets(phantom)
    for number, ds in enumerate(headers):
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y, round(z + 0.5 * (number % 2), 6)]
    source = cases.series(phantom, headers)
    [made] = results.make_results(cases.context(source), cases.findings(source), ("seg",), tmp_path)
    # Then the frames lie exactly on the images, and the mean spacing is still said
    assert made.verified, made.problem
    ds = dcmread(made.path)
    assert ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices == 2.5


def test_a_mask_on_another_grid_is_refused(tmp_path: Path) -> None:
    source = cases.series(cases.LIES["axial"])
    other = cases.series(phantoms.Phantom(origin=(-29.0, -20.0, 100.0)))
    found = cases.findings(source, geometry=other.volume.geometry)
    [made] = results.make_results(cases.context(source), found, ("seg",), tmp_path)
    assert not made.verified
    assert made.problem == "the mask is not on the source volume's grid"
