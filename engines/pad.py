"""Voxels around what a network sees, and its answer without them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import VolumeError
from engines.grids import LIMIT
from engines.manifest_steps import Pad
from engines.volume import Geometry, Region


def region(shape: tuple[int, int, int], step: Pad) -> tuple[tuple[int, int, int], Region]:
    """The padded shape, and where in it the image lies: in the middle, one voxel nearer to the start where it must be.

    Raises VolumeError where the padded grid is more than the engine holds.
    """
    wanted = step.at_least or tuple(
        unit * math.ceil(length / unit)
        for unit, length in zip(step.multiple_of or (1, 1, 1), shape, strict=True)
    )
    slices, rows, columns = (max(pair) for pair in zip(shape, wanted, strict=True))
    if slices * rows * columns > LIMIT:
        raise VolumeError(
            f"padded, the volume would have {(slices, rows, columns)} voxels, more than the engine holds"
        )
    deep, high, wide = (
        slice((longer - length) // 2, (longer - length) // 2 + length)
        for length, longer in zip(shape, (slices, rows, columns), strict=True)
    )
    return (slices, rows, columns), (deep, high, wide)


def padded(
    array: NDArray[np.float32], geometry: Geometry, step: Pad
) -> tuple[NDArray[np.float32], Geometry, Region]:
    """The array with the step's value around it, the larger grid, and where in it the array lies."""
    shape, inner = region(geometry.shape, step)
    made = np.full(shape, step.value, np.float32)
    made[inner] = array
    return made, geometry.around(shape, inner), inner


def alike(array: NDArray[np.float32], step: Pad) -> NDArray[np.float32]:
    """A further input's array, padded as the first's of its shape."""
    shape, inner = region((array.shape[0], array.shape[1], array.shape[2]), step)
    made = np.full(shape, step.value, np.float32)
    made[inner] = array
    return made


def trimmed(start: int, logits: NDArray[Any], inner: Region) -> tuple[int, NDArray[Any]]:
    """A slab (channels, slices, rows, columns) whose first slice is `start`, without the padding around `inner`.

    The first slice is then counted from the image's own; there may be no slice left.
    """
    if inner[0].start is None:
        return start, logits
    first = max(start, inner[0].start)
    end = max(first, min(start + logits.shape[1], inner[0].stop))
    return first - inner[0].start, logits[:, first - start : end - start, inner[1], inner[2]]
