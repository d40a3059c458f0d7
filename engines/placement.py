"""Where the windows of a network go on a grid."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from engines.manifest_tiling import Tiling
from engines.windows import Window


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
