"""Each step is what its library does to the whole image, whatever the threads, and says what it cannot do."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import scipy.ndimage
import SimpleITK as itk
from numpy.typing import NDArray

from engines import preprocess, steps
from engines.bias import corrected
from engines.errors import VolumeError
from engines.manifest_inputs import Input
from engines.manifest_steps import BiasField
from engines.volume import Geometry, Scale, Volume
from tests.engines import build

RNG = np.random.default_rng(11)


def _steps(*given: dict[str, Any]) -> Input:
    return Input.model_validate(build.entry(steps=list(given)))


def _done(array: NDArray[Any], *given: dict[str, Any], threads: int = 1, **volume: Any) -> NDArray[Any]:
    entry = _steps(*given)
    return steps.run(build.volume(array, **volume), entry.source_steps, threads=threads).volume.array


def _noise(shape: tuple[int, int, int], dtype: Any = np.int16) -> NDArray[Any]:
    smooth = scipy.ndimage.gaussian_filter(RNG.normal(0, 3000, shape), 2)
    return (smooth + RNG.normal(0, 40, shape)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
@pytest.mark.parametrize("shape", [(1, 30, 25), (3, 9, 8), (21, 17, 13)])
def test_a_median_in_slabs_is_that_of_the_whole(shape: tuple[int, int, int], dtype: Any) -> None:
    array = _noise(shape, dtype)
    for size in (3, 7):
        along = 1 if shape[0] == 1 else size
        expected = scipy.ndimage.median_filter(array, size=(along, size, size))
        for threads in (1, 3):
            found = _done(array, {"kind": "median", "size": size}, threads=threads)
            assert found.dtype == dtype
            np.testing.assert_array_equal(found, expected)
    flat = _done(array, {"kind": "median", "size": 5, "in_plane": True})
    np.testing.assert_array_equal(flat, scipy.ndimage.median_filter(array, size=(1, 5, 5)))


@pytest.mark.parametrize("shape", [(1, 30, 25), (3, 9, 8), (40, 17, 13)])
def test_a_gaussian_in_slabs_is_that_of_the_whole(shape: tuple[int, int, int]) -> None:
    array = _noise(shape)
    for sigma in (0.8, 2.5):
        wide = (0 if shape[0] == 1 else sigma, sigma, sigma)
        expected = scipy.ndimage.gaussian_filter(array.astype(np.float32), wide)
        for threads in (1, 3):
            found = _done(array, {"kind": "gaussian", "sigma_voxels": sigma}, threads=threads)
            np.testing.assert_array_equal(found, expected)


def test_a_gaussian_in_millimetres_is_as_wide_along_every_axis() -> None:
    array = np.zeros((41, 41, 41), np.float32)
    array[20, 20, 20] = 1
    spacing = (2.0, 1.0, 0.5)
    found = _done(array, {"kind": "gaussian", "sigma_mm": 3}, spacing=spacing)
    for axis, width in enumerate(spacing):
        profile = found.sum(axis=tuple({0, 1, 2} - {axis}))
        places = (np.arange(41) - 20) * width
        spread = np.sqrt((profile * places**2).sum() / profile.sum())
        assert spread == pytest.approx(3, rel=0.03)


def test_millimetres_of_an_image_without_size_are_refused() -> None:
    geometry = Geometry(shape=(1, 9, 9), affine=np.eye(4), in_patient=False, scale=Scale.NONE)
    volume = Volume(array=RNG.normal(size=(1, 9, 9)), geometry=geometry)
    entry = Input.model_validate(build.entry(planar=True, steps=[{"kind": "gaussian", "sigma_mm": 1}]))
    with pytest.raises(VolumeError, match="does not say how large its pixels are"):
        preprocess.prepare(volume, entry)


def test_non_local_means_are_those_of_opencv() -> None:
    array = _noise((3, 40, 50))
    low = int(array.min())
    expected = [
        cv2.fastNlMeansDenoising(
            (plane.astype(np.int32) - low).astype(np.uint16),
            h=np.array([60], np.float32),
            templateWindowSize=5,
            searchWindowSize=11,
            normType=cv2.NORM_L1,
        ).astype(np.int32)
        + low
        for plane in array
    ]
    step = {"kind": "non-local-means", "strength": 60, "patch": 5, "window": 11}
    for threads in (1, 3):
        found = _done(array, step, threads=threads)
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found, expected)
    # Of floats the same, to the height of a level.
    floats = _done(array / 1000, step | {"strength": 0.06})
    np.testing.assert_allclose(floats, np.array(expected) / 1000, atol=0.012)


def test_noise_is_less_and_edges_stay() -> None:
    clean = np.zeros((2, 48, 48), np.float32)
    clean[:, :, 24:] = 1000
    noisy = clean + RNG.normal(0, 30, clean.shape)
    found = _done(noisy, {"kind": "non-local-means", "strength": 60})
    assert np.sqrt(np.square(found - clean).mean()) < 0.4 * np.sqrt(np.square(noisy - clean).mean())
    assert (found[:, :, 25:] - 1000).mean() == pytest.approx(0, abs=10)


def test_clahe_is_that_of_opencv_on_the_whole_images_range() -> None:
    array = _noise((3, 50, 66))
    low, high = int(array.min()), int(array.max())
    equaliser = cv2.createCLAHE(clipLimit=3.0, tileGridSize=(6, 4))
    levels = np.rint((array.astype(np.float64) - low) / (high - low) * 255).astype(np.uint8)
    expected = np.array([equaliser.apply(plane) for plane in levels]) / 255
    for threads in (1, 2):
        found = _done(array, {"kind": "clahe", "clip_limit": 3, "tiles": [4, 6]}, threads=threads)
        np.testing.assert_allclose((found - low) / (high - low), expected, atol=1e-5)


def test_clahe_may_have_a_range_of_its_own() -> None:
    array = _noise((2, 32, 32))
    found = _done(array, {"kind": "clahe", "low": -100, "high": 100})
    assert -100 <= found.min() < found.max() <= 100
    with pytest.raises(VolumeError, match=r"the range \[99999, .*\] of the step clahe is empty"):
        _done(array, {"kind": "clahe", "low": 99999})


def _biased() -> tuple[NDArray[Any], NDArray[Any]]:
    """A ball of two tissues, and the same under a field that changes its brightness by a factor."""
    places = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in (24, 40, 36)], indexing="ij"))
    ball = np.square(places).sum(axis=0) < 0.8
    tissue = ball * np.where(np.square(places).sum(axis=0) < 0.3, 600.0, 400.0)
    field = np.exp(0.35 * places[0] - 0.3 * places[2] + 0.1 * places[1] ** 2)
    return tissue, tissue * field + ball * RNG.normal(0, 5, tissue.shape)


def test_a_bias_field_is_taken_out() -> None:
    tissue, biased = _biased()
    found = _done(biased, {"kind": "bias-field", "shrink": 2, "iterations": [30, 30, 20]})

    def variation(array: NDArray[Any]) -> float:
        inner = array[tissue == 600]
        return float(inner.std() / inner.mean())

    assert variation(found) < 0.25 * variation(biased)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found == 0, biased == 0)


def test_the_bias_field_is_that_of_simpleitk() -> None:
    _, biased = _biased()
    image = itk.GetImageFromArray(biased.astype(np.float32))
    # 24 slices are too few to leave any out.
    small = itk.Shrink(image, [2, 2, 1])
    fit = itk.N4BiasFieldCorrectionImageFilter()
    fit.SetMaximumNumberOfIterations([20, 20])
    fit.Execute(small, itk.OtsuThreshold(small, 0, 1, 200))
    expected = biased / np.exp(itk.GetArrayFromImage(fit.GetLogBiasFieldAsImage(image)))
    step = BiasField(kind="bias-field", shrink=2, iterations=(20, 20))
    found = corrected(biased, step)
    np.testing.assert_allclose(found, expected, rtol=1e-4)
    np.testing.assert_array_equal(corrected(biased, step, threads=3), found)


@pytest.mark.parametrize("shape", [(1, 40, 48), (3, 40, 48)])
def test_a_bias_field_of_few_slices_is_possible(shape: tuple[int, int, int]) -> None:
    places = np.linspace(0.5, 1.5, shape[2])
    array = np.where(np.arange(shape[1])[:, None] > 12, 500 * places, 3) + RNG.normal(0, 3, shape)
    found = _done(array, {"kind": "bias-field"})
    assert found.shape == shape
    assert found[:, 20:].std() < 0.5 * array[:, 20:].std()


def test_a_clip_keeps_the_type_where_it_can() -> None:
    array = _noise((4, 20, 20))
    whole = _done(array, {"kind": "clip", "low": -50, "high": 99999})
    assert whole.dtype == np.int16
    np.testing.assert_array_equal(whole, np.maximum(array, -50))
    part = _done(array, {"kind": "clip", "high": 0.5})
    assert part.dtype == np.float32
    np.testing.assert_array_equal(part, np.minimum(array, np.float32(0.5)))


def test_steps_are_done_in_their_order() -> None:
    array = _noise((8, 20, 20))
    array[2, 3, 4] = 30000
    clip, median = {"kind": "clip", "low": -10, "high": 10}, {"kind": "median"}
    crop = {"kind": "crop", "above": 20000}
    one = scipy.ndimage.median_filter(np.clip(array, -10, 10), 3)
    np.testing.assert_array_equal(_done(array, clip, median), one)
    # The median takes away the one voxel that a crop would have found.
    with pytest.raises(VolumeError, match="no voxel of the volume is above 20000"):
        _done(array, median, crop)
    assert _done(array, crop | {"margin": 2}).shape == (5, 5, 5)


def test_the_source_is_never_changed() -> None:
    array = _noise((4, 24, 24))
    before = array.copy()
    _done(
        array,
        {"kind": "median"},
        {"kind": "gaussian", "sigma_voxels": 1},
        {"kind": "clahe"},
        {"kind": "clip", "low": 0},
        {"kind": "non-local-means", "strength": 10},
        {"kind": "bias-field", "iterations": [5]},
    )
    np.testing.assert_array_equal(array, before)


@pytest.mark.parametrize(
    ("step", "complaint"),
    [
        ({"kind": "median", "size": 4}, "size is odd"),
        ({"kind": "gaussian"}, "give sigma_mm or sigma_voxels, and not both"),
        ({"kind": "gaussian", "sigma_mm": 1, "sigma_voxels": 1}, "and not both"),
        ({"kind": "clip"}, "needs low, high or both"),
        ({"kind": "clip", "low": 3, "high": 3}, "high is above low"),
        ({"kind": "clahe", "low": 3, "high": 3}, "high is above low"),
        ({"kind": "non-local-means", "strength": 1, "window": 20}, "window is odd"),
        ({"kind": "bias-field", "iterations": [50, 1000]}, "less than or equal to 200"),
        ({"kind": "pad"}, "give multiple_of or at_least"),
    ],
)
def test_a_step_that_cannot_be_is_refused(step: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        _steps(step)


def _prepared(array: NDArray[Any], threads: int) -> NDArray[np.float32]:
    given = [
        {"kind": "bias-field", "iterations": [10, 10]},
        {"kind": "crop", "margin": 1},
        {"kind": "gaussian", "sigma_mm": 1},
        {"kind": "pad", "multiple_of": [8, 8, 8]},
    ]
    intensity = {"kind": "z-score", "nonzero": True}
    entry = Input.model_validate(build.entry(steps=given, intensity=intensity, spacing_mm=[2, 1, 1]))
    return preprocess.prepare(build.volume(array), entry, threads=threads).array


def test_repeated_it_gives_the_same_digits() -> None:
    _, biased = _biased()
    first = _prepared(biased, 1)
    for threads in (1, 2, 4):
        assert _prepared(biased, threads).tobytes() == first.tobytes()
