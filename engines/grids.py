"""The grid that a network sees an image on: the same box with other voxels."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from engines import manifest_inputs as manifest
from engines.errors import VolumeError
from engines.volume import Geometry

#: Voxels that a model grid may have: 4 GiB in float32.
LIMIT = 2**28

#: A value this far below a half still rounds up, so that noise in the affine cannot change a shape.
_ROUNDING = 1e-6

#: Spacings that differ by less than this fraction are the same one.
_SAME = 1e-6


def of_model(source: Geometry, entry: manifest.Input) -> Geometry:
    """The grid that the network sees `source` on; the one slice of a planar image stays as it is."""
    if entry.sampling == "nnunet":
        return _as_nnunet(source, asked_spacing(source, entry))
    if entry.sampling == "first-voxel":
        return _from_first_voxel(source, asked_spacing(source, entry))
    if entry.size is not None:
        return _over_the_box(source, entry.size if len(entry.size) == 3 else (1, *entry.size))
    return at_spacing(source, asked_spacing(source, entry))


def asked_spacing(source: Geometry, entry: manifest.Input) -> tuple[float, float, float] | None:
    """The three spacings that the model asks for, mm."""
    if entry.spacing_mm is None:
        return None
    *slices, rows, columns = entry.spacing_mm
    return ((slices[0] if slices else None) or source.spacing[0], rows, columns)


def steps(source: Geometry, grid: Geometry, entry: manifest.Input) -> tuple[float | None, ...]:
    """Voxels of `source` from one voxel of the model grid to the next, along each axis of both.

    None where the grids are two of one box, whose shapes say it.
    """
    if entry.sampling != "first-voxel":
        return (None, None, None)
    pairs = zip(source.spacing, grid.spacing, strict=True)
    return tuple(1.0 if math.isclose(own, other, rel_tol=_SAME) else other / own for own, other in pairs)


def at_spacing(source: Geometry, spacing_mm: tuple[float, float, float] | None) -> Geometry:
    """The grid that a network with `spacing_mm` sees `source` on; `source` itself where that is None.

    Both grids cover the same box: the outer faces of the first and last voxels coincide (half-voxel
    alignment, align_corners=False elsewhere). The number of voxels is rounded, so the spacing is the
    asked one up to half a voxel over the whole axis, as in nnU-Net; the geometry says it exactly.
    """
    if spacing_mm is None:
        _refuse_too_many(source.shape, "at its own spacing")
        return source
    lengths = [
        n * own / asked for n, own, asked in zip(source.shape, source.spacing, spacing_mm, strict=True)
    ]
    slices, rows, columns = (max(1, math.floor(length + 0.5 + _ROUNDING)) for length in lengths)
    return _over_the_box(source, (slices, rows, columns))


def _as_nnunet(source: Geometry, spacing_mm: tuple[float, float, float] | None) -> Geometry:
    """The grid over the same box that nnU-Net makes: a half is rounded to the even number of voxels."""
    if spacing_mm is None:
        _refuse_too_many(source.shape, "at its own spacing")
        return source
    # Noise of the affine must not decide which half it is.
    slices, rows, columns = (
        max(1, round(round(n * own / asked, 6)))
        for n, own, asked in zip(source.shape, source.spacing, spacing_mm, strict=True)
    )
    return _over_the_box(source, (slices, rows, columns))


def _from_first_voxel(source: Geometry, spacing_mm: tuple[float, float, float] | None) -> Geometry:
    """The grid of exactly `spacing_mm` whose first voxel's centre is that of `source`.

    It has as many voxels as come nearest to the last centre, a half rounded to the even number.
    """
    if spacing_mm is None:
        _refuse_too_many(source.shape, "at its own spacing")
        return source
    factors = np.array([asked / own for asked, own in zip(spacing_mm, source.spacing, strict=True)])
    slices, rows, columns = (
        round((n - 1) / factor + 1) for n, factor in zip(source.shape, factors.tolist(), strict=True)
    )
    _refuse_too_many((slices, rows, columns), "at the model's spacing")
    affine = source.affine.copy()
    affine[:3, :3] = source.affine[:3, :3] * factors
    return replace(source, shape=(slices, rows, columns), affine=affine)


def _over_the_box(source: Geometry, shape: tuple[int, int, int]) -> Geometry:
    """A grid of `shape` whose outer faces are those of `source`."""
    _refuse_too_many(shape, "at the model's spacing")
    factors = np.array(source.shape) / np.array(shape)
    affine = source.affine.copy()
    affine[:3, :3] = source.affine[:3, :3] * factors
    affine[:3, 3] = source.to_patient((factors - 1) / 2)
    return replace(source, shape=shape, affine=affine)


def _refuse_too_many(shape: tuple[int, int, int], when: str) -> None:
    if math.prod(shape) > LIMIT:
        raise VolumeError(
            f"{when} the volume would have {shape} voxels, more than the engine holds ({LIMIT})"
        )
