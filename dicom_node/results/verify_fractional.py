"""The gate for a FRACTIONAL Segmentation: every number, in patient coordinates, is the nearest to the probability."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels

from dicom_node.errors import GateError
from dicom_node.results import fractional, verify_segments
from dicom_node.results.context import ResultContext
from engines.findings import Findings

#: Half a step, and the rounding of 32-bit numbers.
_HALF = 0.5 + 1e-4


def check(ds: Dataset, context: ResultContext, findings: Findings, made: Collection[str]) -> None:
    """Compare a Segmentation, as read from disk, with the findings. GateError says what differs."""
    maps = fractional.of_segments(findings)
    frames, slices = verify_segments.check(ds, context, findings)
    said = (
        ds.get("SegmentationType"),
        ds.get("SegmentationFractionalType"),
        ds.get("MaximumFractionalValue"),
    )
    if said != ("FRACTIONAL", "PROBABILITY", fractional.MOST):
        raise GateError("its numbers are not said to be probabilities")
    keys = list(zip(frames.segments.tolist(), slices.tolist(), strict=True))
    if (
        len(set(keys)) != len(keys)
        or int(ds.NumberOfFrames) != len(keys)
        or not {*frames.segments} <= {*maps}
    ):
        raise GateError("two frames show the same, or a frame is not of a segment with a map")
    for (number, index), pixels in zip(keys, iter_pixels(ds, decoding_plugin="pylibjpeg"), strict=True):
        away = np.abs(pixels.astype(np.float32) - maps[number].array[index] * fractional.MOST)
        if away.max() > _HALF:
            raise GateError(f"segment {number} differs from its map on slice {index + 1}")
    shown = set(keys)
    for number, item in maps.items():
        for index, plane in enumerate(item.array):
            if (number, index) not in shown and plane.max() * fractional.MOST > _HALF:
                raise GateError(f"segment {number} is missing on slice {index + 1}")
