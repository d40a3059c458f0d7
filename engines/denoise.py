"""Noise taken out of an image, a few slices at a time: median, Gaussian, non-local means."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import scipy.ndimage
from numpy.typing import NDArray

from engines.errors import VolumeError
from engines.levels import Levels
from engines.manifest_steps import Gaussian, Median, NonLocalMeans
from engines.slabs import SLAB, spread, spread_with_halo
from engines.volume import Geometry, Scale

#: Where the Gaussian ends, in standard deviations.
_TRUNCATE = 4.0


def median(array: NDArray[Any], step: Median, *, threads: int = 1) -> NDArray[Any]:
    """The median of `size` voxels along each axis, in the array's own type; mirrored beyond the edges.

    Makes one array like the image.
    """
    along = 1 if step.in_plane or len(array) == 1 else step.size
    made = np.empty(array.shape, array.dtype)

    def filtered(slab: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(scipy.ndimage.median_filter(slab, size=(along, step.size, step.size)))

    spread_with_halo(filtered, array, made, halo=along // 2, threads=threads)
    return made


def gaussian(
    array: NDArray[Any], step: Gaussian, geometry: Geometry, *, threads: int = 1
) -> NDArray[np.float32]:
    """The image under a Gaussian that is as wide along every axis, to four standard deviations; mirrored beyond.

    Makes a float32 copy of the image. Raises VolumeError where its millimetres are wanted and unknown.
    """
    sigma = _sigma(step, geometry)
    made = np.empty(array.shape, np.float32)

    def filtered(slab: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(scipy.ndimage.gaussian_filter(slab.astype(np.float32), sigma, truncate=_TRUNCATE))

    spread_with_halo(filtered, array, made, halo=int(_TRUNCATE * sigma[0] + 0.5), threads=threads)
    return made


def _sigma(step: Gaussian, geometry: Geometry) -> tuple[float, float, float]:
    """Standard deviations in voxels along (slice, row, column); a single slice has no neighbours."""
    if step.sigma_mm is not None and geometry.scale is Scale.NONE:
        raise VolumeError(
            "the image does not say how large its pixels are, and a step of the model is in millimetres"
        )
    slices, rows, columns = (
        step.sigma_voxels or 0.0 if step.sigma_mm is None else step.sigma_mm / spacing
        for spacing in geometry.spacing
    )
    return (0.0 if step.in_plane or geometry.shape[0] == 1 else slices, rows, columns)


def non_local_means(array: NDArray[Any], step: NonLocalMeans, *, threads: int = 1) -> NDArray[Any]:
    """Each pixel a mean of those in its slice whose surroundings look alike, in 65536 levels.

    Whole numbers within that range stay exact, and of their type; other values become float32 on the levels
    between the image's lowest and highest. Makes one array like the image.
    """
    levels = Levels.of(array, 2**16 - 1)
    made = np.empty(array.shape, levels.dtype)
    strength = [step.strength / levels.height]

    def fill(start: int) -> None:
        for index in range(start, min(start + SLAB, len(array))):
            level = np.ascontiguousarray(levels.down(array[index]).astype(np.uint16))
            found = cv2.fastNlMeansDenoising(
                level,
                h=strength,
                templateWindowSize=step.patch,
                searchWindowSize=step.window,
                normType=cv2.NORM_L1,
            )
            made[index] = levels.up(found)

    # One thread for each slice, not all for one: it is the same work, and nobody else's number is changed by it.
    cv2.setNumThreads(1)
    spread(fill, range(0, len(array), SLAB), threads=threads)
    return made
