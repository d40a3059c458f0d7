"""Linear resampling to a grid along the same axes: each axis a sparse matrix, a few slices of an image at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from engines import lattice, splines
from engines.intensity import Scaling
from engines.slabs import SLAB, spread

#: How one axis is resampled; None where it is not.
Weights = scipy.sparse.csr_matrix[np.float32] | None


def axis_weights(n_in: int, n_out: int, *, antialias: bool) -> scipy.sparse.csr_matrix[np.float32] | None:
    """Linear interpolation along one axis as an (n_out, n_in) matrix; None where nothing changes.

    Voxel i of the output has its centre at (i + 1/2) n_in / n_out - 1/2 of the input. Where the output's
    voxels are the larger ones and `antialias` is set, each is the mean of the linear interpolant over its
    own extent, so detail that the output cannot hold is averaged away and nothing moves: a linear image
    stays the same line. Beyond the first and last centre the edge value holds.
    """
    if n_in == n_out:
        return None
    factor = n_in / n_out
    extent = factor if antialias and factor > 1 else 0.0
    centres = (np.arange(n_out) + 0.5) * factor - 0.5
    return weights_at(centres, n_in, extent=extent)


def weights_at(
    centres: NDArray[np.floating[Any]], n_in: int, *, extent: float
) -> scipy.sparse.csr_matrix[np.float32]:
    """Linear interpolation at `centres`, indices of `n_in` voxels, as a matrix; with `extent`, its mean so far around.

    Beyond the first and last voxel's centre the edge value holds.
    """
    first = np.floor(centres - extent / 2).astype(np.int64)
    taps = first[:, None] + np.arange(math.ceil(extent) + 2)
    distances = centres[:, None] - taps
    if extent:
        weights = (_hat_integral(distances + extent / 2) - _hat_integral(distances - extent / 2)) / extent
    else:
        weights = np.clip(1 - np.abs(distances), 0, None)
    rows, columns = np.nonzero(weights)
    places = np.clip(taps[rows, columns], 0, n_in - 1)
    matrix = scipy.sparse.coo_matrix((weights[rows, columns], (rows, places)), shape=(len(centres), n_in))
    return matrix.tocsr().astype(np.float32)


def _hat_integral(end: NDArray[np.float64]) -> NDArray[np.float64]:
    """The integral up to `end` of the hat max(0, 1 - |x|), which linear interpolation weighs with."""
    inside = np.clip(end, -1, 1)
    return np.where(inside < 0, np.square(1 + inside) / 2, 1 - np.square(1 - inside) / 2)


def resample(
    array: NDArray[Any],
    shape: tuple[int, int, int],
    *,
    scaling: Scaling | None = None,
    antialias: bool = True,
    steps: Sequence[float | None] = (None, None, None),
    threads: int = 1,
) -> NDArray[np.float32]:
    """Scale `array` and resample it to `shape` over the same box: separable, linear, anti-aliased.

    Along an axis that has a step, in voxels of `array`, the grids share their first voxel instead: see `lattice`.

    Works through a few slices at a time, rows and columns first: beside the result it holds one copy
    of the volume that is small in-plane. The order of the axes is that of `array`, so an answer does
    not depend on how the voxels lie in memory.
    """
    along, rows, columns = (
        axis_weights(own, wanted, antialias=antialias) if step is None else lattice.linear(own, wanted, step)
        for own, wanted, step in zip(array.shape, shape, steps, strict=True)
    )
    return weigh(array, (along, rows, columns), shape, scaling=scaling or Scaling(), threads=threads)


def weigh(
    array: NDArray[Any],
    weights: tuple[Weights, Weights, Weights],
    shape: tuple[int, int, int],
    *,
    scaling: Scaling,
    threads: int = 1,
) -> NDArray[np.float32]:
    """Scale `array` and resample each axis by its weights, to `shape`."""
    along, rows, columns = weights
    flat = np.empty((array.shape[0], shape[1], shape[2]), dtype=np.float32)

    def shrink(start: int) -> None:
        slab = scaling(array[start : start + SLAB])
        for offset in range(len(slab)):
            flat[start + offset] = splines.in_plane(slab[offset], rows, columns)

    spread(shrink, range(0, array.shape[0], SLAB), threads=threads)
    return flat if along is None else np.asarray(along @ flat.reshape(len(flat), -1)).reshape(shape)
