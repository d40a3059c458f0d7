"""Pictures show the patient as a radiologist expects: right on the left, head up, nothing stretched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import labels, overlay
from engines.errors import VolumeError
from engines.findings import Code, Segment
from engines.volume import Volume
from tests.engines import build

CODE = Code(value="1", scheme="SCT", meaning="x")
SEGMENTS = (
    Segment(number=1, label="one", category=CODE, type=CODE, colour=(255, 0, 0)),
    Segment(number=2, label="two", category=CODE, type=CODE, colour=(0, 255, 0)),
)
SHAPE = (20, 40, 50)
SPACING = (3.0, 1.0, 1.0)


def _marked(where: str) -> tuple[Volume, NDArray[Any]]:
    """A volume "HPL" with a block in the patient's direction `where`, masked as label 1."""
    axis, high = {
        "H": (0, True),
        "F": (0, False),
        "P": (1, True),
        "A": (1, False),
        "L": (2, True),
        "R": (2, False),
    }[where]
    part = [slice(None)] * 3
    part[axis] = slice(SHAPE[axis] * 3 // 4, None) if high else slice(0, SHAPE[axis] // 4)
    array = np.zeros(SHAPE, np.int16)
    array[tuple(part)] = 100
    return build.volume(array, spacing=SPACING), (array > 0).astype(np.uint8)


def _bright(picture: NDArray[Any]) -> str:
    """The side of the picture that holds what is bright."""
    grey = picture.astype(float).sum(axis=2)
    height, width = grey.shape
    sides = {
        "top": grey[: height // 5].mean(),
        "bottom": grey[-height // 5 :].mean(),
        "left": grey[:, : width // 5].mean(),
        "right": grey[:, -width // 5 :].mean(),
    }
    return max(sides, key=lambda side: sides[side])


@pytest.mark.parametrize(
    ("plane", "where", "side"),
    [
        ("axial", "R", "left"),
        ("axial", "L", "right"),
        ("axial", "A", "top"),
        ("axial", "P", "bottom"),
        ("coronal", "R", "left"),
        ("coronal", "L", "right"),
        ("coronal", "H", "top"),
        ("coronal", "F", "bottom"),
        ("sagittal", "A", "left"),
        ("sagittal", "P", "right"),
        ("sagittal", "H", "top"),
        ("sagittal", "F", "bottom"),
    ],
)
@pytest.mark.parametrize("scanned", ["HPL", "FPL", "LPF", "ALH"])
def test_every_side_is_where_a_radiologist_looks_for_it(
    plane: overlay.Plane, where: str, side: str, scanned: str
) -> None:
    volume, mask = _marked(where)
    turned = volume.reoriented(scanned)
    labels = Volume(array=mask, geometry=volume.geometry).reoriented(scanned).array
    plain = overlay.overlay(turned, labels, (), plane=plane, position=0.5, window=(0, 100), size=200)
    assert _bright(plain) == side
    drawn = overlay.overlay(
        turned, labels, SEGMENTS, plane=plane, position=0.5, window=(1000, 2000), size=200
    )
    assert _bright(drawn) == side


@pytest.mark.parametrize(("plane", "where"), [("axial", "H"), ("coronal", "P"), ("sagittal", "L")])
def test_the_position_runs_to_head_back_and_left(plane: overlay.Plane, where: str) -> None:
    volume, mask = _marked(where)
    pictures = [
        overlay.overlay(volume, mask, (), plane=plane, position=position, window=(0, 100), size=64)
        for position in (0.0, 1.0)
    ]
    assert (pictures[0].max(), pictures[1].min()) == (0, 255)


@pytest.mark.parametrize(
    ("plane", "shape"), [("axial", (160, 200)), ("coronal", (200, 167)), ("sagittal", (200, 133))]
)
def test_millimetres_keep_their_proportion(plane: overlay.Plane, shape: tuple[int, int]) -> None:
    volume, mask = _marked("L")
    picture = overlay.overlay(volume, mask, SEGMENTS, plane=plane, position=0.5, size=200)
    assert picture.shape == (*shape, 3)
    assert picture.dtype == np.uint8


def test_the_contour_is_crisp_and_the_fill_lets_the_image_through() -> None:
    array = np.full(SHAPE, 50, np.int16)
    mask = np.zeros(SHAPE, np.uint8)
    mask[:, 10:30, 10:20] = 1
    mask[:, 10:30, 30:40] = 2
    picture = overlay.overlay(
        build.volume(array, spacing=SPACING),
        mask,
        SEGMENTS,
        plane="axial",
        position=0.5,
        window=(0, 100),
        size=500,
    )
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    # The image, and for each segment its pure colour and the colour mixed with the image: nothing else.
    assert {(128, 128, 128), (255, 0, 0), (0, 255, 0)} < colours
    assert len(colours) == 5
    assert tuple(picture[200, 150]) == (166, 89, 89)
    assert tuple(picture[200, 350]) == (89, 166, 89)


def test_a_mask_of_another_grid_is_refused() -> None:
    volume, mask = _marked("L")
    with pytest.raises(VolumeError, match="differ in shape"):
        overlay.overlay(volume, mask[1:], SEGMENTS, plane="axial", position=0.5)


def test_a_flat_plane_without_a_window_is_drawn_all_the_same() -> None:
    volume = build.volume(np.zeros(SHAPE, np.int16), spacing=SPACING)
    picture = overlay.overlay(
        volume, np.zeros(SHAPE, np.uint8), SEGMENTS, plane="coronal", position=0.2, size=50
    )
    assert picture.max() == 0


def test_a_slice_is_drawn_as_it_was_acquired() -> None:
    # Given columns of 2 mm and rows of 1 mm, and a mark in the first rows of the first columns
    volume = build.volume(np.zeros((3, 40, 50), np.int16), spacing=(3.0, 1.0, 2.0))
    mask = np.zeros(volume.array.shape, np.uint8)
    mask[1, :10, :10] = 2
    picture = overlay.slice_overlay(volume, mask, SEGMENTS, index=1, window=(0, 1), size=200)
    # Then it has the slice's proportions, and the colour in that corner
    assert picture.shape == (80, 200, 3)
    coloured = np.argwhere((picture == (0, 255, 0)).all(axis=2))
    assert coloured.min(axis=0).tolist() == [0, 0]
    assert np.allclose(coloured.max(axis=0), (19, 39), atol=1)
    assert not overlay.slice_overlay(volume, mask, SEGMENTS, index=0, window=(0, 1), size=200).any()


@pytest.mark.parametrize(
    ("sizes", "expected"), [([9, 5, 80, 3], {2}), ([9, 0, 80, 0], set()), ([9], set()), ([9, 4, 4], {1})]
)
def test_the_largest_of_several_surrounds_the_others(sizes: list[int], expected: set[int]) -> None:
    assert labels.surrounding(np.array(sizes)) == expected
