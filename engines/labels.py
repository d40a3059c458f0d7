"""Counts and extents of a label map, slice by slice: a whole mask is never widened to integers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def blank(shape: tuple[int, int, int]) -> NDArray[np.uint8]:
    """The label map of a model without labels: background everywhere, one byte of memory, read-only."""
    return np.broadcast_to(np.zeros(1, np.uint8), shape)


def counts(mask: NDArray[Any], most: int) -> NDArray[np.int64]:
    """Voxels per label 0..`most` of a (slices, rows, columns) label map."""
    total = np.zeros(most + 1, np.int64)
    for plane in mask:
        total += np.bincount(plane.ravel(), minlength=most + 1)[: most + 1]
    return total


def extents(mask: NDArray[Any], labels: NDArray[np.bool_]) -> tuple[tuple[int, int], ...] | None:
    """First and last index along each axis where the mask holds a wanted label; None where none does.

    `labels[n]` says whether label n is wanted.
    """
    slices = np.zeros(mask.shape[0], bool)
    rows = np.zeros(mask.shape[1], bool)
    columns = np.zeros(mask.shape[2], bool)
    for index, plane in enumerate(mask):
        wanted = labels[plane]
        rows |= wanted.any(axis=1)
        across = wanted.any(axis=0)
        columns |= across
        slices[index] = across.any()
    found = [np.flatnonzero(axis) for axis in (slices, rows, columns)]
    if not found[0].size:
        return None
    return tuple((int(axis[0]), int(axis[-1])) for axis in found)


def surrounding(sizes: NDArray[np.int64]) -> set[int]:
    """The largest label of several, by voxels per label 0..N: the frame (a body) of what there is to look at."""
    inside = sizes[1:]
    return {int(inside.argmax()) + 1} if np.count_nonzero(inside) > 1 else set()
