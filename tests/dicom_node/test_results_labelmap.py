"""The label map: every label at its point, colours in their order, small, and one frame for each slice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results
from dicom_node.errors import GateError
from dicom_node.results import verify
from engines.findings import Findings
from tests.support import phantoms
from tests.support import results as cases

SOURCE = cases.series(cases.LIES["not bytewise"])


def make(folder: Path, found: Findings) -> Dataset:
    """The label map as it is on disk."""
    source = replace(SOURCE, volume=replace(SOURCE.volume, geometry=found.geometry))
    [made] = results.make_results(cases.context(source), found, ("labelmap",), folder)
    assert made.verified, made.problem
    return dcmread(made.path)


@pytest.mark.parametrize("lie", cases.LIES)
def test_a_reader_of_others_finds_every_label(lie: str, tmp_path: Path) -> None:
    source = cases.series(cases.LIES[lie])
    found = cases.findings(source)
    [made] = results.make_results(cases.context(source), found, ("labelmap",), tmp_path)
    assert made.verified, made.problem
    volume = highdicom.seg.segread(made.path).get_volume(combine_segments=True)
    for segment in cases.SEGMENTS:
        read = located(np.asarray(volume.array) == segment.number, volume.affine)
        assert read == located(found.mask == segment.number, source.volume.geometry.affine)


def located(where: NDArray[np.bool_], affine: NDArray[np.float64]) -> list[tuple[int, ...]]:
    at = np.argwhere(where) @ affine[:3, :3].T + affine[:3, 3]
    return sorted(map(tuple, np.rint(at * 100).astype(int).tolist()))


def test_no_item_stands_for_nothing(tmp_path: Path) -> None:
    # An item for label 0 would come first, and viewers that take colours by place would shift them all
    ds = make(tmp_path, cases.findings(SOURCE))
    assert [item.SegmentNumber for item in ds.SegmentSequence] == [1, 2, 3]
    assert (ds.SegmentationType, ds.PixelPaddingValue, ds.SegmentsOverlap) == ("LABELMAP", 0, "NO")
    assert ds.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.7"
    assert ds.file_meta.TransferSyntaxUID.name == "RLE Lossless"
    assert ds.NumberOfFrames == np.count_nonzero(cases.findings(SOURCE).mask.any(axis=(1, 2)))
    assert "SegmentIdentificationSequence" not in ds.PerFrameFunctionalGroupsSequence[0]


@pytest.mark.parametrize(("count", "bits"), [(255, 8), (256, 16), (300, 16)])
def test_labels_have_the_bits_that_they_need(count: int, bits: int, tmp_path: Path) -> None:
    source = cases.series(phantoms.Phantom(shape=(3, 40, 40)))
    mask = np.zeros((3, 40, 40), np.uint16)
    mask[1].flat[:count] = np.arange(1, count + 1)
    mask[2, 0, 0] = count
    segments = tuple(
        replace(cases.SEGMENTS[0], number=number, label=f"Part {number}") for number in range(1, count + 1)
    )
    found = cases.findings(source, mask=mask, segments=segments, measurements=(), findings=())
    [made] = results.make_results(cases.context(source), found, ("labelmap",), tmp_path)
    assert made.verified, made.problem
    ds = dcmread(made.path)
    assert (ds.BitsAllocated, ds.BitsStored, ds.HighBit) == (bits, bits, bits - 1)
    # The frames run against the slices, so that their axes are right-handed
    assert np.array_equal(ds.pixel_array[::-1], mask[1:])


def test_a_single_slice_is_a_single_frame(tmp_path: Path) -> None:
    mask = np.zeros(SOURCE.volume.geometry.shape, np.uint8)
    mask[4, 3, 5] = 2
    ds = make(tmp_path, cases.findings(SOURCE, mask=mask))
    assert ds.NumberOfFrames == 1
    assert np.argwhere(ds.pixel_array).tolist() == [[3, 5]]


def test_nothing_segmented_makes_none(tmp_path: Path) -> None:
    nothing = cases.findings(SOURCE, mask=np.zeros(SOURCE.volume.geometry.shape, np.uint8))
    assert results.make_results(cases.context(SOURCE), nothing, ("labelmap",), tmp_path) == []


def test_the_report_refers_to_it_where_it_is_the_only_segmentation(tmp_path: Path) -> None:
    made = results.make_results(cases.context(SOURCE), cases.findings(SOURCE), ("labelmap", "sr"), tmp_path)
    assert [(file.kind, file.problem) for file in made] == [("labelmap", ""), ("sr", "")]
    evidence = dcmread(made[1].path).CurrentRequestedProcedureEvidenceSequence[0]
    named = {
        item.ReferencedSOPInstanceUID
        for series in evidence.ReferencedSeriesSequence
        for item in series.ReferencedSOPSequence
    }
    assert made[0].sop_instance_uid in named


def move(ds: Dataset) -> None:
    group = ds.PerFrameFunctionalGroupsSequence[0]
    group.PlanePositionSequence[0].ImagePositionPatient[2] += 5.0


def describe_nothing(ds: Dataset) -> None:
    first = ds.SegmentSequence[0]
    first.SegmentNumber = 0


def encode(ds: Dataset, labels: NDArray[np.uint8]) -> None:
    ds.NumberOfFrames = len(labels)
    ds.compress(
        ds.file_meta.TransferSyntaxUID, labels, encoding_plugin="pylibjpeg", generate_instance_uid=False
    )


def swap(ds: Dataset) -> None:
    encode(ds, np.where(ds.pixel_array == 2, 1, ds.pixel_array).astype(np.uint8))


def lose(ds: Dataset) -> None:
    ds.PerFrameFunctionalGroupsSequence = ds.PerFrameFunctionalGroupsSequence[:-1]
    encode(ds, ds.pixel_array[:-1].copy())


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (move, "not on the mask's grid|names another source image"),
        (describe_nothing, "segments"),
        (swap, "labels differ"),
        (lose, "are not in the object"),
        (lambda ds: setattr(ds, "PixelPaddingValue", 1), "label 0"),
        (lambda ds: setattr(ds, "SegmentationType", "BINARY"), "label 0"),
        (lambda ds: setattr(ds, "FrameOfReferenceUID", "2.25.5"), "FrameOfReferenceUID"),
    ],
)
def test_a_wrong_label_map_is_caught(damage: Callable[[Dataset], None], says: str, tmp_path: Path) -> None:
    found = cases.findings(SOURCE)
    ds = make(tmp_path, found)
    damage(ds)
    buffer = BytesIO()
    ds.save_as(buffer)
    with pytest.raises(GateError, match=says):
        verify.check(buffer.getvalue(), "labelmap", cases.context(SOURCE), found, ())
