"""The logits of overlapping windows added up, each weighted, until nothing more is added to a slice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from engines.errors import OutputError
from engines.manifest_tiling import Tiling
from engines.placement import Plan
from engines.windows import Window

#: Width of the gaussian as a fraction of the patch (Isensee et al., nnU-Net, Nature Methods 2021).
SIGMA = 1 / 8

#: nnU-Net's largest weight in a window.
_HIGHEST = 10.0

#: Of sums that float16 cannot hold.
TOO_LARGE = (
    "the logits are too large for float16, in which nnU-Net adds them up; write weighting: gaussian in the manifest's "
    "tiling to add them up in float32"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Slab:
    """Logits that nothing will be added to any more."""

    #: First slice of the grid that `logits` covers.
    start: int
    #: float32 (classes, slices, rows, columns).
    logits: NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class Weights:
    """How much the voxels of windows count."""

    #: Of a window's voxels, float32 (slices, rows, columns); shared among its mirror images.
    window: NDArray[np.float32]
    #: The weights of all windows form a grid, so their sum is a product of one sum per axis.
    totals: tuple[NDArray[np.float32], ...]
    #: Whether it is not, and they are added up voxel by voxel: kept from falling, rounded, or missing.
    counted: bool
    #: Whether sums are rounded to float16 each time, and mirror images averaged before.
    halves: bool


class Sums:
    """Weighted sums of logits over one patch's depth of slices."""

    #: What the sums are held in.
    kind: ClassVar[type[np.floating]] = np.float32

    def __init__(
        self,
        *,
        classes: int,
        shape: tuple[int, int, int],
        layout: Plan,
        weights: Weights,
        background: Sequence[float],
    ) -> None:
        self._layout = layout
        self._total = weights.totals
        self._weights = weights.window
        self._weighted = np.empty_like(self._weights)
        self._sums: NDArray[np.floating] = np.zeros((classes, layout.patch[0], *shape[1:]), self.kind)
        self._counts: NDArray[np.floating] | None = None
        if weights.counted:
            self._counts = np.zeros(self._sums.shape[1:], self.kind)
        self._background = background_of(classes, background)[:, None, None, None]

    def add(self, window: Window, logits: NDArray[np.float32]) -> None:
        """Add the logits of a window of the current layer."""
        place = self._place(window)
        # Class by class: what is in between then stays in the processor's cache.
        for total, values in zip(self._sums, logits, strict=True):
            np.multiply(values, self._weights, out=self._weighted)
            total[place] += self._weighted
        if self._counts is not None:
            self._counts[place] += self._weights

    def _place(self, window: Window) -> tuple[slice, slice, slice]:
        """Where a window of the current layer lies in the sums."""
        (_, row, column), (_, rows, columns) = window.corner, self._layout.patch
        return (slice(None), slice(row, row + rows), slice(column, column + columns))

    def take(self, first: int, end: int) -> Iterator[Slab]:
        """The averages of slices [first, end), without padding; what remains moves up to the front."""
        low, high = without_padding(self._layout, first, end, len(self._total[0]))
        cut = tuple(
            slice(before, len(total) - after)
            for (before, after), total in zip(self._layout.padding[1:], self._total[1:], strict=True)
        )
        if low < high:
            front = self._layout.padding[0][0]
            yield Slab(start=low - front, logits=self._averages(slice(low, high), first, cut))
        self._advance(end - first)

    def _averages(self, slices: slice, first: int, cut: tuple[slice, ...]) -> NDArray[np.float32]:
        """The sums of `slices`, held from `first` on, divided by the weights of their windows."""
        place = (slice(slices.start - first, slices.stop - first), *cut)
        logits = np.array(self._sums[(slice(None), *place)], np.float32)
        if self._counts is None:
            depth, rows, columns = self._total[0][slices], self._total[1][cut[0]], self._total[2][cut[1]]
            logits /= depth[:, None, None]
            logits /= rows[:, None] * columns
            return logits
        weights = self._counts[place].astype(np.float32)
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


class HalfSums(Sums):
    """The same as nnU-Net adds up: in float16, mirror images averaged before (predict_from_raw_data.py of 2.8).

    Each addition is made in float32 and rounded, so that the labels are nnU-Net's own where two classes are close.
    """

    kind = np.float16

    #: The mirror images of the window that is being inferred, added up.
    _mirrored: NDArray[np.float32]

    def add(self, window: Window, logits: NDArray[np.float32]) -> None:
        """Add the logits of a window of the current layer, once all its mirror images are there."""
        mirrors = self._layout.mirrors
        if len(mirrors) > 1:
            if window.mirror == mirrors[0]:
                self._mirrored = logits.copy()
            else:
                self._mirrored += logits
            if window.mirror != mirrors[-1]:
                return
            self._mirrored /= np.float32(len(mirrors))
            logits = self._mirrored
        place = self._place(window)
        # What does not fit is infinite, and `_averages` says so.
        with np.errstate(over="ignore"):
            for total, values in zip(self._sums, logits, strict=True):
                np.multiply(values, self._weights, out=self._weighted)
                np.add(total[place], self._weighted, out=self._weighted)
                total[place] = self._weighted
        assert self._counts is not None
        self._counts[place] = np.add(self._counts[place], self._weights)

    def _averages(self, slices: slice, first: int, cut: tuple[slice, ...]) -> NDArray[np.float32]:
        """Raises OutputError where float16 cannot hold the logits."""
        with np.errstate(over="ignore", invalid="ignore"):
            averages = super()._averages(slices, first, cut).astype(np.float16).astype(np.float32)
        if not np.isfinite(averages).all():
            raise OutputError(TOO_LARGE)
        return averages


def kind_for(weights: Weights) -> type[Sums]:
    """The one that the weights are for."""
    return HalfSums if weights.halves else Sums


def weights_for(shape: tuple[int, int, int], layout: Plan, tiling: Tiling) -> Weights:
    """The weights of windows that lie on a grid of `shape` as `layout` has them."""
    profiles = [_profile(length, tiling.weighting) for length in layout.patch]
    totals = tuple(
        _total(n, starts, profile) for n, starts, profile in zip(shape, layout.starts, profiles, strict=True)
    )
    halves = tiling.weighting == "nnunet"
    window = _nnunet_s(layout, tiling) if halves else _of_a_window(profiles, layout, tiling)
    counted = halves or bool(tiling.least_weight) or tiling.skip_at_most is not None
    return Weights(window=window, totals=totals, counted=counted, halves=halves)


def without_padding(layout: Plan, first: int, end: int, length: int) -> tuple[int, int]:
    """What slices [first, end) of `length` are without those that `layout` padded them with."""
    before, after = layout.padding[0]
    return max(first, before), min(end, length - after)


def background_of(classes: int, background: Sequence[float]) -> NDArray[np.float32]:
    """A value for each class where no window was."""
    return np.array(background or [0.0] * classes, dtype=np.float32)


def _of_a_window(
    profiles: Sequence[NDArray[np.float32]], layout: Plan, tiling: Tiling
) -> NDArray[np.float32]:
    """The weights of a window's voxels."""
    depth, rows, columns = profiles
    passes = len(layout.mirrors)
    weights: NDArray[np.float32] = depth[:, None, None] * rows[:, None] * columns / np.float32(passes)
    return np.asarray(np.maximum(weights, np.float32(tiling.least_weight / passes)))


def _nnunet_s(layout: Plan, tiling: Tiling) -> NDArray[np.float32]:
    """nnU-Net's, as float16 holds them; those that it cannot hold are its smallest."""
    depth, rows, columns = (_gaussian(length, length // 2) for length in layout.patch)
    weights = (_HIGHEST * (depth[:, None, None] * rows[:, None] * columns)).astype(np.float16)
    weights[weights == 0] = weights[weights > 0].min()
    return np.maximum(weights.astype(np.float32), np.float32(_HIGHEST * tiling.least_weight))


def _gaussian(length: int, middle: float) -> NDArray[np.float64]:
    """1 in the middle."""
    distance = (np.arange(length) - middle) / (SIGMA * length)
    return np.asarray(np.exp(-0.5 * np.square(distance)))


def _profile(length: int, weighting: str) -> NDArray[np.float32]:
    """A window's weights along one axis: trust in the middle, little at the edge."""
    if weighting == "uniform":
        return np.ones(length, dtype=np.float32)
    return _gaussian(length, length // 2 if weighting == "nnunet" else (length - 1) / 2).astype(np.float32)


def _total(length: int, starts: Sequence[int], profile: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of all windows' weights along one axis."""
    total = np.zeros(length, dtype=np.float32)
    for start in starts:
        total[start : start + len(profile)] += profile
    return total
