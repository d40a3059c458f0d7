"""Findings -> a DICOM Segmentation of probabilities, 0 to 255 for each voxel and segment."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.results import explicit, frames, header, segments
from dicom_node.results.context import ResultContext
from dicom_node.results.frames import Frame
from engines.findings import PROBABILITY, Findings, Map

#: Maximum Fractional Value: the number that stands for 1.
MOST = 255


def build(context: ResultContext, findings: Findings, made: Mapping[str, Dataset]) -> Dataset | None:
    """A FRACTIONAL Segmentation (PS3.3 A.51) of the segments' probabilities.

    A frame for each segment and slice that has a probability of 1/510 or more. None where there is none.
    What `segments.unplaced` speaks against cannot be made.
    """
    maps = of_segments(findings)
    shown = _shown(findings, maps)
    if not shown:
        return None
    ds = segments.begin(
        context, findings, "fractional", encoding="FRACTIONAL", transfer_syntax_uid=ExplicitVRLittleEndian
    )
    named = [segment.label for segment in findings.segments if segment.number in maps]
    ds.SeriesDescription = header.describe(context, ["probabilities", *named])
    images = context.source.datasets
    [sample] = ds.PerFrameFunctionalGroupsSequence
    explicit.set_sequence(ds, 0x52009230, *frames.groups(shown, images, sample))
    segments.place(ds, context, [frame.slice for frame in shown], one_each=len(findings.segments) == 1)
    ds.NumberOfFrames = len(shown)
    pixels = np.stack([scaled(maps[frame.segment or 0].array[frame.slice]) for frame in shown])
    frames.run_lengths(ds, pixels)
    return ds


def of_segments(findings: Findings) -> dict[int, Map]:
    """The probability maps by segment."""
    return {
        item.segment_number: item
        for item in findings.maps
        if item.name == PROBABILITY and item.segment_number is not None
    }


def scaled(plane: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Probabilities as the numbers nearest to them."""
    return np.rint(plane * MOST).astype(np.uint8)


def _shown(findings: Findings, maps: Mapping[int, Map]) -> list[Frame]:
    """The frames, by segment."""
    seen = {number: [bool(scaled(plane).any()) for plane in item.array] for number, item in maps.items()}
    used = sorted({index for flags in seen.values() for index, flag in enumerate(flags) if flag})
    slices = frames.ordered(findings, used)
    return [
        Frame(segment=number, slice=index, rank=rank)
        for number in sorted(seen)
        for rank, index in enumerate(slices, start=1)
        if seen[number][index]
    ]
