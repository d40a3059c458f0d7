"""The inputs of a network from the series that it looks at: all on the grid of the first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from engines import preprocess
from engines.intensity import Scaling
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
    #: What was done to the intensities of the first series.
    scaling: Scaling
    #: What of `source` the model grid covers; the rest is background.
    region: Region = WHOLE
    #: What of the model grid is not padding.
    inner: Region = WHOLE


def prepare(manifest: Manifest, volume: Volume, others: Mapping[str, Volume], *, threads: int = 1) -> Seen:
    """Preprocess `volume`, the first input's, and `others`, by role, onto its model grid.

    Raises VolumeError where one of them cannot be used.
    """
    first = preprocess.prepare(volume, manifest.reference, threads=threads)
    arrays = {manifest.reference.name: first.array[None]}
    return Seen(
        arrays=arrays,
        geometry=first.geometry,
        source=first.source,
        scaling=first.scaling,
        region=first.region,
        inner=first.inner,
    )
