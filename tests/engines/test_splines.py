"""Resampling as nnU-Net does it, beside scipy's resampling of the whole volume at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from engines import body, preprocess, splines
from engines.errors import VolumeError
from engines.manifest_entries import Splines
from engines.manifest_inputs import Input
from tests.engines import build

SHAPE = (9, 24, 20)
ARRAY = np.random.default_rng(5).normal(0, 300, SHAPE).astype(np.float32)


def _floats(slab: NDArray[Any]) -> NDArray[np.float32]:
    return np.array(slab, dtype=np.float32)


def _whole(array: NDArray[np.float32], shape: tuple[int, ...], order: Any) -> NDArray[np.float64]:
    """All axes at once, as scikit-image's resize has it, which nnU-Net calls: clipped to the range of the input."""
    factors = [new / old for new, old in zip(shape, array.shape, strict=True)]
    values = ndimage.zoom(array.astype(np.float64), factors, order=order, mode="nearest", grid_mode=True)
    return np.asarray(np.clip(values, array.min(), array.max()))


@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("shape", [(15, 13, 31), (9, 24, 33), (4, 24, 20), (9, 24, 20)])
def test_axis_by_axis_is_what_all_axes_at_once_are(shape: tuple[int, int, int], order: int) -> None:
    axes = splines.axes(SHAPE, shape, ((1.0, 1.0, 1.0), (1.0, 1.0, 1.0)), Splines(order=order))
    got = splines.resample(ARRAY, axes, scaling=_floats, threads=2)
    assert np.abs(got - _whole(ARRAY, shape, order)).max() < 1e-2


@pytest.mark.parametrize("thick", [0, 1, 2])
def test_the_axis_of_the_thick_voxels_is_resampled_apart_from_its_nearest_voxels(thick: int) -> None:
    spacing = [1.0, 1.0, 1.0]
    spacing[thick] = 5.0
    shape = [15, 36, 30]
    shape[thick] = 2 * SHAPE[thick]
    axes = splines.axes(SHAPE, shape, (spacing, (1.0, 1.0, 1.0)), Splines())
    assert axes.apart == thick
    got = splines.resample(ARRAY, axes, scaling=_floats)
    sides = tuple(length for axis, length in enumerate(shape) if axis != thick)
    for index in range(shape[thick]):
        expected = _whole(ARRAY.take(index // 2, axis=thick), sides, 3)
        assert np.abs(got.take(index, axis=thick) - expected).max() < 1e-2


@pytest.mark.parametrize(
    ("own", "asked", "apart", "expected"),
    [
        ((5.0, 1.0, 1.0), (2.0, 1.0, 1.0), None, 0),
        ((2.0, 1.0, 1.0), (5.0, 1.0, 1.0), None, 0),
        ((3.0, 1.0, 1.0), (2.0, 1.0, 1.0), None, None),
        ((5.0, 5.0, 1.0), (2.0, 1.0, 1.0), None, None),
        ((2.0, 1.0, 1.0), (1.0, 1.0, 1.0), True, 0),
        ((9.0, 1.0, 1.0), (9.0, 1.0, 1.0), False, None),
    ],
)
def test_which_axis_is_apart_is_said_by_both_spacings(
    own: tuple[float, ...], asked: tuple[float, ...], apart: bool | None, expected: int | None
) -> None:
    assert splines.axes(SHAPE, SHAPE, (own, asked), Splines(apart=apart)).apart == expected


def test_only_the_body_is_scaled_and_its_holes_are_of_it() -> None:
    values = np.zeros((5, 12, 12), np.int16)
    values[1:4, 2:10, 2:10] = np.random.default_rng(1).integers(50, 150, (3, 8, 8))
    values[2, 5, 5] = 0
    beside = np.zeros_like(values)
    beside[2, 0, 0] = 1
    scaled = body.normalised(build.volume(values), body.inside([values, beside])).array
    inside = np.zeros(values.shape, bool)
    inside[1:4, 2:10, 2:10] = True
    inside[2, 0, 0] = True
    assert abs(float(scaled[inside].mean())) < 1e-4
    assert abs(float(scaled[inside].std()) - 1) < 1e-4
    assert scaled[2, 5, 5] < -2
    assert (scaled[~inside] == 0).all()


def test_what_was_labelled_before_is_of_the_body() -> None:
    values = np.zeros((3, 6, 6), np.int16)
    values[1, 1:3, 1:3] = [[50, 60], [70, 80]]
    labelled = np.zeros(values.shape, bool)
    labelled[2, 4, 4] = labelled[1, 1, 1] = True
    entry = Input.model_validate(
        build.entry(sampling="nnunet", intensity={"kind": "z-score", "nonzero": "filled"})
    )
    scaled = preprocess.prepare(build.volume(values), entry, labelled=labelled).array
    inside = (values != 0) | labelled
    wanted = (values[inside] - values[inside].mean()) / values[inside].std()
    np.testing.assert_allclose(scaled[inside], wanted, rtol=1e-5)
    assert (scaled[~inside] == 0).all()


def test_a_body_of_one_value_is_refused() -> None:
    values = np.zeros((3, 4, 4), np.int16)
    values[1, 1:3, 1:3] = 7
    with pytest.raises(VolumeError, match="all have the same value"):
        body.normalised(build.volume(values), body.inside([values]))
