"""Brings a volume to the grid and the intensities that a network was trained on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from engines import body, clips, grids, pad, resampling, splines, steps
from engines import manifest_inputs as manifest
from engines.errors import VolumeError
from engines.intensity import Scaling, scaling_for
from engines.volume import WHOLE, Geometry, Region, Scale, Volume

#: How far an axis may point away from the patient axis that it stands for. A gantry tilts up to 30
#: degrees; a network sees a patient who is turned further than that as nothing it was trained on.
OBLIQUE_LIMIT_DEGREES = 30.5

#: A network's values are float32.
_MOST = float(np.finfo(np.float32).max)


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A volume as the network wants it."""

    #: float32, axes (slice, row, column) of `geometry`, normalised.
    array: NDArray[np.float32]
    #: The model grid.
    geometry: Geometry
    #: The source grid, its axes in the model's order and direction.
    source: Geometry
    #: What was done to the intensities.
    scaling: Scaling
    #: What of `source` the model grid covers.
    region: Region = WHOLE
    #: What of the model grid is not padding.
    inner: Region = WHOLE
    #: What of `region` is inside the body, in the model's axes; None where nobody asked.
    inside: NDArray[np.bool_] | None = None


def prepare(
    volume: Volume,
    entry: manifest.Input,
    *,
    beside: Sequence[Volume] = (),
    region: Region = WHOLE,
    inside: NDArray[np.bool_] | None = None,
    labelled: NDArray[np.bool_] | None = None,
    threads: int = 1,
) -> Prepared:
    """Reorient, do the steps, normalise and resample `volume` as `entry` asks.

    Intensities are normalised before resampling, as nnU-Net does: a metal artefact or the padding
    outside the scanner's circle is clipped before it can bleed into its neighbours. A network that was
    trained the other way round says so.
    `beside` are further series on the grid of `volume`, which a crop looks at too; each of them is then prepared
    with the `region` that the first was cropped to, and what was found `inside` the body there, in the model's axes.
    What was `labelled` before, on the grid of `volume`, is of the body as well.
    Raises VolumeError where the volume cannot be used: see `check`.
    """
    check(volume, entry)
    if entry.frames is not None:
        volume, entry = clips.stacked(volume, entry)
    turned = turn(volume, entry)
    others = [turn(other, entry).array for other in beside]
    seen = steps.run(turned, entry.source_steps, region=region, beside=others, threads=threads)
    if seen.volume is not turned:
        _check_values(seen.volume, "after its steps ")
    grid = grids.of_model(seen.volume.geometry, entry)
    scaled = seen.volume
    if _is_filled(entry):
        if inside is None:
            inside = body.inside([array[seen.region] for array in (turned.array, *others)])
        scaled = body.normalised(scaled, _of_body(inside, volume, entry, seen.region, labelled))
    array, scaling = _on_grid(scaled, grid, entry, threads=threads)
    inner = WHOLE
    if entry.padding is not None:
        array, grid, inner = pad.padded(array, grid, entry.padding)
    return Prepared(
        array=array,
        geometry=grid,
        source=turned.geometry,
        scaling=scaling,
        region=seen.region,
        inner=inner,
        inside=inside,
    )


def _of_body(
    inside: NDArray[np.bool_],
    volume: Volume,
    entry: manifest.Input,
    region: Region,
    labelled: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """What is inside, and what of `volume` was labelled before."""
    if labelled is None:
        return inside
    turned: NDArray[np.bool_] = turn(replace(volume, array=labelled), entry).array
    return inside | turned[region]


def _on_grid(
    volume: Volume, grid: Geometry, entry: manifest.Input, *, threads: int
) -> tuple[NDArray[np.float32], Scaling]:
    """The volume's values on `grid`, scaled before or after that, and how."""
    if entry.sampling == "nnunet":
        wanted = grids.asked_spacing(volume.geometry, entry) or volume.geometry.spacing
        axes = splines.axes(volume.array.shape, grid.shape, (volume.geometry.spacing, wanted), entry.splines)
        scaling = Scaling() if _is_filled(entry) else scaling_for(entry.intensity, volume.array)
        return splines.resample(volume.array, axes, scaling=scaling, threads=threads), scaling
    early = entry.scaled == "before"
    scaling = scaling_for(entry.intensity, volume.array) if early else Scaling()
    array = resampling.resample(
        volume.array,
        grid.shape,
        scaling=scaling,
        antialias=entry.sampling == "box",
        steps=grids.steps(volume.geometry, grid, entry),
        threads=threads,
    )
    if not early:
        scaling = scaling_for(entry.intensity, array)
        for plane in array:
            plane[...] = scaling(plane)
    return array, scaling


def _is_filled(entry: manifest.Input) -> bool:
    """Whether intensities are scaled within the body only."""
    return isinstance(entry.intensity, manifest.ZScore) and entry.intensity.nonzero == "filled"


def turn(volume: Volume, entry: manifest.Input) -> Volume:
    """The volume in the model's axes (a view); a planar model takes an image as it was acquired."""
    return volume if entry.planar else volume.reoriented(entry.orientation)


def check(volume: Volume, entry: manifest.Input, *, upright: bool = True) -> None:
    """Raise VolumeError, saying why, where the model cannot answer about this volume.

    A volume that is brought to the grid of another need not be `upright` itself.
    """
    slices = volume.array.shape[0]
    if entry.planar:
        if slices > 1:
            raise VolumeError(f"the volume has {slices} slices; the model takes single images")
        if entry.spacing_mm is not None and volume.geometry.scale is Scale.NONE:
            raise VolumeError("the image does not say how large its pixels are, and the model must know")
    else:
        _check_stack(volume, entry, upright=upright)
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


def _check_stack(volume: Volume, entry: manifest.Input, *, upright: bool) -> None:
    """Enough slices, and upright in the patient where that matters."""
    slices = volume.array.shape[0]
    if slices < entry.min_slices:
        raise VolumeError(f"the volume has {slices} slices; the model needs at least {entry.min_slices}")
    angle = obliquity(volume.geometry)
    if upright and angle > OBLIQUE_LIMIT_DEGREES:
        raise VolumeError(
            f"the volume is turned {angle:.0f} degrees away from the patient's axes; "
            f"the engine accepts up to {OBLIQUE_LIMIT_DEGREES:.0f}"
        )


def obliquity(geometry: Geometry) -> float:
    """The largest angle in degrees between an axis of the volume and the patient axis nearest to it."""
    turned, _, _ = geometry.reoriented("LPH")
    cosines = np.diag(turned.affine[:3, :3]) / np.linalg.norm(turned.affine[:3, :3], axis=0)
    return float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1))))
