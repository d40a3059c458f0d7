"""Boxes as arrays: read in every layout, moved between grids, and told apart as a plain loop would."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines import boxes
from engines.errors import OutputError
from engines.grids import at_spacing
from engines.volume import Volume
from tests.engines import build
from tests.engines.test_predict import ORIENTATIONS

#: Corners that often coincide, and scores of which many are equal.
_corner = st.tuples(*[st.integers(0, 6)] * 3)
_size = st.tuples(*[st.integers(1, 4)] * 3)
_some = st.lists(st.tuples(_corner, _size, st.sampled_from([0.1, 0.5, 0.9])), max_size=25)


def _naive(places: NDArray[np.float64], scores: NDArray[np.float64], overlap: float, most: int) -> list[int]:
    """Non-maximum suppression, one pair at a time, with shared voxels counted one by one."""
    cells = [
        {tuple(cell) for cell in np.argwhere(np.ones((high - low).astype(int))) + low.astype(int)}
        for low, high in places
    ]
    kept: list[int] = []
    for index in sorted(range(len(places)), key=lambda one: (-scores[one], one)):
        if all(
            len(cells[index] & cells[other]) <= overlap * len(cells[index] | cells[other]) for other in kept
        ):
            kept.append(index)
    return kept[:most]


@settings(max_examples=150, deadline=None)
@given(_some, st.sampled_from([0.0, 0.3, 1.0]), st.sampled_from([2, 100]))
def test_of_overlapping_boxes_the_same_stay_as_in_a_plain_loop(
    given_boxes: list[tuple[tuple[int, ...], tuple[int, ...], float]], overlap: float, most: int
) -> None:
    places = np.array([(low, np.add(low, size)) for low, size, _ in given_boxes], dtype=np.float64).reshape(
        -1, 2, 3
    )
    scores = np.array([score for *_, score in given_boxes])
    kept = boxes.distinct(places, scores, overlap=overlap, most=most)
    assert kept.tolist() == _naive(places, scores, overlap, most)


@pytest.mark.parametrize(
    ("box_format", "axis_order", "numbers"),
    [
        ("corners", "zyx", (1, 2, 3, 4, 7, 9)),
        ("corners", "xyz", (3, 2, 1, 9, 7, 4)),
        ("centre-size", "zyx", (2.5, 4.5, 6, 3, 5, 6)),
        ("centre-size", "xyz", (6, 4.5, 2.5, 6, 5, 3)),
    ],
)
def test_every_layout_is_read(box_format: str, axis_order: str, numbers: tuple[float, ...]) -> None:
    raw = np.array([numbers], np.float32)
    places = boxes.read(raw, box_format=box_format, axis_order=axis_order, name="boxes")
    np.testing.assert_array_equal(places, [[[1, 2, 3], [4, 7, 9]]])
    # Of a plane: without the slice, which is the last number in "xyz" and the first in "zyx"
    spared = [0, 3] if axis_order == "zyx" else [2, 5]
    places = boxes.read(
        np.delete(raw, spared, axis=1), box_format=box_format, axis_order=axis_order, name="b"
    )
    np.testing.assert_array_equal(places, [[[0, 2, 3], [1, 7, 9]]])


@pytest.mark.parametrize(
    ("numbers", "complaint"),
    [((1, 2, np.nan, 4), "not finite"), ((1, 5, 3, 4), "end before they begin")],
)
def test_what_is_no_box_is_refused_by_the_output_s_name(numbers: tuple[float, ...], complaint: str) -> None:
    raw = np.array([(0, 0, 1, 1), numbers])
    with pytest.raises(OutputError, match=f'output "rois" holds boxes .*{complaint}'):
        boxes.read(raw, box_format="corners", axis_order="xyz", name="rois")


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_box_keeps_its_place_in_the_patient(orientation: str) -> None:
    # Given the voxels of a box in a volume, and a grid of other axes and spacing over the same box
    volume = build.volume(np.zeros((12, 20, 16), np.int16))
    spacing = dict(zip("HFPALR", (5, 5, 0.4, 0.4, 0.7, 0.7), strict=True))
    other, *_ = volume.geometry.reoriented(orientation)
    grid = at_spacing(other, (spacing[orientation[0]], spacing[orientation[1]], spacing[orientation[2]]))
    place = np.array([[[2, 4, 1], [8, 5, 16]]], dtype=np.float64)
    # When it is moved there and back
    there = boxes.moved(place, volume.geometry, grid)
    back = boxes.moved(there, grid, volume.geometry)
    # Then it lies where it was, and over there it covers the same voxels
    np.testing.assert_array_equal(back, place)
    marked = np.zeros((12, 20, 16), np.int16)
    marked[2:8, 4:5, 1:16] = 1
    turned = Volume(array=marked, geometry=volume.geometry).reoriented(orientation)
    found = np.argwhere(turned.array)
    factors = np.array(other.shape) / np.array(grid.shape)
    np.testing.assert_allclose(there[0] * factors, [found.min(axis=0), found.max(axis=0) + 1], atol=1e-5)


def test_a_mirrored_box_is_turned_back() -> None:
    place = np.array([[[1, 2, 3], [4, 7, 9]]], dtype=np.float64)
    turned = boxes.mirrored(place, (8, 10, 12), (0, 2))
    np.testing.assert_array_equal(turned, [[[4, 2, 3], [7, 7, 9]]])
    np.testing.assert_array_equal(boxes.mirrored(turned, (8, 10, 12), (0, 2)), place)


def test_what_is_outside_is_cut_off() -> None:
    places = np.array(
        [[[-3, 2, 2], [2, 4, 20]], [[0, 12, 0], [1, 15, 1]], [[1, 1, 1], [1, 2, 2]]], np.float64
    )
    cut = boxes.clipped(places, (8, 10, 12))
    np.testing.assert_array_equal(cut[0], [[0, 2, 2], [2, 4, 12]])
    assert boxes.real(cut).tolist() == [True, False, False]
