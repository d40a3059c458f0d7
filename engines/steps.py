"""A manifest's steps, done to an image on its own grid before its intensities are scaled."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from engines import crop
from engines.manifest_steps import BiasField, Clahe, Clip, Crop, Gaussian, Median, NonLocalMeans, SourceStep
from engines.volume import WHOLE, Region, Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class Stepped:
    """An image after its steps, and where in the original it lies."""

    volume: Volume
    region: Region = WHOLE


def run(
    volume: Volume,
    steps: Sequence[SourceStep],
    *,
    region: Region = WHOLE,
    beside: Sequence[NDArray[Any]] = (),
    threads: int = 1,
) -> Stepped:
    """Do `steps` in their order.

    With a `region` it is cropped to that: in place of the crop among the steps, before them where there is none.
    `beside` are further series on the grid of `volume`, as they came: a crop keeps what is foreground in any of them.
    Raises VolumeError where a step is not possible.
    """
    given = region if region != WHOLE else None
    if given is not None and not any(isinstance(step, Crop) for step in steps):
        volume = volume.within(given)
    for step in steps:
        if isinstance(step, Crop):
            region = given or crop.region([volume.array, *beside], step, threads=threads)
            volume = volume.within(region)
        else:
            volume = replace(volume, array=_filtered(volume, step, threads=threads))
    return Stepped(volume=volume, region=region)


def _filtered(volume: Volume, step: SourceStep, *, threads: int) -> NDArray[Any]:
    """The image after a step that keeps its grid."""
    # Imported here: most models want none of these, and the libraries that they need are large.
    from engines import bias, contrast, denoise

    array = volume.array
    match step:
        case Median():
            return denoise.median(array, step, threads=threads)
        case Gaussian():
            return denoise.gaussian(array, step, volume.geometry, threads=threads)
        case NonLocalMeans():
            return denoise.non_local_means(array, step, threads=threads)
        case Clahe():
            return contrast.clahe(array, step, threads=threads)
        case Clip():
            return contrast.clip(array, step, threads=threads)
        case BiasField():
            return bias.corrected(array, step, threads=threads)
        case Crop():
            raise ValueError("a crop makes another grid")
