"""Brings a series onto the grid of another by where both lie in the patient; nothing is moved to fit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines import manifest_inputs as manifest
from engines import resampling
from engines.errors import VolumeError
from engines.intensity import Scaling, scaling_for
from engines.resampling import Weights
from engines.slabs import spread
from engines.volume import Geometry, Volume

#: Of the grid's box, the share that a series must reach at least: what it does not reach, the network does not see.
LEAST_COVERED = 0.5

#: Axes that part by no more than this over the whole grid, in voxels of the series, are the same axes.
_PARALLEL = 0.01

#: A place this far outside the box, in voxels, is still inside: noise of the affines.
_EDGE = 1e-4

#: Points along each axis at which it is looked how much a series covers.
_SAMPLES = 33

#: Slices of the grid that one thread works on at a time.
_SLAB = 4


def onto(volume: Volume, entry: manifest.Input, grid: Geometry, *, threads: int = 1) -> NDArray[np.float32]:
    """`volume`, normalised as `entry` says, at each voxel of `grid`: float32, in the grid's shape.

    Linear interpolation between voxel centres; where the grid is the coarser of the two, over the mean of what each
    of its voxels spans, so that nothing aliases. Outside the box of the series (the outer faces of its voxels) it
    is what the normalisation makes of the smallest value of the series. Both must be in one frame of reference.

    Raises VolumeError where the series covers less than `LEAST_COVERED` of the grid.
    """
    turned = volume.reoriented(grid.orientation)
    to_source = np.linalg.inv(turned.geometry.affine) @ grid.affine
    covered = coverage(to_source, grid.shape, turned.geometry.shape)
    if covered < LEAST_COVERED:
        raise VolumeError(
            f"it covers {covered:.0%} of what the first series shows; at least {LEAST_COVERED:.0%} are needed"
        )
    early = entry.scaled == "before"
    scaling = scaling_for(entry.intensity, turned.array) if early else Scaling()
    outside = scaling(np.array([turned.array.min()]))[0]
    move = _along_axes if _is_parallel(to_source, grid.shape) else _across_axes
    made = move(turned.array, _Aim(to_source, grid.shape, outside), scaling=scaling, threads=threads)
    if not early:
        late = scaling_for(entry.intensity, made)
        for plane in made:
            plane[...] = late(plane)
    return made


@dataclass(frozen=True, eq=False)
class _Aim:
    """Where the voxels of a grid lie in an array, and what is outside of it."""

    #: 4 x 4: an index of the grid -> an index of the array.
    to_source: NDArray[np.float64]
    #: Of the grid.
    shape: tuple[int, int, int]
    outside: np.float32


def coverage(
    to_source: NDArray[np.float64], shape: tuple[int, int, int], source: tuple[int, int, int]
) -> float:
    """The share of a grid of `shape` that lies inside the box of an array of the shape `source`, 0 to 1."""
    lines = [np.linspace(0, length - 1, min(length, _SAMPLES)) for length in shape]
    return float(_inside(to_source, lines, source).mean())


def _inside(
    to_source: NDArray[np.float64], lines: list[NDArray[np.float64]], source: tuple[int, int, int]
) -> NDArray[np.bool_]:
    """Whether each point of the grid that `lines` span lies inside the source's outer faces."""
    slices, rows, columns = np.ix_(*lines)
    inside = np.ones([len(line) for line in lines], dtype=bool)
    for weights, length in zip(to_source[:3], source, strict=True):
        place = weights[0] * slices + weights[1] * rows + weights[2] * columns + weights[3]
        inside &= (place >= -0.5 - _EDGE) & (place <= length - 0.5 + _EDGE)
    return inside


def _is_parallel(to_source: NDArray[np.float64], shape: tuple[int, int, int]) -> bool:
    """Whether the axes of both run the same way, so that each can be resampled by itself."""
    apart = np.abs(to_source[:3, :3]) * (np.array(shape) - 1)
    np.fill_diagonal(apart, 0)
    return bool(apart.sum(axis=1).max() <= _PARALLEL) and bool((np.diag(to_source)[:3] > 0).all())


def _along_axes(array: NDArray[Any], aim: _Aim, *, scaling: Scaling, threads: int) -> NDArray[np.float32]:
    """Each axis by itself: exact, and fast."""
    axes = [
        _Axis.of(aim.to_source[axis, axis], aim.to_source[axis, 3], n_in=n_in, n_out=n_out)
        for axis, (n_in, n_out) in enumerate(zip(array.shape, aim.shape, strict=True))
    ]
    along, rows, columns = axes
    part = array[along.taken, rows.taken, columns.taken]
    reached = (along.length, rows.length, columns.length)
    weights = (along.weights, rows.weights, columns.weights)
    found = resampling.weigh(part, weights, reached, scaling=scaling, threads=threads)
    if reached == aim.shape:
        return found
    whole = np.full(aim.shape, aim.outside, dtype=np.float32)
    whole[along.given, rows.given, columns.given] = found
    return whole


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """How one axis of a grid is made of one axis of a source."""

    #: Indices of the grid that lie inside the source.
    given: slice
    #: Indices of the source that they are made of.
    taken: slice
    #: None where both are the same.
    weights: Weights

    @property
    def length(self) -> int:
        """How many indices of the grid are given."""
        return int(self.given.stop - self.given.start)

    @classmethod
    def of(cls, step: float, offset: float, *, n_in: int, n_out: int) -> _Axis:
        """Index i of the grid lies at `step` i + `offset` of the source."""
        centres = step * np.arange(n_out) + offset
        if n_in == n_out and np.abs(centres - np.arange(n_in)).max() <= _EDGE:
            return cls(given=slice(0, n_out), taken=slice(0, n_in), weights=None)
        reached = np.flatnonzero((centres >= -0.5 - _EDGE) & (centres <= n_in - 0.5 + _EDGE))
        given = slice(int(reached[0]), int(reached[-1]) + 1)
        centres, extent = centres[given], step if step > 1 else 0.0
        start = max(0, math.floor(centres[0] - extent / 2))
        stop = min(n_in, math.floor(centres[-1] + extent / 2) + 2)
        # An edge value holds beyond the source's own ends only: all that a centre needs is in the part.
        weights = resampling.weights_at(centres - start, stop - start, extent=extent)
        return cls(given=given, taken=slice(start, stop), weights=weights)


def _across_axes(array: NDArray[Any], aim: _Aim, *, scaling: Scaling, threads: int) -> NDArray[np.float32]:
    """All axes at once, where they run askew: first as coarse as the grid is along each axis of the source."""
    coarse, to_source = _coarser(array, aim, scaling=scaling, threads=threads)
    whole = np.empty(aim.shape, dtype=np.float32)

    def fill(start: int) -> None:
        slab = whole[start : start + _SLAB]
        origin = to_source[:3, 3] + to_source[:3, 0] * start
        ndimage.affine_transform(
            coarse,
            to_source[:3, :3],
            offset=origin,
            output_shape=slab.shape,
            output=slab,
            order=1,
            mode="nearest",
        )
        lines = [np.arange(start, start + len(slab), dtype=np.float64)]
        lines += [np.arange(length, dtype=np.float64) for length in aim.shape[1:]]
        slab[~_inside(to_source, lines, (coarse.shape[0], coarse.shape[1], coarse.shape[2]))] = aim.outside

    spread(fill, range(0, aim.shape[0], _SLAB), threads=threads)
    return whole


def _coarser(
    array: NDArray[Any], aim: _Aim, *, scaling: Scaling, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.float64]]:
    """The array normalised, in voxels no smaller than the grid's over the same box, and where the grid lies in it.

    Averaged along its own axes: what the grid cannot hold is gone before anything is interpolated.
    """
    steps = np.linalg.norm(aim.to_source[:3, :3], axis=1)
    slices, rows, columns = (
        max(1, math.ceil(n / max(step, 1.0))) for n, step in zip(array.shape, steps, strict=True)
    )
    coarse = resampling.resample(array, (slices, rows, columns), scaling=scaling, threads=threads)
    factors = np.array(coarse.shape) / np.array(array.shape)
    to_coarse = np.diag([*factors, 1.0])
    to_coarse[:3, 3] = (factors - 1) / 2
    return coarse, to_coarse @ aim.to_source
