"""Files of one series -> a volume in patient coordinates, or a named reason why not."""

from __future__ import annotations

from dataclasses import dataclass

from pydicom.dataset import Dataset

from engines.volume import Volume


@dataclass(frozen=True, kw_only=True, eq=False)
class SeriesImages:
    """One series as a volume, and the headers that its results must agree with."""

    #: Rescaled voxels (HU for CT), float32 or int16, with the geometry of the files.
    volume: Volume
    #: Headers without pixel data, one per slice, in the order of the volume's first axis.
    datasets: tuple[Dataset, ...]
    #: What was odd but did not stop it, for people, e.g. "1 localizer image set aside".
    notes: tuple[str, ...] = ()
