"""Brings a volume to the grid and the intensities that a network was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from engines import grids, pad, steps
from engines import manifest_inputs as manifest
from engines.errors import VolumeError
from engines.slabs import SLAB, spread
from engines.volume import WHOLE, Geometry, Region, Scale, Volume

#: How far an axis may point away from the patient axis that it stands for. A gantry tilts up to 30
#: degrees; a network sees a patient who is turned further than that as nothing it was trained on.
OBLIQUE_LIMIT_DEGREES = 30.5

#: A network's values are float32.
_MOST = float(np.finfo(np.float32).max)
#: A difference smaller than this is none: dividing by it is more than float32 can hold.
_LEAST = 4 / _MOST


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A volume as the network wants it."""

    #: float32, axes (slice, row, column) of `geometry`, normalised.
    array: NDArray[np.float32]
    #: The model grid.
    geometry: Geometry
    #: The source grid, its axes in the model's order and direction.
    source: Geometry
    #: What of `source` the model grid covers.
    region: Region = WHOLE
    #: What of the model grid is not padding.
    inner: Region = WHOLE


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


def prepare(
    volume: Volume,
    entry: manifest.Input,
    *,
    beside: Sequence[Volume] = (),
    region: Region = WHOLE,
    threads: int = 1,
) -> Prepared:
    """Reorient, do the steps, normalise and resample `volume` as `entry` asks.

    Intensities are normalised before resampling, as nnU-Net does: a metal artefact or the padding
    outside the scanner's circle is clipped before it can bleed into its neighbours.
    `beside` are further series on the grid of `volume`, which a crop looks at too; each of them is then prepared
    with the `region` that the first was cropped to, in the model's axes.
    Raises VolumeError where the volume cannot be used: see `check`.
    """
    check(volume, entry)
    turned = turn(volume, entry)
    others = [turn(other, entry).array for other in beside]
    seen = steps.run(turned, entry.source_steps, region=region, beside=others, threads=threads)
    if seen.volume is not turned:
        _check_values(seen.volume, "after its steps ")
    grid = grids.of_model(seen.volume.geometry, entry)
    scaling = scaling_for(entry.intensity, seen.volume.array)
    array = resample(seen.volume.array, grid.shape, scaling=scaling, threads=threads)
    inner = WHOLE
    if entry.padding is not None:
        array, grid, inner = pad.padded(array, grid, entry.padding)
    return Prepared(array=array, geometry=grid, source=turned.geometry, region=seen.region, inner=inner)


def turn(volume: Volume, entry: manifest.Input) -> Volume:
    """The volume in the model's axes (a view); a planar model takes an image as it was acquired."""
    return volume if entry.planar else volume.reoriented(entry.orientation)


def check(volume: Volume, entry: manifest.Input) -> None:
    """Raise VolumeError, saying why, where the model cannot answer about this volume."""
    slices = volume.array.shape[0]
    if entry.planar:
        if slices > 1:
            raise VolumeError(f"the volume has {slices} slices; the model takes single images")
        if entry.spacing_mm is not None and volume.geometry.scale is Scale.NONE:
            raise VolumeError("the image does not say how large its pixels are, and the model must know")
    else:
        _check_stack(volume, entry)
    _check_values(volume, "")


def _check_values(volume: Volume, when: str) -> None:
    """Finite, and not all the same."""
    low, high = float(volume.array.min()), float(volume.array.max())
    if not (math.isfinite(low) and math.isfinite(high)):
        bad = sum(int(np.count_nonzero(~np.isfinite(plane))) for plane in volume.array)
        raise VolumeError(
            f"{when}the volume holds values that are not finite numbers: {bad} of {volume.array.size} voxels"
        )
    if max(-low, high) > _MOST:
        raise VolumeError(
            f"{when}the values of the volume run from {low:g} to {high:g}: more than float32 can hold"
        )
    if low == high:
        raise VolumeError(
            f"{when}every voxel of the volume has the same value, {low:g}: there is no image in it"
        )


def _check_stack(volume: Volume, entry: manifest.Input) -> None:
    """Enough slices, upright in the patient."""
    slices = volume.array.shape[0]
    if slices < entry.min_slices:
        raise VolumeError(f"the volume has {slices} slices; the model needs at least {entry.min_slices}")
    angle = obliquity(volume.geometry)
    if angle > OBLIQUE_LIMIT_DEGREES:
        raise VolumeError(
            f"the volume is turned {angle:.0f} degrees away from the patient's axes; "
            f"the engine accepts up to {OBLIQUE_LIMIT_DEGREES:.0f}"
        )


def obliquity(geometry: Geometry) -> float:
    """The largest angle in degrees between an axis of the volume and the patient axis nearest to it."""
    turned, _, _ = geometry.reoriented("LPH")
    cosines = np.diag(turned.affine[:3, :3]) / np.linalg.norm(turned.affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1))))


def axis_weights(n_in: int, n_out: int, *, antialias: bool) -> scipy.sparse.csr_matrix[np.float32] | None:
    """Linear interpolation along one axis as an (n_out, n_in) matrix; None where nothing changes.

    Voxel i of the output has its centre at (i + 1/2) n_in / n_out - 1/2 of the input. Where the output's
    voxels are the larger ones and `antialias` is set, each is the mean of the linear interpolant over its
    own extent, so detail that the output cannot hold is averaged away and nothing moves: a linear image
    stays the same line. Beyond the first and last centre the edge value holds.
    """
    if n_in == n_out:
        return None
    factor = n_in / n_out
    extent = factor if antialias and factor > 1 else 0.0
    centres = (np.arange(n_out) + 0.5) * factor - 0.5
    first = np.floor(centres - extent / 2).astype(np.int64)
    taps = first[:, None] + np.arange(math.ceil(extent) + 2)
    distances = centres[:, None] - taps
    if extent:
        weights = (_hat_integral(distances + extent / 2) - _hat_integral(distances - extent / 2)) / extent
    else:
        weights = np.clip(1 - np.abs(distances), 0, None)
    rows, columns = np.nonzero(weights)
    places = np.clip(taps[rows, columns], 0, n_in - 1)
    matrix = scipy.sparse.coo_matrix((weights[rows, columns], (rows, places)), shape=(n_out, n_in))
    return matrix.tocsr().astype(np.float32)


def _hat_integral(end: NDArray[np.float64]) -> NDArray[np.float64]:
    """The integral up to `end` of the hat max(0, 1 - |x|), which linear interpolation weighs with."""
    inside = np.clip(end, -1, 1)
    return np.where(inside < 0, np.square(1 + inside) / 2, 1 - np.square(1 - inside) / 2)


def resample(
    array: NDArray[Any], shape: tuple[int, int, int], *, scaling: Scaling | None = None, threads: int = 1
) -> NDArray[np.float32]:
    """Scale `array` and resample it to `shape` over the same box: separable, linear, anti-aliased.

    Works through a few slices at a time, rows and columns first: beside the result it holds one copy
    of the volume that is small in-plane. The order of the axes is that of `array`, so an answer does
    not depend on how the voxels lie in memory.
    """
    scale = scaling or Scaling()
    rows, columns = (axis_weights(array.shape[axis], shape[axis], antialias=True) for axis in (1, 2))
    flat = np.empty((array.shape[0], shape[1], shape[2]), dtype=np.float32)

    def shrink(start: int) -> None:
        slab = scale(array[start : start + SLAB])
        for offset in range(len(slab)):
            flat[start + offset] = _in_plane(slab[offset], rows, columns)

    spread(shrink, range(0, array.shape[0], SLAB), threads=threads)
    along = axis_weights(array.shape[0], shape[0], antialias=True)
    return flat if along is None else np.asarray(along @ flat.reshape(len(flat), -1)).reshape(shape)


def _in_plane(
    plane: NDArray[np.float32],
    rows: scipy.sparse.csr_matrix[np.float32] | None,
    columns: scipy.sparse.csr_matrix[np.float32] | None,
) -> NDArray[np.float32]:
    """One plane (row, column) with both axes resampled."""
    if rows is not None:
        plane = rows @ plane
    return plane if columns is None else np.asarray((columns @ plane.T).T)


def scaling_for(intensity: manifest.Intensity, array: NDArray[Any]) -> Scaling:
    """What `intensity` means for this image; statistics are those of the whole source image."""
    match intensity:
        case manifest.Window(low=low, high=high):
            return _to_unit_range(low, high)
        case manifest.CTNormalisation(low=low, high=high, mean=mean, std=std):
            return Scaling(low=low, high=high, offset=mean, scale=1 / std)
        case manifest.ZScore(nonzero=nonzero):
            mean, std = _moments(array, nonzero=nonzero)
            return Scaling(offset=mean, scale=1 / std, keep_zero=nonzero)
        case manifest.Percentile(low=low, high=high):
            return _to_unit_range(*_percentiles(array, (low, high)))
        case manifest.MinMax():
            return _to_unit_range(float(array.min()), float(array.max()))


def _to_unit_range(low: float, high: float) -> Scaling:
    """Clip to [low, high] and scale to [0, 1]."""
    if not high - low > _LEAST:
        raise VolumeError(
            f"the intensity range [{low:g}, {high:g}] is empty: the image has no contrast in it"
        )
    return Scaling(low=low, high=high, offset=low, scale=1 / (high - low))


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
