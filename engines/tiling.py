"""The sliding window: a network's logits over a whole grid, slab by slab along the slices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import OutputError
from engines.manifest import Tiling
from engines.runner import Runner, TensorSpec

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
    """Windows that cover `shape`, placed as `tiling` says."""
    padding = tuple(_padding(length, patch) for length, patch in zip(shape, tiling.patch, strict=True))
    padded = [length + sum(pad) for length, pad in zip(shape, padding, strict=True)]
    place = _starts if tiling.placement == "even" else _fixed_starts
    starts = tuple(place(n, patch, tiling.overlap) for n, patch in zip(padded, tiling.patch, strict=True))
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
    steps = math.ceil(room / max(1, patch * (1 - overlap)))
    # In this order of operations: the rounding is then nnU-Net's to the last bit.
    return tuple(round(room / steps * step) for step in range(steps + 1))


def _fixed_starts(length: int, patch: int, overlap: float) -> tuple[int, ...]:
    """First indices at the step that `overlap` says; the last window is drawn back to end at `length`."""
    room = length - patch
    return (*range(0, room, max(1, int(patch * (1 - overlap)))), room)


def sweep(
    runner: Runner,
    feeds: Mapping[str, NDArray[np.float32]],
    tiling: Tiling,
    *,
    output_name: str,
    classes: int,
    progress: Callable[[float], None] | None = None,
) -> Iterator[Slab]:
    """Run the network over `feeds`, (channels, slices, rows, columns) by input name, all on one grid; yield its
    averaged logits in slice order.

    A slab is yielded as soon as no later window reaches it, so no more than one patch's depth of
    logits is ever held. The grid is padded with 0 where it is smaller than the patch, as nnU-Net does.
    Raises OutputError where the network answers with another shape or with NaN.
    """
    layout = plan(_shape3(feeds), tiling)
    padded = {name: _padded(array, layout, tiling.context) for name, array in feeds.items()}
    whole = _shape3(padded, tiling.context)
    network = _Network(
        runner=runner, output_name=output_name, classes=classes, patch=layout.patch, context=tiling.context
    )
    sums = _Sums(classes=classes, shape=whole, layout=layout, tiling=tiling)
    ends = (*layout.starts[0][1:], whole[0])
    corners = list(itertools.product(layout.starts[1], layout.starts[2]))
    done = 0
    for first, end in zip(layout.starts[0], ends, strict=True):
        reach = slice(first, first + layout.patch[0] + 2 * tiling.context)
        layer = {name: array[:, reach] for name, array in padded.items()}
        for (row, column), logits in network.patches(layer, corners, layout.mirrors):
            sums.add(row, column, logits)
            done += 1
            if progress is not None:
                progress(done / layout.inferences)
        slab = sums.take(first, end)
        if slab.logits.shape[1]:
            yield slab


def _shape3(feeds: Mapping[str, NDArray[Any]], context: int = 0) -> tuple[int, int, int]:
    """The three lengths of the grid that all of them lie on, without the slices of context around it."""
    _, slices, rows, columns = next(iter(feeds.values())).shape
    return (slices - 2 * context, rows, columns)


def _padded(array: NDArray[np.float32], layout: Plan, context: int) -> NDArray[np.float32]:
    """The array with 0 around it where the patch is larger, and `context` more slices before and behind."""
    if any(map(sum, layout.padding)):
        array = np.pad(array, ((0, 0), *layout.padding))
    return np.pad(array, ((0, 0), (context, context), (0, 0), (0, 0)), mode="edge") if context else array


@dataclass(frozen=True, kw_only=True)
class _Network:
    """A runner that takes stacks of patches and returns logits that have been looked at."""

    runner: Runner
    output_name: str
    classes: int
    patch: tuple[int, int, int]
    context: int

    def patches(
        self,
        layer: Mapping[str, NDArray[np.float32]],
        corners: Sequence[tuple[int, int]],
        mirrors: Sequence[tuple[int, ...]],
    ) -> Iterator[tuple[tuple[int, int], NDArray[np.float32]]]:
        """The logits of each window of a layer, mirrored back, one pass after the other."""
        jobs = list(itertools.product(corners, mirrors))
        for start in range(0, len(jobs), self._batch):
            batch = jobs[start : start + self._batch]
            for (corner, mirror), logits in zip(batch, self._infer(layer, batch), strict=True):
                yield corner, _flipped(logits, mirror)

    @property
    def _batch(self) -> int:
        """Patches per call: the network's own number where it is fixed."""
        return self.runner.inputs[0].shape[0] or BATCH

    def _infer(
        self,
        layer: Mapping[str, NDArray[np.float32]],
        batch: Sequence[tuple[tuple[int, int], tuple[int, ...]]],
    ) -> list[NDArray[np.float32]]:
        """Logits (classes, slices, rows, columns) of each window of the batch."""
        stacks = {
            spec.name: self._stack(
                spec, [_flipped(self._tile(layer[spec.name], at), axes) for at, axes in batch]
            )
            for spec in self.runner.inputs
        }
        answer = self.runner.infer(stacks)[self.output_name]
        count = len(next(iter(stacks.values())))
        space = self.patch if answer.ndim == 5 else self.patch[1:]
        if answer.shape != (count, self.classes, *space):
            expected = (count, self.classes, *space)
            raise OutputError(f'output "{self.output_name}" has shape {answer.shape}, not {expected}')
        # Both are NaN where any value is; nothing of the answer's size is made.
        if not (np.isfinite(answer.min()) and np.isfinite(answer.max())):
            raise OutputError(f'output "{self.output_name}" holds values that are not finite numbers')
        return list(answer.reshape(count, self.classes, *self.patch)[: len(batch)])

    def _stack(self, spec: TensorSpec, tiles: Sequence[NDArray[np.float32]]) -> NDArray[Any]:
        """Tiles (channels, slices, rows, columns) as the network takes them; slices are channels in 2D."""
        shape = tiles[0].shape if len(spec.shape) == 5 else (-1, *tiles[0].shape[2:])
        first = tiles[0].reshape(shape)
        stack = np.zeros((spec.shape[0] or len(tiles), *first.shape), dtype=spec.dtype)
        for index, tile in enumerate(tiles):
            stack[index] = tile.reshape(shape)
        return stack

    def _tile(self, array: NDArray[np.float32], corner: tuple[int, int]) -> NDArray[np.float32]:
        """One window of a layer (a view), with the slices around it that are its context."""
        row, column = corner
        return array[:, :, row : row + self.patch[1], column : column + self.patch[2]]


class _Sums:
    """Weighted sums of logits over one patch's depth of slices."""

    def __init__(self, *, classes: int, shape: tuple[int, int, int], layout: Plan, tiling: Tiling) -> None:
        self._layout = layout
        self._profile = [_profile(length, tiling.weighting) for length in layout.patch]
        # The weights of all windows form a grid, so their sum is a product of one sum per axis.
        self._total = [
            _total(n, starts, profile)
            for n, starts, profile in zip(shape, layout.starts, self._profile, strict=True)
        ]
        depth, rows, columns = self._profile
        self._weights = depth[:, None, None] * rows[:, None] * columns / np.float32(len(layout.mirrors))
        self._weighted = np.empty_like(self._weights)
        self._sums = np.zeros((classes, layout.patch[0], *shape[1:]), dtype=np.float32)
        # Weights that are kept from falling are no product any more: their sum is kept voxel by voxel.
        self._counts: NDArray[np.float32] | None = None
        if tiling.least_weight:
            np.maximum(self._weights, tiling.least_weight / len(layout.mirrors), out=self._weights)
            self._counts = np.zeros(self._sums.shape[1:], dtype=np.float32)

    def add(self, row: int, column: int, logits: NDArray[np.float32]) -> None:
        """Add one window's logits at (row, column) of the current layer."""
        _, rows, columns = self._layout.patch
        place = self._sums[:, :, row : row + rows, column : column + columns]
        # Class by class: what is in between then stays in the processor's cache.
        for total, values in zip(place, logits, strict=True):
            np.multiply(values, self._weights, out=self._weighted)
            total += self._weighted
        if self._counts is not None:
            self._counts[:, row : row + rows, column : column + columns] += self._weights

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
        if self._counts is not None:
            logits /= self._counts[(slice(low - first, high - first), *cut)]
        else:
            logits /= depth[:, None, None]
            logits /= rows[:, None] * columns
        self._advance(end - first)
        return Slab(start=low - front, logits=logits)

    def _advance(self, slices: int) -> None:
        """Make slice `slices` of the window its first, and the freed end zero."""
        remaining = self._sums.shape[1] - slices
        for total in self._sums:
            total[:remaining] = total[slices:].copy()
        self._sums[:, remaining:] = 0
        if self._counts is not None:
            self._counts[:remaining] = self._counts[slices:].copy()
            self._counts[remaining:] = 0


def _flipped(array: NDArray[np.float32], axes: tuple[int, ...]) -> NDArray[np.float32]:
    """(channels, slices, rows, columns) mirrored along the `axes` of the grid (a view)."""
    return np.flip(array, tuple(axis + 1 for axis in axes)) if axes else array


def _profile(length: int, weighting: str) -> NDArray[np.float32]:
    """A window's weights along one axis: trust in the middle, little at the edge."""
    if weighting == "uniform":
        return np.ones(length, dtype=np.float32)
    middle = length // 2 if weighting == "nnunet" else (length - 1) / 2
    distance = (np.arange(length) - middle) / (SIGMA * length)
    return np.asarray(np.exp(-0.5 * np.square(distance)), dtype=np.float32)


def _total(length: int, starts: Sequence[int], profile: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of all windows' weights along one axis."""
    total = np.zeros(length, dtype=np.float32)
    for start in starts:
        total[start : start + len(profile)] += profile
    return total
