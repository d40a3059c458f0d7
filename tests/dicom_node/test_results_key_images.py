"""Key images: the right slices, the colours where the mask is, the words beside them, and nobody's name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.errors import GateError
from dicom_node.results import key_slices, legend, verify
from dicom_node.results.key_slices import KeySlice
from dicom_node.series import SeriesImages
from engines.findings import Finding, Findings, Segment
from tests.support import phantoms
from tests.support import results as cases

PHANTOM = phantoms.Phantom(shape=(9, 29, 37))
SOURCE = cases.series(PHANTOM)


def blocks(*, reverse: int | None = None) -> NDArray[np.uint8]:
    """Two segments on slices of their own, unlike along every axis; `reverse` turns an axis round."""
    labels = np.zeros(PHANTOM.shape, np.uint8)
    labels[2:4, 3:9, 5:20] = 1
    labels[3, 9, 5] = 1
    labels[6, 20:25, 30:33] = 2
    return labels if reverse is None else np.flip(labels, reverse)


def make(folder: Path, mask: NDArray[np.uint8], source: SeriesImages = SOURCE) -> Dataset:
    """Key images as they are on disk."""
    [made] = results.make_results(
        cases.context(source), cases.findings(source, mask=mask), ("key-images",), folder
    )
    assert made.verified, made.problem
    return dcmread(made.path)


def test_each_segment_is_shown_where_it_is_largest(tmp_path: Path) -> None:
    ds = make(tmp_path, blocks())
    named = [item.ReferencedSOPInstanceUID for item in ds.SourceImageSequence]
    assert named == [SOURCE.datasets[3].SOPInstanceUID, SOURCE.datasets[6].SOPInstanceUID]
    assert ds.NumberOfFrames == 2
    assert [float(value) for value in ds.SliceLocationVector] == [7.5, 15.0]
    assert ds.Modality == "OT" and ds.BurnedInAnnotation == "NO"
    assert ds.SeriesDescription.startswith("AI unverified (research): key images")


def test_one_slice_is_a_secondary_capture_of_one_frame(tmp_path: Path) -> None:
    mask = blocks()
    mask[mask == 2] = 0
    ds = make(tmp_path, mask)
    assert ds.SOPClassUID.name == "Secondary Capture Image Storage"
    assert "NumberOfFrames" not in ds
    assert ds.pixel_array.shape == (ds.Rows, ds.Columns, 3)


@pytest.mark.parametrize("lie", cases.LIES)
def test_colours_lie_on_what_they_show(lie: str, tmp_path: Path) -> None:
    # Given a series in every orientation, its blocks known by their grey value
    phantom = cases.LIES[lie]
    source = cases.series(phantom)
    ds = make(tmp_path, cases.mask(phantom.shape), source)
    pixels = ds.pixel_array.astype(int)
    for frame, item in zip(pixels, ds.SourceImageSequence, strict=True):
        [index] = [
            number
            for number, image in enumerate(source.datasets)
            if image.SOPInstanceUID == item.ReferencedSOPInstanceUID
        ]
        plane = cases.mask(phantom.shape)[index]
        picture = frame[:, : -legend.WIDTH]
        for segment in cases.SEGMENTS:
            # When the picture is scaled back to the slice's own pixels
            coloured = (picture == segment.colour).all(axis=2)
            rows, columns = (
                np.flatnonzero(coloured.any(axis=axis)) * plane.shape[1 - axis] / picture.shape[1 - axis]
                for axis in (1, 0)
            )
            region = np.argwhere(plane == segment.number)
            if not len(region):
                assert not rows.size
                continue
            # Then the outline spans what the mask spans, to a pixel
            assert np.allclose([rows.min(), columns.min()], region.min(axis=0), atol=1)
            assert np.allclose([rows.max(), columns.max()], region.max(axis=0) + 1, atol=1)


@pytest.mark.parametrize("axis", [1, 2])
def test_a_mirrored_picture_does_not_pass(axis: int, tmp_path: Path) -> None:
    # Given pictures of a mask that is mirrored within its slices
    mirrored = make(tmp_path, blocks(reverse=axis))
    buffer = BytesIO()
    mirrored.save_as(buffer)
    # When they are compared with the mask as it is, then they do not pass
    right = cases.findings(SOURCE, mask=blocks())
    with pytest.raises(GateError, match="drawn"):
        verify.check(buffer.getvalue(), "key-images", cases.context(SOURCE), right, ())


def blacken(ds: Dataset) -> None:
    ds.PixelData = bytes(len(ds.PixelData))


def swap(ds: Dataset) -> None:
    ds.SourceImageSequence = ds.SourceImageSequence[::-1]


def drop(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (blacken, "is not drawn"),
        (swap, "not the key slices"),
        (drop, "shorter than its frames"),
        (lambda ds: setattr(ds, "Columns", ds.Columns - 1), "are not 2 pictures"),
        (lambda ds: delattr(ds, "ConversionType"), "ConversionType is absent"),
    ],
)
def test_a_wrong_picture_is_caught(damage: Callable[[Dataset], None], says: str, tmp_path: Path) -> None:
    ds = make(tmp_path, blocks())
    damage(ds)
    buffer = BytesIO()
    ds.save_as(buffer)
    found = cases.findings(SOURCE, mask=blocks())
    with pytest.raises(GateError, match=says):
        verify.check(buffer.getvalue(), "key-images", cases.context(SOURCE), found, ())


def test_nothing_segmented_has_no_key_images(tmp_path: Path) -> None:
    found = cases.findings(SOURCE, mask=np.zeros(PHANTOM.shape, np.uint8))
    assert results.make_results(cases.context(SOURCE), found, ("key-images",), tmp_path) == []


def test_a_single_voxel_is_seen(tmp_path: Path) -> None:
    mask = np.zeros(PHANTOM.shape, np.uint8)
    mask[4, 14, 18] = 3
    pixels = make(tmp_path, mask).pixel_array
    assert (pixels[:, : -legend.WIDTH] == cases.SEGMENTS[2].colour).all(axis=-1).sum() >= 8


def many(count: int) -> Findings:
    """As many segments, each alone on a slice; the first is the largest."""
    source = cases.series(phantoms.Phantom(shape=(count, 12, 12)))
    mask = np.zeros((count, 12, 12), np.uint8)
    for index in range(count):
        mask[index, :, : 1 + (count - index) % 12] = index + 1
    segments = tuple(
        Segment(number=index + 1, label=f"Part {index + 1}", category=cases.STRUCTURE, type=cases.VOLUME)
        for index in range(count)
    )
    return cases.findings(source, mask=mask, segments=segments, measurements=(), findings=())


def test_of_many_segments_those_of_findings_then_the_smallest_are_shown() -> None:
    found = many(11)
    positive = Finding(key="x", code=cases.EMPHYSEMA, present=True, segment_numbers=(1,))
    negative = replace(positive, present=False, segment_numbers=(2,))
    # Sizes fall from segment 1 to segment 11
    assert [item.index for item in key_slices.choose(found)] == [3, 4, 5, 6, 7, 8, 9, 10]
    found = replace(found, findings=(negative, positive))
    assert [item.index for item in key_slices.choose(found)] == [0, 4, 5, 6, 7, 8, 9, 10]


def test_three_hundred_segments_of_one_slice_are_one_picture(tmp_path: Path) -> None:
    source = cases.series(phantoms.Phantom(shape=(2, 40, 40)))
    mask = np.zeros((2, 40, 40), np.uint16)
    mask[1].flat[:300] = np.arange(1, 301)
    segments = tuple(
        Segment(number=number, label=f"Part {number}", category=cases.STRUCTURE, type=cases.VOLUME)
        for number in range(1, 301)
    )
    found = cases.findings(source, mask=mask, segments=segments, measurements=(), findings=())
    [made] = results.make_results(cases.context(source), found, ("key-images",), tmp_path)
    assert made.verified, made.problem


@pytest.mark.parametrize(
    ("label", "meaning", "expected"),
    [
        ("Hémorragie", "Haemorrhage", "Hémorragie"),
        ("左肺", "Left lung", "Left lung"),
        ("左肺", "左肺", "Segment 1"),
    ],
)
def test_what_cannot_be_drawn_is_called_by_its_code_or_number(
    label: str, meaning: str, expected: str
) -> None:
    segment = replace(cases.SEGMENTS[0], label=label, type=replace(cases.SEGMENTS[0].type, meaning=meaning))
    assert legend.name(segment) == expected


def test_words_that_find_no_room_are_counted() -> None:
    found = cases.findings(SOURCE)
    low = np.zeros((60, 200, 3), np.uint8)
    drawn = legend.beside(
        low, cases.context(SOURCE), found, KeySlice(index=0, segments=(1, 2, 3)), "Image 1 (slice 1 of 9)"
    )
    assert drawn.shape == (60, 200 + legend.WIDTH, 3)
    assert drawn[:, 200:].any()


def test_a_retry_makes_the_same_bytes(tmp_path: Path) -> None:
    first, second = (make(tmp_path / name, blocks()) for name in ("a", "b"))
    assert first.PixelData == second.PixelData and first == second


def test_nothing_of_the_patient_is_burned_in(tmp_path: Path) -> None:
    # Given the same images of somebody else, another day
    headers = phantoms.datasets(PHANTOM)
    for ds in headers:
        ds.PatientName, ds.PatientID, ds.PatientBirthDate = "Somebody^Else", "OTHER-1", "19991231"
        ds.StudyDate, ds.StudyTime, ds.AccessionNumber = "20010203", "040506", "ACC-OTHER"
    other = make(tmp_path / "other", blocks(), cases.series(PHANTOM, headers))
    # Then the pictures are the same
    assert other.PatientID == "OTHER-1"
    assert other.PixelData == make(tmp_path / "first", blocks()).PixelData
