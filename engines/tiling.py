"""The sliding window: a network's logits over a whole grid, slab by slab along the slices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import OutputError
from engines.manifest import Tiling
from engines.runner import Runner

#: Patches per call where the network takes any number of them.
BATCH = 4

#: Width of the gaussian as a fraction of the patch (Isensee et al., nnU-Net, Nature Methods 2021).
SIGMA = 1 / 8


@dataclass(frozen=True, kw_only=True, eq=False)
class Slab:
    """Logits that nothing will be added to any more."""

    #: First slice of the grid that `logits` covers.
    start: int
    #: float32 (classes, slices, rows, columns).
    logits: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Where the windows go on a grid."""

    patch: tuple[int, int, int]
    #: (before, after) per axis: a grid smaller than the patch is padded to it.
    padding: tuple[tuple[int, int], ...]
    #: First index of each window per axis, in the padded grid.
    starts: tuple[tuple[int, ...], ...]
    #: The axes to flip for each pass of test-time mirroring; () is the image as it is.
    mirrors: tuple[tuple[int, ...], ...]

    @property
    def inferences(self) -> int:
        """How many patches the network will see."""
        return math.prod(len(starts) for starts in self.starts) * len(self.mirrors)


def plan(shape: tuple[int, int, int], tiling: Tiling) -> Plan:
    """Windows that cover `shape`, evenly spread, each sharing at least `overlap` with the next."""
    padding = tuple(_padding(length, patch) for length, patch in zip(shape, tiling.patch, strict=True))
    padded = [length + sum(pad) for length, pad in zip(shape, padding, strict=True)]
    starts = tuple(_starts(n, patch, tiling.overlap) for n, patch in zip(padded, tiling.patch, strict=True))
    axes = sorted(set(tiling.mirror_axes))
    mirrors = tuple(m for n in range(len(axes) + 1) for m in itertools.combinations(axes, n))
    return Plan(patch=tiling.patch, padding=padding, starts=starts, mirrors=mirrors)


def _padding(length: int, patch: int) -> tuple[int, int]:
    """Voxels to add before and after."""
    missing = max(0, patch - length)
    return missing // 2, missing - missing // 2


def _starts(length: int, patch: int, overlap: float) -> tuple[int, ...]:
    """Evenly spread first indices, the last window ending exactly at `length`."""
    room = length - patch
    if room == 0:
        return (0,)
    steps = math.ceil(room / max(1, int(patch * (1 - overlap))))
    return tuple(round(room * step / steps) for step in range(steps + 1))


def sweep(
    runner: Runner,
    array: NDArray[np.float32],
    tiling: Tiling,
    *,
    input_name: str,
    output_name: str,
    classes: int,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Slab]:
    """Run the network over `array` (slices, rows, columns); yield its averaged logits in slice order.

    A slab is yielded as soon as no later window reaches it, so no more than one patch's depth of
    logits is ever held. The grid is padded with 0 where it is smaller than the patch, as nnU-Net does.
    Raises OutputError where the network answers with another shape or with NaN.
    """
    layout = plan(_shape3(array), tiling)
    padded = np.pad(array, layout.padding) if any(map(sum, layout.padding)) else array
    network = _Network(runner=runner, input_name=input_name, output_name=output_name, classes=classes)
    sums = _Sums(classes=classes, shape=_shape3(padded), layout=layout, weighting=tiling.weighting)
    ends = (*layout.starts[0][1:], padded.shape[0])
    corners = list(itertools.product(layout.starts[1], layout.starts[2]))
    done = 0
    for first, end in zip(layout.starts[0], ends, strict=True):
        for (row, column), logits in network.patches(
            padded[first : first + layout.patch[0]], corners, layout
        ):
            sums.add(row, column, logits)
            done += 1
            if progress is not None:
                progress(done / layout.inferences)
        slab = sums.take(first, end)
        if slab.logits.shape[1]:
            yield slab


def _shape3(array: NDArray[Any]) -> tuple[int, int, int]:
    """The array's three lengths."""
    return (array.shape[0], array.shape[1], array.shape[2])


@dataclass(frozen=True, kw_only=True)
class _Network:
    """A runner that takes stacks of patches and returns logits that have been looked at."""

    runner: Runner
    input_name: str
    output_name: str
    classes: int

    def patches(
        self, layer: NDArray[np.float32], corners: Sequence[tuple[int, int]], layout: Plan
    ) -> Iterator[tuple[tuple[int, int], NDArray[np.float32]]]:
        """The logits of each window of a layer, mirrored back, one pass after the other."""
        jobs = list(itertools.product(corners, layout.mirrors))
        for start in range(0, len(jobs), self._batch):
            batch = jobs[start : start + self._batch]
            tiles = [_flipped(_tile(layer, corner, layout.patch), mirror) for corner, mirror in batch]
            for (corner, mirror), logits in zip(batch, self._infer(tiles), strict=True):
                yield corner, _flipped(logits, tuple(axis + 1 for axis in mirror))

    @property
    def _batch(self) -> int:
        """Patches per call: the network's own number where it is fixed."""
        return self.runner.inputs[0].shape[0] or BATCH

    def _infer(self, tiles: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        """Logits (classes, slices, rows, columns) of each tile."""
        spec = self.runner.inputs[0]
        stack = np.zeros((spec.shape[0] or len(tiles), 1, *tiles[0].shape), dtype=spec.dtype)
        for index, tile in enumerate(tiles):
            stack[index, 0] = tile
        answer = self.runner.infer({self.input_name: stack})[self.output_name]
        expected = (len(stack), self.classes, *tiles[0].shape)
        if answer.shape != expected:
            raise OutputError(f'output "{self.output_name}" has shape {answer.shape}, not {expected}')
        if not np.isfinite(answer).all():
            raise OutputError(f'output "{self.output_name}" holds values that are not finite numbers')
        return list(answer[: len(tiles)])


class _Sums:
    """Weighted sums of logits over one patch's depth of slices."""

    def __init__(self, *, classes: int, shape: tuple[int, int, int], layout: Plan, weighting: str) -> None:
        self._layout = layout
        self._profile = [_profile(length, weighting) for length in layout.patch]
        # The weights of all windows form a grid, so their sum is a product of one sum per axis.
        self._total = [
            _total(n, starts, profile)
            for n, starts, profile in zip(shape, layout.starts, self._profile, strict=True)
        ]
        depth, rows, columns = self._profile
        self._weights = depth[:, None, None] * rows[:, None] * columns / np.float32(len(layout.mirrors))
        self._sums = np.zeros((classes, layout.patch[0], *shape[1:]), dtype=np.float32)

    def add(self, row: int, column: int, logits: NDArray[np.float32]) -> None:
        """Add one window's logits at (row, column) of the current layer."""
        _, rows, columns = self._layout.patch
        self._sums[:, :, row : row + rows, column : column + columns] += logits * self._weights

    def take(self, first: int, end: int) -> Slab:
        """The averages of slices [first, end), without padding; what remains moves up to the front."""
        (front, _), *sides = self._layout.padding
        limit = len(self._total[0]) - self._layout.padding[0][1]
        low, high = max(first, front), min(end, limit)
        cut = tuple(
            slice(before, len(total) - after)
            for (before, after), total in zip(sides, self._total[1:], strict=True)
        )
        depth, rows, columns = self._total[0][low:high], self._total[1][cut[0]], self._total[2][cut[1]]
        logits = self._sums[(slice(None), slice(low - first, high - first), *cut)].copy()
        logits /= depth[:, None, None]
        logits /= rows[:, None] * columns
        self._advance(end - first)
        return Slab(start=low - front, logits=logits)

    def _advance(self, slices: int) -> None:
        """Make slice `slices` of the window its first, and the freed end zero."""
        remaining = self._sums.shape[1] - slices
        self._sums[:, :remaining] = self._sums[:, slices:].copy()
        self._sums[:, remaining:] = 0


def _tile(
    layer: NDArray[np.float32], corner: tuple[int, int], patch: tuple[int, int, int]
) -> NDArray[np.float32]:
    """One window of a layer (a view)."""
    row, column = corner
    return layer[:, row : row + patch[1], column : column + patch[2]]


def _flipped(array: NDArray[np.float32], axes: tuple[int, ...]) -> NDArray[np.float32]:
    """The array mirrored along `axes` (a view)."""
    return np.flip(array, axes) if axes else array


def _profile(length: int, weighting: str) -> NDArray[np.float32]:
    """A window's weights along one axis: trust in the middle, little at the edge."""
    if weighting == "uniform":
        return np.ones(length, dtype=np.float32)
    distance = (np.arange(length) - (length - 1) / 2) / (SIGMA * length)
    return np.asarray(np.exp(-0.5 * np.square(distance)), dtype=np.float32)


def _total(length: int, starts: Sequence[int], profile: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of all windows' weights along one axis."""
    total = np.zeros(length, dtype=np.float32)
    for start in starts:
        total[start : start + len(profile)] += profile
    return total
