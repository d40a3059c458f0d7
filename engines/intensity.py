"""Intensities as a network was trained on: what the manifest's step means for one image."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import manifest_inputs as manifest
from engines.errors import VolumeError

#: A difference smaller than this is none: dividing by it is more than float32 can hold.
_LEAST = 4 / float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True)
class Scaling:
    """Clip to [low, high], subtract `offset`, multiply by `scale`."""

    low: float = -math.inf
    high: float = math.inf
    offset: float = 0.0
    scale: float = 1.0
    #: Leave zero as it is: background, not measured.
    keep_zero: bool = False

    def __call__(self, slab: NDArray[Any]) -> NDArray[np.float32]:
        """The slab scaled, as new contiguous float32."""
        scaled = np.array(slab, dtype=np.float32, order="C")
        zero = scaled == 0 if self.keep_zero else None
        if self.low > -math.inf or self.high < math.inf:
            np.clip(scaled, np.float32(self.low), np.float32(self.high), out=scaled)
        scaled -= np.float32(self.offset)
        scaled *= np.float32(self.scale)
        if zero is not None:
            scaled[zero] = 0
        return scaled

    def undone(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Scaled values in the unit that they came from; what was clipped does not come back."""
        return np.asarray(values * np.float32(1 / self.scale) + np.float32(self.offset), dtype=np.float32)


def scaling_for(intensity: manifest.Intensity, array: NDArray[Any]) -> Scaling:
    """What `intensity` means for this image; statistics are those of the whole source image."""
    match intensity:
        case manifest.Window(low=low, high=high):
            return _to_unit_range(low, high)
        case manifest.CTNormalisation(low=low, high=high, mean=mean, std=std):
            return Scaling(low=low, high=high, offset=mean, scale=1 / std)
        case manifest.ZScore(nonzero=nonzero):
            mean, std = _moments(array, nonzero=bool(nonzero))
            return Scaling(offset=mean, scale=1 / std, keep_zero=bool(nonzero))
        case manifest.Unchanged():
            return Scaling()
        case manifest.Percentile(low=low, high=high):
            return _to_unit_range(*_percentiles(array, (low, high)))
        case manifest.MinMax(to=to):
            return _to_range(float(array.min()), float(array.max()), to, clip=True)
        case manifest.Linear(low=low, high=high, to=to, clip=clip):
            return _to_range(low, high, to, clip=clip)


def _to_unit_range(low: float, high: float) -> Scaling:
    """Clip to [low, high] and scale to [0, 1]."""
    if not high - low > _LEAST:
        raise VolumeError(
            f"the intensity range [{low:g}, {high:g}] is empty: the image has no contrast in it"
        )
    return Scaling(low=low, high=high, offset=low, scale=1 / (high - low))


def _to_range(low: float, high: float, to: tuple[float, float], *, clip: bool) -> Scaling:
    """Scale [low, high] linearly to `to`, which may run the other way; clip to it, or not."""
    if abs(high - low) <= _LEAST:
        raise VolumeError("on the model's grid every voxel has the same value: there is no contrast in it")
    slope = (to[1] - to[0]) / (high - low)
    ends = sorted((low, high)) if clip else (-math.inf, math.inf)
    return Scaling(low=ends[0], high=ends[1], offset=low - to[0] / slope, scale=slope)


def _moments(array: NDArray[Any], *, nonzero: bool) -> tuple[float, float]:
    """Mean and standard deviation, of all voxels or of those that are not zero."""
    count, total, squares = 0, 0.0, 0.0
    # Sums about a value of the image itself: about zero, a large offset would cost the digits.
    middle = (float(array.min()) + float(array.max())) / 2
    for plane in array:
        values = plane[plane != 0] if nonzero else plane
        centred = np.asarray(values, dtype=np.float64) - middle
        count += centred.size
        total += float(centred.sum())
        squares += float(np.square(centred).sum())
    if count == 0:
        raise VolumeError("every voxel of the volume is 0, and the z-score is made of the others")
    mean = total / count
    deviation = math.sqrt(max(squares / count - mean * mean, 0.0))
    if deviation <= _LEAST:
        raise VolumeError("the voxels that the z-score is made of all have the same value")
    return mean + middle, deviation


def _percentiles(array: NDArray[Any], percents: tuple[float, float]) -> tuple[float, float]:
    """Two percentiles of all voxels, interpolated linearly between ranks."""
    if np.issubdtype(array.dtype, np.integer) and int(array.max()) - int(array.min()) < 2**20:
        return _percentiles_of_integers(array, percents)
    low, high = np.percentile(np.array(array, dtype=np.float32), percents, overwrite_input=True)
    return float(low), float(high)


def _percentiles_of_integers(array: NDArray[Any], percents: tuple[float, float]) -> tuple[float, float]:
    """The same from a histogram with one bin per value: exact, and no second copy of the image."""
    lowest = int(array.min())
    counts = np.zeros(int(array.max()) - lowest + 1, dtype=np.int64)
    for plane in array:
        counts += np.bincount((plane.astype(np.int64) - lowest).ravel(), minlength=len(counts))
    cumulated = np.cumsum(counts)

    def at(percent: float) -> float:
        rank = percent / 100 * (array.size - 1)
        below, above = np.searchsorted(cumulated, [math.floor(rank), math.ceil(rank)], side="right")
        return lowest + float(below) + (rank - math.floor(rank)) * float(above - below)

    return at(percents[0]), at(percents[1])
