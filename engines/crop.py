"""The box of an image that is not background."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import VolumeError
from engines.manifest_steps import Crop
from engines.slabs import SLAB, spread
from engines.volume import Region


def region(arrays: Sequence[NDArray[Any]], step: Crop, *, threads: int = 1) -> Region:
    """The smallest box with every voxel that is foreground in any of `arrays`, and the step's margin.

    The arrays are of one shape. That of nnU-Net (Isensee et al. 2021) fills the holes of the foreground first,
    which cannot change its box. A few slices at a time: nothing of the size of the image is made.
    Raises VolumeError where there is no foreground.
    """
    shape = arrays[0].shape
    seen = [np.zeros(length, np.bool_) for length in shape]
    slabs: dict[int, list[NDArray[np.bool_]]] = {}

    def look(start: int) -> None:
        parts = (array[start : start + SLAB] for array in arrays)
        there = np.logical_or.reduce([_foreground(part, step) for part in parts])
        plane = there.any(axis=0)
        slabs[start] = [there.any(axis=(1, 2)), plane.any(axis=1), plane.any(axis=0)]

    spread(look, range(0, shape[0], SLAB), threads=threads)
    for start, (slices, rows, columns) in slabs.items():
        seen[0][start : start + SLAB] = slices
        seen[1] |= rows
        seen[2] |= columns
    if not seen[0].any():
        beyond = "other than 0" if step.above is None else f"above {step.above:g}"
        raise VolumeError(f"no voxel of the volume is {beyond}: there is nothing to crop to")
    deep, high, wide = (_extent(places, step.margin) for places in seen)
    return (deep, high, wide)


def _foreground(slab: NDArray[Any], step: Crop) -> NDArray[np.bool_]:
    return slab != 0 if step.above is None else slab > step.above


def _extent(places: NDArray[np.bool_], margin: int) -> slice:
    """From the first to the last place that is set, and `margin` more where there are as many."""
    first, last = np.flatnonzero(places)[[0, -1]].tolist()
    return slice(max(0, first - margin), min(len(places), last + 1 + margin))
