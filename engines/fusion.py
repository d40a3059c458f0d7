"""The inputs of a network from the series that it looks at: all on the grid of the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines import preprocess
from engines.errors import VolumeError
from engines.manifest import Manifest
from engines.volume import WHOLE, Geometry, Region, Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class Seen:
    """What a network sees."""

    #: By the graph's input name: float32 (channels, slices, rows, columns), normalised, on `geometry`.
    arrays: Mapping[str, NDArray[np.float32]]
    #: The model grid.
    geometry: Geometry
    #: The grid of the first series, its axes in the model's order and direction.
    source: Geometry
    #: What of `source` the model grid covers; the rest is background.
    region: Region = WHOLE


def prepare(manifest: Manifest, volume: Volume, others: Mapping[str, Volume], *, threads: int = 1) -> Seen:
    """Preprocess `volume`, the first input's, and `others`, by role, onto its model grid.

    Raises VolumeError where one of them cannot be used.
    """
    if len(manifest.inputs) > 1 and manifest.reference.sampling == "nnunet":
        return _stacked(manifest, volume, others, threads=threads)
    first = preprocess.prepare(volume, manifest.reference, threads=threads)
    arrays = {manifest.reference.name: first.array[None]}
    return Seen(arrays=arrays, geometry=first.geometry, source=first.source, region=first.region)


def _stacked(manifest: Manifest, volume: Volume, others: Mapping[str, Volume], *, threads: int) -> Seen:
    """The channels of an nnU-Net: series of one grid, cropped to what is not zero in any of them.

    Raises VolumeError where a series is missing, or lies on another grid.
    """
    volumes = [volume]
    for entry in manifest.inputs[1:]:
        if entry.called not in others:
            raise VolumeError(f"the model needs further series: {entry.called}")
        if not others[entry.called].geometry.agrees_with(volume.geometry):
            raise VolumeError(
                f"{entry.called} is not on the grid of {manifest.reference.called}: register it first"
            )
        volumes.append(others[entry.called])
    first = preprocess.prepare(volume, manifest.reference, beside=volumes[1:], threads=threads)
    arrays = np.empty((len(volumes), *first.array.shape), dtype=np.float32)
    arrays[0] = first.array
    for number, entry in enumerate(manifest.inputs[1:], start=1):
        beside = [other for index, other in enumerate(volumes) if index != number]
        arrays[number] = preprocess.prepare(
            volumes[number], entry, beside=beside, region=first.region, threads=threads
        ).array
    return Seen(
        arrays={manifest.reference.name: arrays},
        geometry=first.geometry,
        source=first.source,
        region=first.region,
    )
