"""The longest diameter is what a reader with a caliper finds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import diameter, measure
from tests.engines import build

SPACING = (3.0, 0.7, 0.4)
RNG = np.random.default_rng(5)


def by_hand(region: NDArray[np.bool_], spacing: tuple[float, float, float]) -> float:
    """The greatest distance between any two middles of pixels' sides, slice by slice."""
    best = 0.0
    for plane in region:
        at = np.argwhere(plane).astype(float)
        sides = [at + step for step in ([0.5, 0], [-0.5, 0], [0, 0.5], [0, -0.5])]
        points = np.concatenate(sides) * spacing[1:]
        if len(points):
            best = max(best, float(np.linalg.norm(points[:, None] - points[None], axis=2).max()))
    return best


@pytest.mark.parametrize("density", [0.02, 0.2, 0.9])
def test_it_is_the_longest_of_all_lines(density: float) -> None:
    region = RNG.random((6, 17, 23)) < density
    found = diameter.longest(region, SPACING)
    assert found is not None
    assert found.mm == pytest.approx(by_hand(region, SPACING))
    first, second = (np.array(end) for end in found.ends)
    assert first[0] == second[0]
    assert np.linalg.norm((first - second) * SPACING) == pytest.approx(found.mm)


def test_one_pixel_is_as_long_as_it_is() -> None:
    region = np.zeros((3, 5, 5), bool)
    region[1, 2, 3] = True
    assert diameter.longest(region, SPACING) == diameter.Diameter(ends=((1, 1.5, 3), (1, 2.5, 3)), mm=0.7)


def test_nothing_has_none() -> None:
    assert diameter.longest(np.zeros((2, 3, 4), bool), SPACING) is None


def test_a_disc_has_its_diameter() -> None:
    rows, columns = np.ogrid[-40:41, -40:41]
    disc = ((rows**2 + columns**2) <= 30**2)[None]
    found = diameter.longest(disc, (1, 0.5, 0.5))
    assert found is not None
    assert found.mm == pytest.approx(30.5, abs=0.5)


def test_each_label_and_the_union_are_measured_with_their_lines() -> None:
    mask = np.zeros((4, 20, 20), np.uint8)
    mask[1, 5, 2:12], mask[2, 8:11, 8] = 1, 2
    mm = build.code("mm", "millimeter", "UCUM")
    entry = build.measurement("long", "longest_diameter", of=["label1", "label2"], combined=True, unit=mm)
    manifest = build.validated(measurements=[entry])
    measured = measure.measure(manifest, build.volume(mask, spacing=(2, 0.5, 0.25)), mask)
    assert [(one.segment_number, one.value) for one in measured] == [(1, 2.5), (2, 1.5), (None, 2.5)]
    assert measured[0].ends == ((1, 5, 1.5), (1, 5, 11.5))
    centimetres = build.validated(measurements=[entry | {"unit": build.code("cm", "centimeter", "UCUM")}])
    assert measure.measure(centimetres, build.volume(mask, spacing=(2, 0.5, 0.25)), mask)[0].value == 0.25


def test_a_label_without_voxels_has_no_diameter() -> None:
    mm = build.code("mm", "millimeter", "UCUM")
    manifest = build.validated(measurements=[build.measurement("long", "longest_diameter", unit=mm)])
    nothing = np.zeros((4, 20, 20), np.uint8)
    assert measure.measure(manifest, build.volume(nothing), nothing) == ()
