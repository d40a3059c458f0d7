"""Resampling as nnU-Net does it: splines along each axis, and the thick one of an anisotropic image apart.

Isensee et al., nnU-Net, Nature Methods 2021. A spline is separable and linear in the voxels, so each axis is a sparse
matrix, and no more than a few slices of an image are ever resampled at once.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy import ndimage

from engines.manifest_entries import Splines
from engines.slabs import SLAB, spread

#: Voxels this many times as long as they are wide are resampled apart.
_ANISOTROPY = 3.0

#: Spacings that differ by less than this fraction are the same one.
_SAME = 1e-6

#: A weight that no float32 sum would show.
_NEGLIGIBLE = 1e-8

#: Columns of a flattened volume that one thread multiplies at a time.
_COLUMNS = 2**15

Matrix = scipy.sparse.csr_matrix  # [np.float32], which scipy cannot say when it runs.
Scale = Callable[[NDArray[Any]], NDArray[np.float32]]


@dataclass(frozen=True, kw_only=True, eq=False)
class Axes:
    """How to get from one grid to another over the same box."""

    #: (n_out, n_in) along slice, row and column; None where nothing changes.
    matrices: tuple[Matrix | None, Matrix | None, Matrix | None]
    #: The axis that is resampled apart; None where all are resampled alike.
    apart: int | None
    #: Whether values can leave the range of what they come from, and are clipped to it.
    overshoots: bool


def axes(
    shape: Sequence[int],
    wanted: Sequence[int],
    spacings: tuple[Sequence[float], Sequence[float]],
    splines: Splines,
) -> Axes:
    """From a grid of `shape` to one of `wanted`; `spacings` are those of both, mm."""
    apart = _apart(spacings, splines)
    slices, rows, columns = (
        _shifted(own, new, splines.order_apart) if axis == apart else _zoomed(own, new, splines.order)
        for axis, (own, new) in enumerate(zip(shape, wanted, strict=True))
    )
    return Axes(matrices=(slices, rows, columns), apart=apart, overshoots=splines.order > 1)


def _apart(spacings: tuple[Sequence[float], Sequence[float]], splines: Splines) -> int | None:
    """The axis of the longest voxels, where it is done apart; two axes that are as long are not."""
    if splines.apart is False:
        return None
    for spacing in spacings if splines.apart is None else spacings[:1]:
        longest = max(spacing)
        if splines.apart or longest / min(spacing) > _ANISOTROPY:
            found = [axis for axis, mm in enumerate(spacing) if math.isclose(mm, longest, rel_tol=_SAME)]
            return found[0] if len(found) == 1 else None
    return None


@functools.lru_cache(maxsize=32)
def _zoomed(n_in: int, n_out: int, order: Any) -> Matrix | None:
    """A spline along one axis between grids over the same box, the edge value beyond them."""
    return None if n_in == n_out else _sparse(_zooming(n_in, n_out, order))


def _zooming(n_in: int, n_out: int, order: Any) -> NDArray[np.float64]:
    """Every weight of it, (n_out, n_in)."""
    return ndimage.zoom(np.eye(n_in), (n_out / n_in, 1), order=order, mode="nearest", grid_mode=True)


@functools.lru_cache(maxsize=32)
def _shifted(n_in: int, n_out: int, order: Any) -> Matrix | None:
    """The same at given places: with order 0 it rounds a half up, which zooming does not."""
    return None if n_in == n_out else _sparse(_shifting(n_in, n_out, order))


def _shifting(n_in: int, n_out: int, order: Any) -> NDArray[np.float64]:
    """Every weight of it, (n_out, n_in)."""
    places = n_in / n_out * (np.arange(n_out) + 0.5) - 0.5
    grid = np.stack(np.broadcast_arrays(places[:, None], np.arange(n_in, dtype=np.float64)))
    return ndimage.map_coordinates(np.eye(n_in), grid, order=order, mode="nearest")


@dataclass(frozen=True, kw_only=True, eq=False)
class Taps:
    """Along one axis, for each voxel of the other grid: the two that a spline of order 0 or 1 looks at."""

    #: Their indices, (n_out, 2).
    voxels: NDArray[np.intp]
    #: Their weights to the last bit, (n_out, 2).
    weights: NDArray[np.float64]


def taps(
    shape: Sequence[int], wanted: Sequence[int], apart: int | None, splines: Splines
) -> tuple[Taps, Taps, Taps]:
    """What each voxel of a grid of `wanted` is made of; `apart` is that of the `axes` between the grids."""
    slices, rows, columns = (
        _taps(own, new, splines.order_apart if axis == apart else splines.order, axis == apart)
        for axis, (own, new) in enumerate(zip(shape, wanted, strict=True))
    )
    return slices, rows, columns


@functools.lru_cache(maxsize=32)
def _taps(n_in: int, n_out: int, order: Any, apart: bool) -> Taps:
    """Those of one axis."""
    dense = np.eye(n_in) if n_in == n_out else (_shifting if apart else _zooming)(n_in, n_out, order)
    first = (dense != 0).argmax(axis=1)
    voxels = np.stack([first, np.minimum(first + 1, n_in - 1)], axis=1)
    weights = np.take_along_axis(dense, voxels, axis=1)
    weights[voxels[:, 0] == voxels[:, 1], 1] = 0
    return Taps(voxels=voxels, weights=weights)


def _sparse(dense: NDArray[np.float64]) -> Matrix:
    """The weights that count."""
    dense[np.abs(dense) < _NEGLIGIBLE] = 0
    return scipy.sparse.csr_matrix(dense.astype(np.float32))


def resample(array: NDArray[Any], axes: Axes, *, scaling: Scale, threads: int = 1) -> NDArray[np.float32]:
    """`array` scaled, then brought to the other grid; beside the result it holds one copy that is small in-plane."""
    if axes.apart:
        return _turned(array, axes, scaling=scaling, threads=threads)
    along, rows, columns = axes.matrices
    shape = [own if m is None else m.shape[0] for own, m in zip(array.shape, axes.matrices, strict=True)]
    flat = np.empty((array.shape[0], *shape[1:]), dtype=np.float32)
    limits = np.empty((len(flat), 2), dtype=np.float32)

    def shrink(start: int) -> None:
        for index, plane in enumerate(scaling(array[start : start + SLAB]), start):
            limits[index] = plane.min(), plane.max()
            flat[index] = in_plane(plane, rows, columns)
            if axes.overshoots and axes.apart is not None:
                np.clip(flat[index], *limits[index], out=flat[index])

    spread(shrink, range(0, len(flat), SLAB), threads=threads)
    result = flat if along is None else _multiplied(along, flat, threads=threads)
    if axes.overshoots and axes.apart is None and any(matrix is not None for matrix in axes.matrices):
        np.clip(result, limits[:, 0].min(), limits[:, 1].max(), out=result)
    return result


def _turned(array: NDArray[Any], axes: Axes, *, scaling: Scale, threads: int) -> NDArray[np.float32]:
    """The same with the axis that is apart in front, where `resample` wants it."""
    assert axes.apart is not None
    order = [axes.apart, *(axis for axis in range(3) if axis != axes.apart)]
    first, second, third = (axes.matrices[axis] for axis in order)
    front = Axes(matrices=(first, second, third), apart=0, overshoots=axes.overshoots)
    result = resample(array.transpose(order), front, scaling=scaling, threads=threads)
    return np.ascontiguousarray(np.moveaxis(result, 0, axes.apart))


def in_plane(plane: NDArray[np.float32], rows: Matrix | None, columns: Matrix | None) -> NDArray[np.float32]:
    """One plane (row, column) with both axes resampled."""
    if rows is not None:
        plane = rows @ plane
    return plane if columns is None else np.asarray((columns @ plane.T).T)


def _multiplied(along: Matrix, volume: NDArray[np.float32], *, threads: int) -> NDArray[np.float32]:
    """`along` times the slices."""
    flat = volume.reshape(len(volume), -1)
    result = np.empty((along.shape[0], flat.shape[1]), dtype=np.float32)

    def multiply(start: int) -> None:
        part = slice(start, start + _COLUMNS)
        result[:, part] = along @ flat[:, part]

    spread(multiply, range(0, flat.shape[1], _COLUMNS), threads=threads)
    return result.reshape(-1, *volume.shape[1:])
