"""The sliding window: a network's logits over a whole grid, slab by slab along the slices."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import OutputError
from engines.manifest_tiling import Tiling
from engines.runner import Runner
from engines.windows import Answers, Network, Window, flipped

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

    @property
    def windows(self) -> list[Window]:
        """All of them, layer by layer, each with its mirror images."""
        return [
            Window(corner=(first, row, column), mirror=mirror)
            for first in self.starts[0]
            for row in self.starts[1]
            for column in self.starts[2]
            for mirror in self.mirrors
        ]


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
    constants: Mapping[str, NDArray[Any]] = MappingProxyType({}),
    background: Sequence[float] = (),
    progress: Callable[[float], None] | None = None,
) -> Iterator[Slab]:
    """Run the network over `feeds`, (channels, slices, rows, columns) by input name, all on one grid; yield its
    averaged logits in slice order.

    A slab is yielded as soon as no later window reaches it, so no more than one patch's depth of
    logits is ever held. The grid is padded with 0 where it is smaller than the patch, as nnU-Net does.
    `constants` are the inputs that are the same in every call. Where windows may be skipped, a voxel that no
    other one covers is `background`, one value for each class.
    Raises OutputError where the network answers with another shape or with NaN.
    """
    layout = plan(_shape3(feeds), tiling)
    padded = padded_for(feeds, layout, tiling)
    whole = _shape3(padded, tiling.context)
    network = network_for(runner, tiling, constants)
    sums = _Sums(classes=classes, shape=whole, layout=layout, tiling=tiling, background=background)
    layers = zip(layout.starts[0], (*layout.starts[0][1:], whole[0]), strict=True)
    first, end = next(layers)
    for answers in network.answers(padded, layout.windows, progress=progress):
        logits = _looked_at(answers, output_name, classes, layout.patch)
        for window, part in zip(answers.windows, logits, strict=False):
            while first != window.corner[0]:
                yield from sums.take(first, end)
                first, end = next(layers)
            sums.add(window, flipped(part, window.mirror))
    yield from sums.take(first, end)
    for low, high in layers:
        yield from sums.take(low, high)


def network_for(
    runner: Runner, tiling: Tiling, constants: Mapping[str, NDArray[Any]] = MappingProxyType({})
) -> Network:
    """The runner as what `tiling` shows windows to."""
    return Network(
        runner=runner,
        patch=tiling.patch,
        context=tiling.context,
        constants=constants,
        skip_at_most=tiling.skip_at_most,
    )


def padded_for(
    feeds: Mapping[str, NDArray[np.float32]], layout: Plan, tiling: Tiling
) -> dict[str, NDArray[np.float32]]:
    """The arrays with 0 around them where the patch is larger, and the slices of context before and behind."""
    return {name: _padded(array, layout, tiling.context) for name, array in feeds.items()}


def _shape3(feeds: Mapping[str, NDArray[Any]], context: int = 0) -> tuple[int, int, int]:
    """The three lengths of the grid that all of them lie on, without the slices of context around it."""
    _, slices, rows, columns = next(iter(feeds.values())).shape
    return (slices - 2 * context, rows, columns)


def _padded(array: NDArray[np.float32], layout: Plan, context: int) -> NDArray[np.float32]:
    """The array with 0 around it where the patch is larger, and `context` more slices before and behind."""
    if any(map(sum, layout.padding)):
        array = np.pad(array, ((0, 0), *layout.padding))
    return np.pad(array, ((0, 0), (context, context), (0, 0), (0, 0)), mode="edge") if context else array


def _looked_at(answers: Answers, name: str, classes: int, patch: tuple[int, int, int]) -> NDArray[np.float32]:
    """Logits (windows, classes, slices, rows, columns). Raises OutputError where they are none."""
    answer = answers.outputs[name]
    space = patch if answer.ndim == 5 else patch[1:]
    expected = (answers.count, classes, *space)
    if answer.shape != expected:
        raise OutputError(f'output "{name}" has shape {answer.shape}, not {expected}')
    # Both are NaN where any value is; nothing of the answer's size is made.
    if not (np.isfinite(answer.min()) and np.isfinite(answer.max())):
        raise OutputError(f'output "{name}" holds values that are not finite numbers')
    return answer.reshape(answers.count, classes, *patch)


class _Sums:
    """Weighted sums of logits over one patch's depth of slices."""

    def __init__(
        self,
        *,
        classes: int,
        shape: tuple[int, int, int],
        layout: Plan,
        tiling: Tiling,
        background: Sequence[float],
    ) -> None:
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
        # Weights that are kept from falling, or are missing, are no product: their sum is kept voxel by voxel.
        self._counts: NDArray[np.float32] | None = None
        if tiling.least_weight:
            np.maximum(self._weights, tiling.least_weight / len(layout.mirrors), out=self._weights)
        if tiling.least_weight or tiling.skip_at_most is not None:
            self._counts = np.zeros(self._sums.shape[1:], dtype=np.float32)
        given = np.array(background or [0.0] * classes, dtype=np.float32)
        self._background = given[:, None, None, None]

    def add(self, window: Window, logits: NDArray[np.float32]) -> None:
        """Add the logits of a window of the current layer."""
        (_, row, column), (_, rows, columns) = window.corner, self._layout.patch
        place = (slice(None), slice(row, row + rows), slice(column, column + columns))
        # Class by class: what is in between then stays in the processor's cache.
        for total, values in zip(self._sums, logits, strict=True):
            np.multiply(values, self._weights, out=self._weighted)
            total[place] += self._weighted
        if self._counts is not None:
            self._counts[place] += self._weights

    def take(self, first: int, end: int) -> Iterator[Slab]:
        """The averages of slices [first, end), without padding; what remains moves up to the front."""
        (front, _), *sides = self._layout.padding
        limit = len(self._total[0]) - self._layout.padding[0][1]
        low, high = max(first, front), min(end, limit)
        cut = tuple(
            slice(before, len(total) - after)
            for (before, after), total in zip(sides, self._total[1:], strict=True)
        )
        if low < high:
            yield Slab(start=low - front, logits=self._averages(slice(low, high), first, cut))
        self._advance(end - first)

    def _averages(self, slices: slice, first: int, cut: tuple[slice, ...]) -> NDArray[np.float32]:
        """The sums of `slices`, held from `first` on, divided by the weights of their windows."""
        place = (slice(slices.start - first, slices.stop - first), *cut)
        logits = self._sums[(slice(None), *place)].copy()
        if self._counts is None:
            depth, rows, columns = self._total[0][slices], self._total[1][cut[0]], self._total[2][cut[1]]
            logits /= depth[:, None, None]
            logits /= rows[:, None] * columns
            return logits
        weights = self._counts[place]
        np.divide(logits, weights, out=logits, where=weights > 0)
        np.copyto(logits, self._background, where=weights == 0)
        return logits

    def _advance(self, slices: int) -> None:
        """Make slice `slices` of the window its first, and the freed end zero."""
        held = [*self._sums] if self._counts is None else [*self._sums, self._counts]
        for array in held:
            remaining = len(array) - slices
            array[:remaining] = array[slices:].copy()
            array[remaining:] = 0


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
