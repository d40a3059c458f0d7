"""From files to results and back: in all 48 ways that axes can lie, what is marked is what was in the images."""

from __future__ import annotations

from itertools import permutations, product
from pathlib import Path

import highdicom
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import results, series
from dicom_node.results import legend
from engines.findings import Findings
from tests.support import enhanced, phantoms
from tests.support import results as cases

#: Hounsfield units of the phantom's blocks, in the order of `cases.SEGMENTS`.
BLOCKS = (400, 700, 1000)


def ways() -> dict[str, phantoms.Phantom]:
    """Every choice of patient axes for rows and columns, in both directions, and both directions of slices."""
    found = {}
    for (across, down), signs in product(permutations(range(3), 2), product((1, -1), repeat=3)):
        row, column = np.eye(3)[across] * signs[0], np.eye(3)[down] * signs[1]
        name = f"{'+-'[signs[0] < 0]}{'xyz'[across]}{'+-'[signs[1] < 0]}{'xyz'[down]} {signs[2]:+d}"
        orientation = tuple(float(value) for value in (*row, *column))
        found[name] = phantoms.Phantom(orientation=orientation, slice_sign=signs[2])  # type: ignore[arg-type]
    return found


WAYS = ways()


def points(where: NDArray[np.bool_], affine: NDArray[np.float64]) -> list[tuple[int, ...]]:
    """Where voxels lie in the patient, in hundredths of a millimetre, sorted."""
    at = np.argwhere(where) @ affine[:3, :3].T + affine[:3, 3]
    return sorted(map(tuple, np.rint(at * 100).astype(int).tolist()))


def test_there_are_48_ways() -> None:
    assert len({(phantom.orientation, phantom.slice_sign) for phantom in WAYS.values()}) == 48


def images(phantom: phantoms.Phantom, form: str) -> list[Dataset]:
    """The phantom in files or frames whose order says nothing."""
    slices = phantoms.datasets(phantom)
    return slices if form == "classic" else [enhanced.image(slices[1::2] + slices[::2])]


@pytest.mark.parametrize("form", ["classic", "enhanced"])
@pytest.mark.parametrize("way", WAYS)
def test_what_is_marked_is_what_was_in_the_images(way: str, form: str, tmp_path: Path) -> None:
    # Given images, read as a volume
    phantom = WAYS[way]
    paths = phantoms.write(images(phantom, form), tmp_path / "images")
    source = series.read_series(sorted(paths, key=lambda path: path.name[::-1]))
    # When a model marks the three blocks that it sees in it
    mask = np.zeros(source.volume.array.shape, np.uint8)
    for number, value in enumerate(BLOCKS, start=1):
        mask[source.volume.array == value] = number
    found = Findings(
        model=cases.MODEL,
        geometry=source.volume.geometry,
        mask=mask,
        segments=cases.SEGMENTS,
        measurements=cases.MEASUREMENTS,
    )
    made = {
        file.kind: file
        for file in results.make_results(
            cases.context(source), found, ("seg", "rtstruct", "key-images"), tmp_path / "results"
        )
    }
    assert [file.problem for file in made.values()] == [""] * 3
    # Then a reader of others finds each block where the images' own headers have it
    read = highdicom.seg.segread(made["seg"].path).get_volume(combine_segments=True)
    pixels = phantoms.asymmetric(phantom.shape)
    for number, value in enumerate(BLOCKS, start=1):
        assert points(read.array == number, read.affine) == points(pixels == value, phantoms.affine(phantom))
    check_pictures(made["key-images"].path, paths)
    check_outlines(made["rtstruct"].path, paths)


def check_outlines(written: Path, paths: list[Path]) -> None:
    """Each block spans, in the patient, what its outlines span, by the header of the very image that they name."""
    images = {ds.SOPInstanceUID: ds for ds in map(dcmread, paths)}
    for region, value in zip(dcmread(written).ROIContourSequence, BLOCKS, strict=True):
        outlined: dict[str, list[NDArray[np.float64]]] = {}
        for contour in region.ContourSequence:
            uid = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            outlined.setdefault(uid, []).append(np.array(contour.ContourData, float).reshape(-1, 3))
        for uid, image in images.items():
            block = np.argwhere(image.pixel_array.astype(int) - 1024 == value)
            assert (len(block) > 0) == (uid in outlined)
            if len(block):
                row, column = np.array(image.ImageOrientationPatient, float).reshape(2, 3)
                steps = np.outer(block[:, 1], row * image.PixelSpacing[1])
                steps += np.outer(block[:, 0], column * image.PixelSpacing[0])
                centres = np.array(image.ImagePositionPatient, float) + steps
                half = np.abs(row * image.PixelSpacing[1] + column * image.PixelSpacing[0]) / 2
                drawn = np.concatenate(outlined[uid])
                assert np.allclose(drawn.min(axis=0), centres.min(axis=0) - half, atol=1e-3)
                assert np.allclose(drawn.max(axis=0), centres.max(axis=0) + half, atol=1e-3)


def check_pictures(written: Path, paths: list[Path]) -> None:
    """Each colour spans, in its picture, what its block spans in the very image that the picture names."""
    sources = {
        (image.SOPInstanceUID, number): pixels.astype(int) - 1024
        for image in map(dcmread, paths)
        for number, pixels in enumerate(image.pixel_array.reshape(-1, image.Rows, image.Columns), start=1)
    }
    ds = dcmread(written)
    frames = ds.pixel_array.reshape(-1, ds.Rows, ds.Columns, 3)[:, :, : -legend.WIDTH]
    for frame, item in zip(frames, ds.SourceImageSequence, strict=True):
        units = sources[item.ReferencedSOPInstanceUID, item.get("ReferencedFrameNumber", 1)]
        scale = np.array(frame.shape[:2]) / units.shape
        for segment, value in zip(cases.SEGMENTS, BLOCKS, strict=True):
            drawn, block = np.argwhere((frame == segment.colour).all(axis=2)), np.argwhere(units == value)
            assert len(drawn) > 0 or len(block) == 0
            if len(block):
                assert np.allclose(drawn.min(axis=0) / scale, block.min(axis=0), atol=1)
                assert np.allclose(drawn.max(axis=0) / scale, block.max(axis=0) + 1, atol=1)
