"""Labels of regions, of interpolated logits, and of planes that are filled tile by tile."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from numpy.typing import NDArray

from engines import postprocess, resampling

SHAPE, SOURCE = (6, 14, 12), (9, 150, 140)


def _logits(classes: int) -> NDArray[np.float32]:
    noise = np.random.default_rng(11).normal(size=(classes, *SHAPE))
    return np.asarray(60 * scipy.ndimage.gaussian_filter(noise, (0, 2, 2, 2)), dtype=np.float32)


def _enlarged(values: NDArray[Any]) -> NDArray[np.float64]:
    """Every class on the whole source grid."""
    for axis in range(3):
        weights = resampling.axis_weights(SHAPE[axis], SOURCE[axis], antialias=False)
        assert weights is not None
        values = np.moveaxis(np.tensordot(weights.toarray(), values, axes=(1, axis + 1)), 0, axis + 1)
    return values


def _written(logits: NDArray[np.float32], **options: Any) -> NDArray[np.uint8]:
    mask = np.full(SOURCE, 255, np.uint8)
    backward = postprocess.Backward(mask, SHAPE, threads=2, **options)
    for start, stop in ((0, 1), (1, 4), (4, 6)):
        backward.write(start, logits[:, start:stop])
    return mask


@pytest.mark.parametrize("interpolate", ["probabilities", "logits"])
def test_of_regions_the_last_one_that_is_beyond_one_half_wins(interpolate: str) -> None:
    logits = _logits(3)
    mask = _written(logits, activation="sigmoid", interpolate=interpolate, numbers=(2, 1, 3))
    early = interpolate == "probabilities"
    values = _enlarged(1 / (1 + np.exp(-logits.astype(np.float64)))) if early else _enlarged(logits)
    expected = np.zeros(SOURCE, np.uint8)
    for number, region in zip((2, 1, 3), values, strict=True):
        expected[region > (0.5 if early else 0.0)] = number
    assert set(np.unique(expected)) == {0, 1, 2, 3}
    assert np.mean(mask != expected) < 1e-3


@pytest.mark.parametrize("interpolate", ["probabilities", "logits"])
def test_a_large_plane_is_filled_without_seams(interpolate: str) -> None:
    logits = _logits(7)
    mask = _written(logits, activation="softmax", interpolate=interpolate)
    values = logits.astype(np.float64)
    if interpolate == "probabilities":
        values = np.exp(values - values.max(axis=0))
        values /= values.sum(axis=0)
    assert np.mean(mask != _enlarged(values).argmax(axis=0)) < 1e-3


def test_a_probability_of_interpolated_logits_is_their_softmax() -> None:
    logits = _logits(4)
    share = np.zeros(SOURCE, np.float32)
    _written(logits, activation="softmax", interpolate="logits", probabilities={2: share})
    values = np.exp(_enlarged(logits))
    assert np.abs(share - (values / values.sum(axis=0))[2]).max() < 1e-4


def test_the_probability_of_a_region_is_that_of_its_own_channel() -> None:
    logits = _logits(3)
    share = np.zeros(SOURCE, np.float32)
    _written(logits, activation="sigmoid", interpolate="logits", numbers=(2, 1, 3), probabilities={2: share})
    assert np.abs(share - 1 / (1 + np.exp(-_enlarged(logits)[0]))).max() < 1e-4
