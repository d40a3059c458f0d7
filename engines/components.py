"""Connected components of one label of a mask, without an image of their numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.sparse
import scipy.sparse.csgraph
from numpy.typing import NDArray

from engines.slabs import SLAB

#: Runs of voxels that are cleared at a time.
_RUNS = 100_000

#: (slices, rows) to the neighbours of a row of voxels: across a face, and those that only an edge or a corner is
#: shared with.
_FACES = ((0, 1), (1, 0))
_CORNERS = ((1, -1), (1, 1))


def keep_largest(mask: NDArray[Any], number: int, *, corners: bool = False) -> None:
    """Set every voxel of label `number` outside its largest component to 0, in place.

    Of equally large components the first stays. With `corners` voxels are connected by edges and corners too.
    """
    starts, ends, component, sizes = _components(mask, number, corners=corners)
    if len(sizes) > 1:
        removed = component != sizes.argmax()
        _clear(mask.reshape(-1), starts[removed], ends[removed])


def drop_components(mask: NDArray[Any], number: int, *, smaller_than: float, corners: bool = False) -> None:
    """Set the voxels of label `number` in components of fewer voxels than `smaller_than` to 0, in place."""
    starts, ends, component, sizes = _components(mask, number, corners=corners)
    removed = sizes[component] < smaller_than
    _clear(mask.reshape(-1), starts[removed], ends[removed])


def _components(
    mask: NDArray[Any], number: int, *, corners: bool
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int32], NDArray[Any]]:
    """First and one-past-last index of each run of `number`, its component, and voxels per component.

    Works on runs of voxels along the last axis rather than on a component
    image, so it needs little beside the mask, which must be C-contiguous to be changed in place.
    """
    if not mask.flags.c_contiguous:
        raise ValueError("the mask must be C-contiguous to be changed in place")
    starts, ends = _runs(mask, number)
    if len(starts) == 0:
        return starts, ends, np.zeros(0, np.int32), np.zeros(0)
    neighbours = _FACES + (_CORNERS if corners else ())
    edges = [_touching(starts, ends, mask.shape, towards, corners=corners) for towards in neighbours]
    left, right = (np.concatenate(side) for side in zip(*edges, strict=True))
    graph = scipy.sparse.coo_matrix(
        (np.ones(len(left), dtype=np.int8), (left, right)), shape=(len(starts), len(starts))
    )
    _, component = scipy.sparse.csgraph.connected_components(graph, directed=False)
    return starts, ends, component, np.bincount(component, weights=ends - starts)


def _clear(flat: NDArray[Any], starts: NDArray[np.int64], ends: NDArray[np.int64]) -> None:
    """Set the runs to 0, a bounded number of them at a time."""
    for first in range(0, len(starts), _RUNS):
        begin, stop = starts[first : first + _RUNS], ends[first : first + _RUNS]
        flat[_ranges(begin, stop - begin)] = 0


def _ranges(begin: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """begin[0], begin[0] + 1, ... for lengths[0] numbers, then the same from begin[1], and so on."""
    before = np.cumsum(lengths) - lengths
    return np.asarray(np.arange(lengths.sum()) + np.repeat(begin - before, lengths))


def _runs(mask: NDArray[Any], number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and one-past-last flat index of each run of `number` along the last axis."""
    columns = mask.shape[2]
    starts, ends = [], []
    for first in range(0, mask.shape[0], SLAB):
        rows = mask[first : first + SLAB].reshape(-1, columns) == number
        steps = np.zeros((len(rows), columns + 1), dtype=np.bool_)
        steps[:, 1:-1] = rows[:, 1:] != rows[:, :-1]
        steps[:, 0], steps[:, -1] = rows[:, 0], rows[:, -1]
        line, column = np.divmod(np.flatnonzero(steps), columns + 1)
        places = line * columns + column + first * mask.shape[1] * columns
        starts.append(places[0::2])
        ends.append(places[1::2])
    return np.concatenate(starts), np.concatenate(ends)


def _touching(
    starts: NDArray[np.int64],
    ends: NDArray[np.int64],
    shape: tuple[int, ...],
    towards: tuple[int, int],
    *,
    corners: bool,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of runs of which the second lies (slices, rows) `towards` and touches the first."""
    _, rows, columns = shape
    row = starts // columns % rows + towards[1]
    inside = np.flatnonzero((row >= 0) & (row < rows))
    step = (towards[0] * rows + towards[1]) * columns
    low, high = starts[inside] + step, ends[inside] + step
    if corners:
        # A voxel further at either end, where that is in the same row.
        low, high = low - (low % columns > 0), high + (high % columns > 0)
    first = np.searchsorted(ends, low, side="right")
    last = np.searchsorted(starts, high, side="left")
    counts = np.maximum(last - first, 0)
    left = np.repeat(inside, counts)
    return left, _ranges(first, counts)
