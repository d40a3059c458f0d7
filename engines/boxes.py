"""Boxes as arrays: what networks write them as, where they lie on another grid, which of them are the same thing.

An array of boxes is float64 (boxes, 2, 3): the lowest and the highest corner along (slice, row, column). On a grid
of n voxels, 0 is the outer face of the first voxel and n that of the last.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import OutputError
from engines.volume import Geometry

#: Digits of a voxel that boxes are told to: what is below is noise of the geometry.
_DIGITS = 6


def read(numbers: NDArray[Any], *, box_format: str, axis_order: str, name: str) -> NDArray[np.float64]:
    """Boxes from the numbers (boxes, 4) or (boxes, 6) of output `name`; those of a plane are one slice deep.

    Raises OutputError where a number is not finite, or a box ends before it begins.
    """
    if not np.isfinite(numbers).all():
        raise OutputError(f'output "{name}" holds boxes whose numbers are not finite')
    pairs = numbers.astype(np.float64).reshape(len(numbers), 2, numbers.shape[1] // 2)
    if box_format == "centre-size":
        pairs = np.stack([pairs[:, 0] - pairs[:, 1] / 2, pairs[:, 0] + pairs[:, 1] / 2], axis=1)
    if (pairs[:, 0] > pairs[:, 1]).any():
        raise OutputError(
            f'output "{name}" holds boxes that end before they begin; box_format may be another than {box_format}'
        )
    if axis_order == "xyz":
        pairs = pairs[:, :, ::-1]
    if pairs.shape[2] == 3:
        return pairs
    slices = np.broadcast_to(np.array([[[0.0], [1.0]]]), (len(pairs), 2, 1))
    return np.concatenate([slices, pairs], axis=2)


def mirrored(
    boxes: NDArray[np.float64], shape: tuple[int, int, int], axes: tuple[int, ...]
) -> NDArray[np.float64]:
    """The boxes on a grid of `shape` as they lie when it is mirrored along `axes`."""
    turned = boxes.copy()
    for axis in axes:
        turned[:, :, axis] = shape[axis] - boxes[:, ::-1, axis]
    return turned


def moved(boxes: NDArray[np.float64], origin: Geometry, target: Geometry) -> NDArray[np.float64]:
    """The boxes on grid `origin` as they lie on `target`, whose axes are the same up to order and direction."""
    points = target.to_index(origin.to_patient(boxes - 0.5)) + 0.5
    return np.asarray(np.round(np.sort(points, axis=1), _DIGITS), dtype=np.float64)


def clipped(boxes: NDArray[np.float64], shape: tuple[int, int, int]) -> NDArray[np.float64]:
    """What of the boxes is on a grid of `shape`; of one beside it nothing is left: see `real`."""
    return np.clip(boxes, 0, np.array(shape, dtype=np.float64))


def real(boxes: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of the boxes hold anything."""
    return np.asarray((boxes[:, 1] > boxes[:, 0]).all(axis=1))


def distinct(
    boxes: NDArray[np.float64], scores: NDArray[np.float64], *, overlap: float, most: int
) -> NDArray[np.intp]:
    """Non-maximum suppression: the indices of the boxes that stay, the highest score first, `most` of them at most.

    A box goes where one with a higher score, that stays, shares with it more than `overlap` of what the two cover
    together. Of equal scores the first counts as the higher one.
    """
    order = np.argsort(-scores, kind="stable")
    chosen: list[np.intp] = []
    while order.size and len(chosen) < most:
        best, order = order[0], order[1:]
        chosen.append(best)
        order = order[shared(boxes[best], boxes[order]) <= overlap]
    return np.array(chosen, dtype=np.intp)


def shared(box: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of a box (2, 3) with each of `others`, none of which is empty."""
    low, high = np.maximum(box[0], others[:, 0]), np.minimum(box[1], others[:, 1])
    common = np.clip(high - low, 0, None).prod(axis=1)
    return np.asarray(common / (_size(box[None]) + _size(others) - common))


def _size(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Voxels in each box."""
    return np.asarray((boxes[:, 1] - boxes[:, 0]).prod(axis=1))
