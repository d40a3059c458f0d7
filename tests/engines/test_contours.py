"""The boundary of a region: every pixel inside, none else, whatever rule it is filled by."""

from __future__ import annotations

import hypothesis.extra.numpy as arrays
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from numpy.typing import NDArray
from scipy import ndimage

from engines import contours
from engines.contours import Line

REGIONS = arrays.arrays(np.bool_, st.tuples(st.integers(1, 12), st.integers(1, 12)))


def turns(lines: list[Line], shape: tuple[int, int]) -> NDArray[np.int64]:
    """How often the lines go round each pixel, those against the clock counted as negative."""
    crossed = np.zeros((shape[0], shape[1] + 1), np.int64)
    for line in lines:
        for (row, column), (next_row, _) in zip(line, np.roll(line, -1, axis=0), strict=True):
            low, high = min(row, next_row), max(row, next_row)
            crossed[low:high, column] += 1 if next_row < row else -1
    return np.cumsum(crossed, axis=1)[:, :-1]


def picture(*rows: str) -> NDArray[np.bool_]:
    return np.array([[pixel == "#" for pixel in row] for row in rows])


def test_a_pixel_has_four_corners() -> None:
    [line] = contours.outlines(picture("...", "..#"))
    assert line.tolist() == [[1, 2], [1, 3], [2, 3], [2, 2]]


def test_what_touches_at_a_corner_is_two() -> None:
    assert len(contours.polygons(picture("#.", ".#"))) == 2
    assert len(contours.polygons(picture(".#", "#."))) == 2


def test_a_hole_has_a_line_of_its_own_or_is_cut_in() -> None:
    ring = picture("####", "#.##", "####")
    outer, hole = contours.outlines(ring)
    assert len(outer) == 4 and len(hole) == 4
    [line] = contours.polygons(ring)
    # From the left edge to the hole, around it, and back
    assert line.tolist()[4:] == [[1, 0], [1, 1], [2, 1], [2, 2], [1, 2], [1, 1], [1, 0]]


@pytest.mark.parametrize("shape", [(1, 1), (3, 5)])
def test_nothing_has_no_line_and_everything_one(shape: tuple[int, int]) -> None:
    assert contours.outlines(np.zeros(shape, bool)) == contours.polygons(np.zeros(shape, bool)) == []
    [line] = contours.polygons(np.ones(shape, bool))
    assert line.tolist() == [[0, 0], [0, shape[1]], [shape[0], shape[1]], [shape[0], 0]]


@given(REGIONS)
def test_outlines_enclose_the_region(region: NDArray[np.bool_]) -> None:
    assert np.array_equal(turns(contours.outlines(region), region.shape), region)


@given(REGIONS)
def test_polygons_fill_each_pixel_once_by_any_rule(region: NDArray[np.bool_]) -> None:
    polygons = contours.polygons(region)
    parts, count = ndimage.label(region)
    assert len(polygons) == count
    seen = set()
    for line in polygons:
        # Round what is in it once, and not at all round its holes
        once = turns([line], region.shape)
        [part] = set(parts[once == 1].tolist())
        assert np.array_equal(once, parts == part)
        seen.add(part)
    assert len(seen) == count


@given(REGIONS)
def test_lines_run_along_edges_and_only_turn(region: NDArray[np.bool_]) -> None:
    for line in contours.polygons(region):
        steps = np.roll(line, -1, axis=0) - line
        assert ((steps != 0).sum(axis=1) == 1).all()
    for line in contours.outlines(region):
        across = (np.roll(line, -1, axis=0) - line)[:, 1] != 0
        assert (across != np.roll(across, 1)).all()


def test_ten_thousand_holes_are_cut_in() -> None:
    region = np.ones((301, 301), bool)
    region[1::3, 1::3] = False
    [line] = contours.polygons(region)
    assert np.array_equal(turns([line], (301, 301)), region)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12)), elements=st.integers(0, 3)))
def test_points_and_lines_are_known_before_a_line_is_followed(plane: NDArray[np.uint8]) -> None:
    regions = [plane == label for label in (1, 2, 3)]
    lines = [line for region in regions for line in contours.outlines(region)]
    polygons = [line for region in regions for line in contours.polygons(region)]
    assert contours.corners(plane) == sum(map(len, lines))
    assert contours.lines(plane) == len(lines)
    assert sum(map(len, polygons)) <= 2 * contours.corners(plane)
