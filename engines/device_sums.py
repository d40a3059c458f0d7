"""The logits of overlapping windows added up on the GPU, as `window_sums` does on the host.

A ring of slots holds the sums of as many slices as a patch is deep, and one more: what was finished last, for the next
slices to be interpolated with.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.device_memory import Memory
from engines.placement import Plan
from engines.window_sums import Weights, without_padding
from engines.windows import Window


class DeviceSums:
    """Weighted sums of logits; what is queued runs in its order."""

    def __init__(
        self,
        *,
        classes: int,
        shape: tuple[int, int, int],
        layout: Plan,
        weights: Weights,
        background: NDArray[np.float32],
    ) -> None:
        """`shape` is the padded grid."""
        self.classes = classes
        self.shape = shape
        self.layout = layout
        self.slots = layout.patch[0] + 1
        self._weights = weights
        self._background = background
        self._plane = shape[1] * shape[2]

    @property
    def patch(self) -> int:
        """Voxels of a window."""
        return math.prod(self.layout.patch)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes that it needs, by name."""
        found = {"sums": self.slots * self.classes * self._plane * 4, "flags": 8}
        if self._weights.counted:
            found["counts"] = self.slots * self._plane * 4
        if self._averages_mirrors:
            found["mirrored"] = self.classes * self.patch * 4
        return found

    @property
    def constants(self) -> Mapping[str, NDArray[Any]]:
        """What its kernels read, by name."""
        totals = zip(("by slice", "by row", "by column"), self._weights.totals, strict=True)
        return {"weights": self._weights.window, "background": self._background, **dict(totals)}

    @property
    def _averages_mirrors(self) -> bool:
        """Whether mirror images are averaged before they are weighted."""
        return self._weights.halves and len(self.layout.mirrors) > 1

    def look(self, memory: Memory, logits: int, count: int) -> None:
        """Note where `count` windows' logits hold what is not finite."""
        values = count * self.classes * self.patch
        memory.launch("look", values, logits, values, *memory.at("flags"))

    def add(self, memory: Memory, logits: int, window: Window) -> None:
        """Add a window's logits, (classes, *patch) on the device."""
        flips = sum(1 << axis for axis in window.mirror)
        patch, mirrors = self.layout.patch, self.layout.mirrors
        if self._averages_mirrors:
            (whole,) = memory.at("mirrored")
            first, last = window.mirror == mirrors[0], window.mirror == mirrors[-1]
            of_all = float(len(mirrors)) if last else 0.0
            memory.launch("mirror", self.patch, logits, whole, self.classes, *patch, flips, first, of_all)
            if not last:
                return
            logits, flips = whole, 0
        held = memory.at("weights", "sums", "counts")
        where = (*window.corner, self.slots, *self.shape[1:])
        memory.launch(
            "add", self.patch, logits, *held, self.classes, *patch, flips, *where, self._weights.halves
        )

    def average(self, memory: Memory, slices: tuple[int, int], activation: int) -> None:
        """The sums of slices [first, end), without padding, become averages, or what `activation` makes of them."""
        low, high = without_padding(self.layout, *slices, self.shape[0])
        if low >= high:
            return
        (top, bottom), (left, right) = self.layout.padding[1:]
        rows, columns = self.shape[1] - top - bottom, self.shape[2] - left - right
        held = memory.at("sums", "counts", "by slice", "by row", "by column", "background", "flags")
        where = (low, high - low, top, rows, left, columns, self.slots, *self.shape[1:])
        memory.launch(
            "finish",
            (high - low) * rows * columns,
            *held,
            self.classes,
            *where,
            self._weights.halves,
            activation,
        )

    def make_room(self, memory: Memory, slices: tuple[int, int]) -> None:
        """Clear what windows at `slices[1]` reach and those at `slices[0]` did not; the last slice before it stays."""
        depth = self.layout.patch[0]
        for index in range(slices[0] + depth, slices[1] + depth):
            for name, size in (("sums", self.classes * self._plane * 4), ("counts", self._plane * 4)):
                memory.clear(name, index % self.slots * size, size)
