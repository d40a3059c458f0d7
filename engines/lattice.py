"""Interpolation between two grids along one axis, as a sparse matrix: linear from a given step, or nearest."""

from __future__ import annotations

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

#: A place this little beyond the middle between two voxels is still in the middle.
_ROUNDING = 1e-9


def linear(n_in: int, n_out: int, step: float) -> scipy.sparse.csr_matrix[np.float32] | None:
    """The (n_out, n_in) matrix of linear interpolation at 0, `step`, 2 `step`...; None where nothing changes.

    Nothing is averaged, and beyond the last centre the edge value holds.
    """
    if n_in == n_out and step == 1:
        return None
    places = np.minimum(np.arange(n_out) * step, n_in - 1)
    below = np.minimum(np.floor(places).astype(np.int64), max(n_in - 2, 0))
    share = places - below
    above = np.minimum(below + 1, n_in - 1)
    rows = np.arange(n_out)
    matrix = scipy.sparse.coo_matrix(
        (np.concatenate([1 - share, share]), (np.tile(rows, 2), np.concatenate([below, above]))),
        shape=(n_out, n_in),
    ).tocsr()
    matrix.eliminate_zeros()
    return matrix.astype(np.float32)


def nearest(n_in: int, n_out: int, step: float | None) -> scipy.sparse.csr_matrix[np.float32] | None:
    """The same, each voxel from its nearest neighbour; without `step` both grids cover the same box.

    A place in the middle between two voxels is the even one's, as rounding in IEEE 754 has it.
    """
    if n_in == n_out and step in (None, 1):
        return None
    places = _same_box(n_in, n_out) if step is None else np.arange(n_out) * step
    chosen = np.clip(np.rint(np.round(places / _ROUNDING) * _ROUNDING), 0, n_in - 1).astype(np.int64)
    matrix = scipy.sparse.coo_matrix((np.ones(n_out), (np.arange(n_out), chosen)), shape=(n_out, n_in))
    return matrix.tocsr().astype(np.float32)


def _same_box(n_in: int, n_out: int) -> NDArray[np.float64]:
    """Where the output's centres lie among the input's, the outer faces of both grids being the same."""
    return np.asarray((np.arange(n_out) + 0.5) * (n_in / n_out) - 0.5)
