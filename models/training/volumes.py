"""Bring a folder of axial CT images, or phantoms, to the grid that the network sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import labels
import numpy as np
import phantoms
import pydicom
from canvas import SPACING
from numpy.typing import NDArray

from engines import grids, preprocess
from engines.volume import Geometry, Volume


@dataclass(frozen=True, kw_only=True)
class Case:
    """A CT with its labels, axes (slice, row, column) towards head, posterior and left."""

    name: str
    #: float32, HU.
    hu: NDArray[np.float32]
    #: uint8, see `labels`.
    labels: NDArray[np.uint8]
    #: The slices to judge a prediction by; the others are only there to see.
    judged: NDArray[np.intp] | None = None


def read(folder: Path) -> Volume:
    """A plain axial series as a volume in orientation HPL; the slices must be evenly spaced."""
    found = [pydicom.dcmread(path) for path in sorted(folder.iterdir()) if path.is_file()]
    found.sort(key=lambda ds: float(ds.ImagePositionPatient[2]))
    places = np.array([[float(value) for value in ds.ImagePositionPatient] for ds in found])
    steps = np.diff(places, axis=0)
    if not np.allclose(steps, steps[0], atol=0.01):
        raise SystemExit(f"{folder}: the slices are not evenly spaced")
    rows, columns = (float(value) for value in found[0].PixelSpacing)
    cosines = np.array([float(value) for value in found[0].ImageOrientationPatient])
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1], affine[:3, 2] = steps[0], cosines[3:] * rows, cosines[:3] * columns
    affine[:3, 3] = places[0]
    array = np.stack([_hounsfield(ds) for ds in found])
    geometry = Geometry(shape=(array.shape[0], array.shape[1], array.shape[2]), affine=affine)
    return Volume(array=array, geometry=geometry, unit="[hnsf'U]").reoriented("HPL")


def _hounsfield(ds: pydicom.Dataset) -> NDArray[np.int16]:
    """Stored values to HU (PS3.3 C.11.1.1.2)."""
    values = ds.pixel_array.astype(np.float32) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    return np.round(values).astype(np.int16)


def onto_grid(array: NDArray[Any], spacing: labels.Triple) -> NDArray[np.float32]:
    """Resample to the network's spacing exactly as the engine does when the model is used."""
    affine = np.diag([*spacing, 1.0])
    shape = (array.shape[0], array.shape[1], array.shape[2])
    grid = grids.at_spacing(Geometry(shape=shape, affine=affine), SPACING)
    return preprocess.resample(array, grid.shape)


def labels_onto_grid(array: NDArray[np.uint8], spacing: labels.Triple) -> NDArray[np.uint8]:
    """Resample labels class by class, so that borders fall where most of the voxel lies."""
    shares = [onto_grid((array == number).astype(np.float32), spacing) for number in range(len(labels.NAMES))]
    return np.argmax(shares, axis=0).astype(np.uint8)


def real_cases(volume: Volume, truth: NDArray[np.uint8], held_out: Sequence[slice]) -> dict[str, list[Case]]:
    """A real CT as what is trained on and what is held out: `held_out` counts source slices from the feet.

    The images of the held-out blocks never enter training. The parts between them are used one by one,
    and joined: anatomy with jumps, but with the reach of a whole chest.
    """
    edges = [0, *(edge for block in held_out for edge in (block.start, block.stop)), len(truth)]
    between = [slice(start, stop) for start, stop in zip(edges[::2], edges[1::2], strict=True)]
    parts = [_part(volume, truth, block) for block in between]
    joined = Case(
        name="joined",
        hu=np.concatenate([part.hu for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
    )
    whole = _part(volume, truth, slice(0, len(truth)))
    return {
        # The joined one as often as all parts together.
        "train": [*parts, *[joined] * len(parts)],
        # Once as a short scan of its own, once where it belongs.
        "held out alone": [_part(volume, truth, block) for block in held_out],
        "held out in place": [replace(whole, judged=_inside(held_out, len(truth), len(whole.hu)))],
    }


def _inside(blocks: Sequence[slice], images: int, slices: int) -> NDArray[np.intp]:
    """The slices of the network's grid whose centre lies in one of the blocks of images."""
    centres = (np.arange(slices) + 0.5) * images / slices
    return np.flatnonzero([any(block.start <= centre < block.stop for block in blocks) for centre in centres])


def _part(volume: Volume, truth: NDArray[np.uint8], part: slice) -> Case:
    """Some slices of a CT as if they were all of it."""
    hu = onto_grid(np.maximum(volume.array[part], -1024), volume.geometry.spacing)
    return Case(
        name=f"images {part.start} to {part.stop - 1}",
        hu=hu,
        labels=labels_onto_grid(truth[part], volume.geometry.spacing),
    )


def phantom_cases(seeds: range) -> list[Case]:
    """The phantoms of these seeds."""
    made = [(seed, phantoms.make(seed)) for seed in seeds]
    return [Case(name=f"phantom {seed}", hu=phantom.hu, labels=phantom.labels) for seed, phantom in made]
