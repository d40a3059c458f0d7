"""A label map on another grid: each label's share of a voxel is a spline of its own, and the largest share wins.

As nnU-Net resamples segmentations (Isensee et al., Nature Methods 2021), with batchgenerators 0.25.5.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import splines
from engines.manifest_entries import Splines
from engines.volume import Geometry, Volume

#: Shares in float32 that differ by less are compared once more, in float64.
_CLOSE = 1e-6

#: What is background outside the body; no label of a mask has this number.
_OUTSIDE = -1


def resample(
    source: Volume,
    grid: Geometry,
    how: Splines,
    *,
    spacing_mm: tuple[float, float, float] | None = None,
    body: NDArray[np.bool_] | None = None,
    threads: int = 1,
) -> NDArray[np.int16]:
    """The label of each voxel of `grid`; of equal shares the nearest voxel's label, or else the lowest.

    `source` holds labels, and `grid` covers the same box; `spacing_mm` is what was asked for there, which the rounded
    number of voxels may not give (null: the source's own). With `body`, on the source's grid, background outside it is
    a label of its own until all shares are compared. Beside the result it holds three numbers for each voxel of `grid`
    and a copy of the source.
    """
    labels = source.array.astype(np.int16)
    if body is not None:
        labels[(labels == 0) & ~body] = _OUTSIDE
    if grid.shape != source.array.shape:
        own = source.geometry.spacing
        # Of order 0 is the nearest voxel's label; which axis is apart is decided alike.
        orders = (how, how.model_copy(update={"order": 0, "order_apart": 0}))
        axes, rounding = (
            splines.axes(labels.shape, grid.shape, (own, spacing_mm or own), one) for one in orders
        )
        found, close = _largest(labels, axes, grid.shape, threads=threads)
        nearest = splines.resample(labels, rounding, scaling=_floats, threads=threads)
        taps = splines.taps(labels.shape, grid.shape, axes.apart, how)
        for index in np.flatnonzero(close.any(axis=(1, 2))).tolist():
            rows, columns = np.nonzero(close[index])
            around = _around(labels, taps, (index, rows, columns))
            found[index, rows, columns] = _decided(*around, nearest[index, rows, columns])
        labels = found
    labels[labels == _OUTSIDE] = 0
    return labels


def _largest(
    labels: NDArray[np.int16], axes: splines.Axes, shape: tuple[int, int, int], *, threads: int
) -> tuple[NDArray[np.int16], NDArray[np.bool_]]:
    """The label with the largest share of each voxel, and where another's is as large, or nearly."""
    best = np.zeros(shape, np.float32)
    found = np.zeros(shape, np.int16)
    close = np.zeros(shape, np.bool_)
    for number in sorted({int(number) for plane in labels for number in np.unique(plane)}):

        def share(slab: NDArray[Any], number: int = number) -> NDArray[np.float32]:
            return np.asarray(slab == number, np.float32)

        shares = splines.resample(labels, axes, scaling=share, threads=threads)
        for own, most, chosen, unsure in zip(shares, best, found, close, strict=True):
            more = own - most
            chosen[more > 0] = number
            unsure[more > _CLOSE] = False
            unsure[np.abs(more) <= _CLOSE] = True
            np.maximum(most, own, out=most)
    return found, close


def _around(
    labels: NDArray[np.int16], taps: tuple[splines.Taps, ...], places: tuple[Any, ...]
) -> tuple[NDArray[np.int16], NDArray[np.float64]]:
    """The labels of the (up to) eight voxels around each place, and their weights, (places, 8)."""
    (i, of_i), (j, of_j), (k, of_k) = (
        (axis.voxels[place], axis.weights[place]) for axis, place in zip(taps, places, strict=True)
    )
    numbers = labels[i[..., :, None, None], j[..., None, :, None], k[..., None, None, :]]
    # In the order in which scipy multiplies and, below, adds: what is equal to the last bit there is so here.
    weights = of_i[..., :, None, None] * of_j[..., None, :, None] * of_k[..., None, None, :]
    return numbers.reshape(len(numbers), -1), weights.reshape(len(weights), -1)


def _decided(
    numbers: NDArray[np.int16], weights: NDArray[np.float64], nearest: NDArray[np.float32]
) -> NDArray[np.int16]:
    """Of each row the number with the most weight; of several the nearest, or else the lowest."""
    shares = np.zeros(numbers.shape)
    for weight, number in zip(weights.T, numbers.T, strict=True):
        shares += np.where(numbers == number[:, None], weight[:, None], 0)
    top = shares == shares.max(axis=1, keepdims=True)
    lowest = np.where(top, numbers, np.iinfo(np.int16).max).min(axis=1)
    near = (top & (numbers == nearest[:, None])).any(axis=1)
    return np.where(near, nearest, lowest).astype(np.int16)


def _floats(slab: NDArray[Any]) -> NDArray[np.float32]:
    return np.asarray(slab, np.float32)
