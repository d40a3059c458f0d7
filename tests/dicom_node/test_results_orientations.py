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
            cases.context(source),
            found,
            ("seg", "rtstruct", "key-images", "sr-display"),
            tmp_path / "results",
        )
    }
    assert [file.problem for file in made.values()] == [""] * 4
    # Then a reader of others finds each block where the images' own headers have it
    read = highdicom.seg.segread(made["seg"].path).get_volume(combine_segments=True)
    pixels = phantoms.asymmetric(phantom.shape)
    for number, value in enumerate(BLOCKS, start=1):
        assert points(read.array == number, read.affine) == points(pixels == value, phantoms.affine(phantom))
    check_pictures(made["key-images"].path, paths)
    check_outlines(made["rtstruct"].path, paths)
    check_coordinates(made["sr-display"].path, paths)


def check_outlines(written: Path, paths: list[Path]) -> None:
    """Each block spans, in the patient, what its outlines span, by the header of the very slice that they name."""
    units, places = slices(paths), headers(paths)
    for region, value in zip(dcmread(written).ROIContourSequence, BLOCKS, strict=True):
        outlined: dict[tuple[str, int], list[NDArray[np.float64]]] = {}
        for contour in region.ContourSequence:
            [named] = contour.ContourImageSequence
            key = (named.ReferencedSOPInstanceUID, named.get("ReferencedFrameNumber", 1))
            outlined.setdefault(key, []).append(np.array(contour.ContourData, float).reshape(-1, 3))
        for key, place in places.items():
            block = np.argwhere(units[key] == value)
            assert (len(block) > 0) == (key in outlined)
            if len(block):
                row, column = np.array(place.ImageOrientationPatient, float).reshape(2, 3)
                steps = np.outer(block[:, 1], row * place.PixelSpacing[1])
                steps += np.outer(block[:, 0], column * place.PixelSpacing[0])
                centres = np.array(place.ImagePositionPatient, float) + steps
                half = np.abs(row * place.PixelSpacing[1] + column * place.PixelSpacing[0]) / 2
                drawn = np.concatenate(outlined[key])
                assert np.allclose(drawn.min(axis=0), centres.min(axis=0) - half, atol=1e-3)
                assert np.allclose(drawn.max(axis=0), centres.max(axis=0) + half, atol=1e-3)


def headers(paths: list[Path]) -> dict[tuple[str, int], Dataset]:
    """What says where each image, or frame of one, lies, by its name and number."""
    found: dict[tuple[str, int], Dataset] = {}
    for image in map(dcmread, paths):
        groups = image.get("PerFrameFunctionalGroupsSequence")
        if groups is None:
            found[image.SOPInstanceUID, 1] = image
        for number, group in enumerate(groups or (), start=1):
            place = Dataset()
            for macro in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence"):
                place.update(group[macro][0])
            found[image.SOPInstanceUID, number] = place
    return found


def slices(paths: list[Path]) -> dict[tuple[str, int], NDArray[np.int64]]:
    """Hounsfield units of every image, or frame of one, by its name and number."""
    return {
        (image.SOPInstanceUID, number): pixels.astype(int) - 1024
        for image in map(dcmread, paths)
        for number, pixels in enumerate(image.pixel_array.reshape(-1, image.Rows, image.Columns), start=1)
    }


def check_coordinates(written: Path, paths: list[Path]) -> None:
    """Each arrow points into its block, and each box surrounds it, in the very image that it names."""
    sources = slices(paths)
    values = {segment.type.value: value for segment, value in zip(cases.SEGMENTS, BLOCKS, strict=True)}
    report = highdicom.sr.srread(written)
    groups = report.content.get_planar_roi_measurement_groups()
    assert len(groups) > len(BLOCKS)
    for group in groups:
        [reference] = group.roi.ContentSequence[0].ReferencedSOPSequence
        units = sources[reference.ReferencedSOPInstanceUID, reference.get("ReferencedFrameNumber", 1)]
        block = np.argwhere(units == values[group.finding_type.value])[:, ::-1]
        drawn = group.roi.value.reshape(-1, 2)
        if len(drawn) == 1:
            assert (np.floor(drawn[0]) == block).all(axis=1).any()
        else:
            assert drawn.min(axis=0).tolist() == block.min(axis=0).tolist()
            assert drawn.max(axis=0).tolist() == (block.max(axis=0) + 1).tolist()


def check_pictures(written: Path, paths: list[Path]) -> None:
    """Each colour spans, in its picture, what its block spans in the very image that the picture names."""
    sources = slices(paths)
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
