"""Resampling keeps places, intensities mean what the manifest says, and bad volumes are refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import grids, preprocess, resampling
from engines import intensity as intensities
from engines import manifest_inputs as manifest
from engines.errors import VolumeError
from engines.volume import Geometry, Volume
from tests.engines import build
from tests.support import phantoms

RNG = np.random.default_rng(3)


def _input(**changes: Any) -> manifest.Input:
    return manifest.Input.model_validate(build.entry(**changes))


def _ramp(geometry: Geometry) -> NDArray[np.float64]:
    """A value that is linear in the patient's millimetres, unlike along every axis."""
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1)
    return geometry.to_patient(index.astype(np.float64)) @ np.array([1.0, -2.5, 0.3])


def test_the_model_grid_covers_the_same_box() -> None:
    source = build.volume(np.zeros((12, 32, 40))).geometry
    grid = grids.at_spacing(source, (3.0, 3.0, 3.0))
    assert grid.shape == (10, 9, 9)
    for low, high in (((-0.5,) * 3, (-0.5,) * 3), (np.array(source.shape) - 0.5, np.array(grid.shape) - 0.5)):
        np.testing.assert_allclose(
            source.to_patient(np.array(low)), grid.to_patient(np.array(high)), atol=1e-9
        )


@pytest.mark.parametrize("spacing", [(3.0, 3.0, 3.0), (1.3, 0.9, 2.1), (0.7, 0.31, 0.33), (2.5, 1.6, 1.4)])
def test_values_stay_where_they_are_in_the_patient(spacing: tuple[float, float, float]) -> None:
    """Where an image is linear, the resampled image is the same line read at the new grid's points."""
    source = build.volume(np.zeros((24, 32, 40))).geometry
    grid = grids.at_spacing(source, spacing)
    resampled = resampling.resample(_ramp(source), grid.shape)
    # Away from the faces, beyond which the edge value holds.
    margins = [int(np.ceil(max(1, m / n))) for n, m in zip(source.shape, grid.shape, strict=True)]
    inner = tuple(slice(margin, -margin) for margin in margins)
    assert resampled[inner].size > 0
    np.testing.assert_allclose(resampled[inner], _ramp(grid)[inner], atol=1e-3)


@pytest.mark.parametrize(("n_in", "n_out"), [(512, 133), (133, 512), (7, 3), (3, 7), (1, 4), (5, 1), (10, 9)])
@pytest.mark.parametrize("antialias", [True, False])
def test_weights_are_averages(n_in: int, n_out: int, antialias: bool) -> None:
    weights = resampling.axis_weights(n_in, n_out, antialias=antialias)
    assert weights is not None
    assert weights.shape == (n_out, n_in)
    assert weights.data.min() > 0
    np.testing.assert_allclose(np.asarray(weights.sum(axis=1)).ravel(), 1, atol=1e-6)
    # Mirrored input, mirrored output: no half voxel is lost to one side.
    dense = weights.toarray()
    np.testing.assert_allclose(dense, dense[::-1, ::-1], atol=1e-6)


def test_equal_lengths_change_nothing() -> None:
    assert resampling.axis_weights(9, 9, antialias=True) is None
    array = RNG.normal(size=(5, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(resampling.resample(array, (5, 6, 7)), array)


def test_detail_that_does_not_fit_is_averaged_away() -> None:
    checkers = np.indices((32, 32, 32)).sum(axis=0) % 2
    small = resampling.resample(checkers, (8, 8, 8))
    np.testing.assert_allclose(small, 0.5, atol=0.01)
    noise = RNG.normal(size=(32, 32, 32))
    assert resampling.resample(noise, (8, 8, 8)).std() < 0.2


def test_threads_do_not_change_a_bit() -> None:
    array = RNG.normal(size=(37, 50, 41))
    one = resampling.resample(array, (11, 20, 60), threads=1)
    np.testing.assert_array_equal(one, resampling.resample(array, (11, 20, 60), threads=3))


def test_noise_in_the_spacing_does_not_change_the_grid() -> None:
    shapes = set()
    for noise in (-1e-13, 0.0, 1e-13):
        source = build.volume(np.zeros((21, 20, 20)), spacing=(1.5 + noise, 1.0, 1.0)).geometry
        shapes.add(grids.at_spacing(source, (3.0, 1.0, 1.0)).shape)
    assert shapes == {(11, 20, 20)}


def test_a_grid_beyond_all_memory_is_refused() -> None:
    source = build.volume(np.zeros((12, 32, 40))).geometry
    with pytest.raises(VolumeError, match="more than the engine holds"):
        grids.at_spacing(source, (0.01, 0.01, 0.01))


def _scaled(array: NDArray[Any], **intensity: Any) -> NDArray[np.float32]:
    return intensities.scaling_for(_input(intensity=intensity).intensity, array)(array)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_intensities(dtype: Any) -> None:
    array = phantoms.asymmetric((12, 32, 40)).astype(dtype)
    values = array.astype(np.float64)
    window = _scaled(array, kind="window", low=-900, high=500)
    np.testing.assert_allclose(window, (np.clip(values, -900, 500) + 900) / 1400, atol=1e-6)
    ct = _scaled(array, kind="ct", low=-900, high=500, mean=-10, std=300)
    np.testing.assert_allclose(ct, (np.clip(values, -900, 500) + 10) / 300, atol=1e-5)
    z = _scaled(array, kind="z-score")
    np.testing.assert_allclose(z, (values - values.mean()) / values.std(), atol=1e-5)
    low, high = np.percentile(values, (2, 99))
    percentile = _scaled(array, kind="percentile", low=2, high=99)
    np.testing.assert_allclose(percentile, (np.clip(values, low, high) - low) / (high - low), atol=1e-5)
    span = _scaled(array, kind="min-max")
    assert (span.min(), span.max()) == (0, 1)
    assert all(one.dtype == np.float32 for one in (window, ct, z, percentile, span))


def test_percentiles_of_integers_are_those_of_numpy() -> None:
    array = RNG.integers(-1024, 3071, size=(5, 17, 13)).astype(np.int16)
    for percents in ((0.0, 100.0), (0.5, 99.5), (33.3, 66.7)):
        assert intensities._percentiles(array, percents) == pytest.approx(np.percentile(array, percents))
    np.testing.assert_allclose(
        intensities._percentiles(array.astype(np.float32), (5, 95)), np.percentile(array, (5, 95)), rtol=1e-6
    )


def test_a_z_score_of_nonzero_voxels_leaves_zero_alone() -> None:
    array = np.zeros((4, 5, 6), np.float32)
    array[1:3] = RNG.normal(500, 40, size=(2, 5, 6))
    scaled = _scaled(array, kind="z-score", nonzero=True)
    assert (scaled[array == 0] == 0).all()
    assert scaled[array != 0].mean() == pytest.approx(0, abs=1e-5)
    assert scaled[array != 0].std() == pytest.approx(1, abs=1e-5)


def test_a_large_offset_does_not_cost_the_digits() -> None:
    array = (RNG.normal(size=(10, 20, 20)) + 1e6).astype(np.float64)
    assert intensities._moments(array, nonzero=False)[1] == pytest.approx(array.std(), rel=1e-9)


def test_an_image_without_contrast_is_refused() -> None:
    array = np.zeros((4, 10, 10), np.int16)
    array[0, 0, 0] = 1
    with pytest.raises(VolumeError, match="no contrast"):
        _scaled(array, kind="percentile", low=5, high=95)
    with pytest.raises(VolumeError, match="same value"):
        _scaled(array, kind="z-score", nonzero=True)


def _turned(degrees: float) -> Volume:
    """A volume rotated about the patient's long axis."""
    upright = build.volume(phantoms.asymmetric((12, 32, 40)))
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    geometry = Geometry(shape=upright.geometry.shape, affine=turn @ upright.geometry.affine)
    return Volume(array=upright.array, geometry=geometry, unit=upright.unit)


def test_obliquity_is_measured_and_bounded() -> None:
    assert preprocess.obliquity(_turned(0).geometry) == pytest.approx(0, abs=1e-5)
    assert preprocess.obliquity(_turned(-12).geometry) == pytest.approx(12)
    preprocess.check(_turned(30), _input())
    with pytest.raises(VolumeError, match="turned 35 degrees away from the patient's axes"):
        preprocess.check(_turned(35), _input())


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros((12, 8, 8), np.int16), "every voxel of the volume has the same value, 0"),
        (np.full((12, 8, 8), np.nan, np.float32), "not finite"),
        (np.where(np.arange(768).reshape(12, 8, 8) == 5, np.inf, 1.0), "not finite"),
        (np.arange(64).reshape(1, 8, 8), "the volume has 1 slices; the model needs at least 3"),
    ],
)
def test_what_is_no_image_is_refused(array: NDArray[Any], complaint: str) -> None:
    with pytest.raises(VolumeError, match=complaint):
        preprocess.prepare(build.volume(array), _input(min_slices=3))


def test_the_padding_outside_the_scanner_does_not_bleed() -> None:
    """Values are clipped before they are averaged: -2000 outside the circle counts as air."""
    array = np.full((4, 8, 8), 0, np.int16)
    array[:, :, :4] = -2000
    prepared = preprocess.prepare(
        build.volume(array, spacing=(1, 1, 1)),
        _input(spacing_mm=[1, 1, 8], intensity={"kind": "window", "low": -1000, "high": 0}),
    )
    np.testing.assert_allclose(prepared.array, 0.5, atol=1e-6)
