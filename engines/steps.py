"""A manifest's steps, done to an image on its own grid before its intensities are scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from engines import crop
from engines.manifest_steps import Crop, Step
from engines.volume import WHOLE, Region, Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class Stepped:
    """An image after its steps, and where in the original it lies."""

    volume: Volume
    region: Region = WHOLE


def run(
    volume: Volume,
    steps: Sequence[Step],
    *,
    region: Region = WHOLE,
    beside: Sequence[NDArray[Any]] = (),
    threads: int = 1,
) -> Stepped:
    """Do `steps` in their order to what of the volume is in `region`; without one it stays as it is.

    `beside` are further series on the grid of `volume`, as they came: a crop keeps what is foreground in any of them.
    Raises VolumeError where a step is not possible.
    """
    if region != WHOLE:
        volume = volume.within(region)
    for step in steps:
        match step:
            case Crop():
                region = crop.region([volume.array, *beside], step, threads=threads)
                volume = volume.within(region)
    return Stepped(volume=volume, region=region)
