"""Labels on another grid, as nnU-Net brings them there: the largest share wins."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import ndimage

from engines import grids, label_shares
from engines.manifest_entries import Splines
from engines.volume import Volume
from tests.engines import build

LINEAR = Splines(order=1)


def _brought(
    labels: NDArray[Any], shape: tuple[int, int, int], body: NDArray[np.bool_] | None = None
) -> NDArray[np.int16]:
    """`labels` on a grid of `shape` over the same box."""
    source = build.volume(labels, spacing=(1.0, 1.0, 1.0))
    spacing = tuple(own / new for own, new in zip(labels.shape, shape, strict=True))
    grid = grids.at_spacing(source.geometry, (spacing[0], spacing[1], spacing[2]))
    assert grid.shape == shape
    return label_shares.resample(source, grid, LINEAR, spacing_mm=grid.spacing, body=body)


@pytest.mark.parametrize("shape", [(11, 13, 17), (20, 16, 12), (8, 25, 30)])
def test_the_label_with_the_largest_share_wins_and_of_equal_ones_the_nearest(
    shape: tuple[int, int, int],
) -> None:
    labels = ndimage.zoom(np.random.default_rng(2).integers(0, 5, (8, 10, 12)), 2, order=0).astype(np.int16)
    zoom = [new / old for new, old in zip(shape, labels.shape, strict=True)]
    shares = np.stack(
        [
            ndimage.zoom((labels == number).astype(float), zoom, order=1, mode="nearest", grid_mode=True)
            for number in range(5)
        ]
    )
    # Which of them are equal is a matter of the last bit
    top = shares == shares.max(axis=0)
    nearest = ndimage.zoom(labels, zoom, order=0, mode="nearest", grid_mode=True)
    near = np.take_along_axis(top, nearest[None], axis=0)[0]
    np.testing.assert_array_equal(_brought(labels, shape), np.where(near, nearest, top.argmax(axis=0)))
    # Some have less than one half, and are no background for that; others have as much as another
    assert ((shares.max(axis=0) < 0.5) & (top.argmax(axis=0) > 0)).any()
    assert shape == (11, 13, 17) or (top.sum(axis=0) > 1).any()


def test_of_labels_with_equal_shares_the_nearest_voxels_wins() -> None:
    row = np.array([1, 0, 0, 2, 2, 0], np.int16)
    labels = np.broadcast_to(row, (2, 2, 6)).copy()
    # Where two become one its centre lies between them, and scipy calls one of the two the nearest
    got = _brought(labels, (2, 2, 3))[0, 0]
    nearest = ndimage.zoom(row, 0.5, order=0, mode="nearest", grid_mode=True)
    np.testing.assert_array_equal(got, nearest)


def test_background_outside_the_body_has_a_share_of_its_own() -> None:
    # Of each eight voxels that become one, half are labelled, and the nearest is not
    numbers = np.arange(8).reshape(2, 2, 2)
    nearest = int(ndimage.zoom(numbers, 0.5, order=0, mode="nearest", grid_mode=True)[0, 0, 0])
    background = [nearest, *(number for number in range(8) if number != nearest)][:4]
    labels = np.tile(~np.isin(numbers, background), (2, 2, 2)).astype(np.int16)
    assert not _brought(labels, (2, 2, 2)).any()
    # Then two kinds of background are a quarter each
    body = np.tile(~np.isin(numbers, background[:2]), (2, 2, 2))
    assert (_brought(labels, (2, 2, 2), body) == 1).all()


@pytest.mark.parametrize("number", [1, 300])
def test_on_the_same_grid_labels_stay_what_they_are(number: int) -> None:
    labels = (np.random.default_rng(0).random((4, 5, 6)) > 0.5).astype(np.uint16) * number
    source = Volume(array=labels, geometry=build.volume(labels.astype(np.int16)).geometry)
    got = label_shares.resample(source, source.geometry, LINEAR, body=labels > 0)
    np.testing.assert_array_equal(got, labels)
