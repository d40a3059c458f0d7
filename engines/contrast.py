"""The contrast of an image, changed on its own values: bounds, and adaptive histogram equalisation."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from engines.errors import VolumeError
from engines.levels import Levels
from engines.manifest_steps import Clahe, Clip
from engines.slabs import SLAB, spread

#: Levels of the histograms, less one.
_TOP = 255


def clip(array: NDArray[Any], step: Clip, *, threads: int = 1) -> NDArray[Any]:
    """Values bounded to `low` and `high`; of its own type where the bounds are of it too, else float32."""
    low = -math.inf if step.low is None else step.low
    high = math.inf if step.high is None else step.high
    whole = np.issubdtype(array.dtype, np.integer)
    kept = whole and all(bound.is_integer() or math.isinf(bound) for bound in (low, high))
    made = np.empty(array.shape, array.dtype if kept else np.float32)

    def fill(start: int) -> None:
        # In float64, that holds every bound and every value: bounds beyond a type's range bound nothing.
        part = np.clip(array[start : start + SLAB].astype(np.float64), low, high)
        made[start : start + SLAB] = part

    spread(fill, range(0, len(array), SLAB), threads=threads)
    return made


def clahe(array: NDArray[Any], step: Clahe, *, threads: int = 1) -> NDArray[np.float32]:
    """Each slice equalised in 256 levels between the image's lowest and highest value, or the step's.

    The result has the values of those levels again, float32. Makes a float32 copy of the image.
    Raises VolumeError where the image has no range.
    """
    low = float(array.min()) if step.low is None else step.low
    high = float(array.max()) if step.high is None else step.high
    if not high > low:
        raise VolumeError(
            f"the range [{low:g}, {high:g}] of the step clahe is empty: the image has no contrast in it"
        )
    levels = Levels.between(low, high, _TOP)
    made = np.empty(array.shape, np.float32)

    def fill(start: int) -> None:
        # One for each piece: it keeps tables while it works.
        equaliser = cv2.createCLAHE(clipLimit=step.clip_limit, tileGridSize=(step.tiles[1], step.tiles[0]))
        for index in range(start, min(start + SLAB, len(array))):
            level = np.ascontiguousarray(levels.down(array[index]).astype(np.uint8))
            made[index] = levels.up(equaliser.apply(level))

    cv2.setNumThreads(1)
    spread(fill, range(0, len(array), SLAB), threads=threads)
    return made
