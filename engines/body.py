"""The body in an image, what is not zero and its holes, and scaling within it alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from engines.errors import VolumeError
from engines.volume import Volume


def inside(arrays: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
    """What is not zero in any of `arrays`, of one shape, and the holes in that."""
    found = arrays[0] != 0
    for array in arrays[1:]:
        found |= array != 0
    return np.asarray(ndimage.binary_fill_holes(found))


def normalised(volume: Volume, within: NDArray[np.bool_]) -> Volume:
    """The z-score of the voxels `within`, as float32; outside they stay as they are (nnU-Net's use_mask_for_norm).

    Raises VolumeError where nothing is inside, or all of it has the same value.
    """
    scaled = np.array(volume.array, dtype=np.float32, order="C")
    values = scaled[within]
    deviation = float(values.std(dtype=np.float64)) if len(values) else 0.0
    if deviation == 0:
        raise VolumeError("the voxels that the z-score is made of all have the same value")
    scaled[within] = (values - np.float32(values.mean(dtype=np.float64))) / np.float32(deviation)
    return replace(volume, array=scaled)
