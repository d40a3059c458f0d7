"""A volume that no model can look at ends with what is wrong with it; an odd one that it can look at is answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import grids, package, predict, preprocess
from engines.errors import VolumeError
from engines.intensity import scaling_for
from engines.manifest_inputs import Input
from engines.testing import threshold_runner
from engines.volume import Geometry, Volume
from tests.engines import build

RNG = np.random.default_rng(17)
#: In the normalised window, for 200 and 600 HU.
THRESHOLDS = (0.6, 0.8)


def _input(**changes: Any) -> Input:
    return Input.model_validate(build.entry(**changes))


def _mask(folder: Path, volume: Volume, **entry: Any) -> NDArray[Any]:
    """The labels of a network that takes patches of 8 x 16 x 16."""
    inputs = [build.entry(**entry)]
    opened = package.open_package(build.write(folder, build.thresholds(THRESHOLDS), inputs=inputs))
    with threshold_runner(opened, THRESHOLDS) as runner:
        return predict.predict(opened, runner, volume).mask


def _image(shape: tuple[int, int, int], dtype: Any = np.int16) -> NDArray[Any]:
    array = RNG.integers(-900, 900, shape).astype(dtype)
    array.flat[0], array.flat[-1] = -900, 900
    return array


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(2, 5, 3), (8, 3, 40), (1, 30, 30), (30, 1, 2), (2, 1, 1)])
def test_a_volume_smaller_than_the_patch_has_its_labels(
    tmp_path: Path, shape: tuple[int, int, int], dtype: Any
) -> None:
    # Of uint8 the upper label is out of reach.
    array = (
        _image(shape).clip(0, 255).astype(dtype) if dtype in (np.uint8, np.uint16) else _image(shape, dtype)
    )
    found = _mask(tmp_path, build.volume(array), min_slices=1)
    limits = array.astype(float) >= 200, array.astype(float) >= 600
    # A value on the threshold itself may go either way by its rounding.
    sure = (array != 200) & (array != 600)
    np.testing.assert_array_equal(found[sure], limits[0].astype(int)[sure] + limits[1][sure])


def test_one_slice_is_too_few_unless_the_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(VolumeError, match="the volume has 1 slices; the model needs at least 2"):
        _mask(tmp_path, build.volume(_image((1, 30, 30))))


def test_an_empty_volume_cannot_be_made() -> None:
    with pytest.raises(VolumeError, match=r"at least one voxel, not \(0, 5, 5\)"):
        build.volume(np.zeros((0, 5, 5), np.int16))


@pytest.mark.parametrize("value", [0, -1024, 3.5])
def test_a_constant_volume_is_refused(tmp_path: Path, value: float) -> None:
    with pytest.raises(VolumeError, match=f"every voxel of the volume has the same value, {value:g}"):
        _mask(tmp_path, build.volume(np.full((8, 9, 10), value, np.float32)))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_values_that_are_no_numbers_are_counted(tmp_path: Path, value: float) -> None:
    array = _image((8, 9, 10), np.float32)
    array[3, 4, 2:4] = value
    with pytest.raises(VolumeError, match="not finite numbers: 2 of 720 voxels"):
        _mask(tmp_path, build.volume(array))


def test_values_beyond_float32_are_refused(tmp_path: Path) -> None:
    array = _image((8, 9, 10), np.float64)
    array[3, 4, 5] = 1e300
    with pytest.raises(VolumeError, match=r"run from -900 to 1e\+300: more than float32 can hold"):
        _mask(tmp_path, build.volume(array))


@pytest.mark.parametrize(
    "intensity",
    [{"kind": "min-max"}, {"kind": "percentile"}, {"kind": "z-score"}, {"kind": "z-score", "nonzero": True}],
)
def test_differences_too_small_to_divide_by_are_none(intensity: dict[str, Any]) -> None:
    array = np.full((4, 5, 6), 1e-42, np.float32)
    array[0] = 3e-42
    with pytest.raises(VolumeError, match=r"no contrast|same value"):
        preprocess.prepare(build.volume(array), _input(intensity=intensity))


@pytest.mark.parametrize("span", [1e-30, 1e-3, 1e30])
@pytest.mark.parametrize("kind", ["min-max", "percentile", "z-score"])
def test_what_a_network_sees_is_finite(kind: str, span: float) -> None:
    array = (RNG.random((6, 7, 8)) * span).astype(np.float32)
    seen = preprocess.prepare(build.volume(array), _input(intensity={"kind": kind})).array
    assert np.isfinite(seen).all() and seen.std() > 0.1


def test_a_z_score_of_nothing_is_refused() -> None:
    with pytest.raises(
        VolumeError, match="every voxel of the volume is 0, and the z-score is made of the others"
    ):
        scaling_for(
            _input(intensity={"kind": "z-score", "nonzero": True}).intensity, np.zeros((3, 4, 5), np.int16)
        )
    # One that is not zero has no deviation.
    array = np.zeros((3, 4, 5), np.int16)
    array[1, 1, 1] = 7
    with pytest.raises(VolumeError, match="all have the same value"):
        preprocess.prepare(build.volume(array), _input(intensity={"kind": "z-score", "nonzero": True}))


def test_steps_that_leave_nothing_are_named() -> None:
    array = np.abs(_image((8, 9, 10)))
    with pytest.raises(
        VolumeError, match="after its steps every voxel of the volume has the same value, 2000"
    ):
        preprocess.prepare(build.volume(array), _input(steps=[{"kind": "clip", "low": 2000}]))
    with pytest.raises(
        VolumeError, match="no voxel of the volume is above 5000: there is nothing to crop to"
    ):
        preprocess.prepare(build.volume(array), _input(steps=[{"kind": "crop", "above": 5000}]))


@pytest.mark.parametrize(
    "entry",
    [{}, {"sampling": "nnunet"}, {"spacing_mm": [2.5, 0.8, 0.7]}, {"size": [2000, 1000, 1000]}],
)
def test_a_grid_beyond_all_memory_is_refused_before_it_is_made(entry: dict[str, Any]) -> None:
    source = Geometry(shape=(3000, 512, 512), affine=np.diag([2.5, 0.8, 0.7, 1.0]))
    with pytest.raises(
        VolumeError, match=r"would have \(.*\) voxels, more than the engine holds \(268435456\)"
    ):
        grids.of_model(source, _input(**entry))
