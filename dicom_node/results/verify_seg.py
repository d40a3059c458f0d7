"""The gate for a BINARY Segmentation: every voxel, in patient coordinates, is the mask's."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import GateError
from dicom_node.results import verify_segments
from dicom_node.results.context import ResultContext
from engines.findings import Findings


def check(ds: Dataset, context: ResultContext, findings: Findings, made: Collection[str]) -> None:
    """Compare a Segmentation, as read from disk, with the findings. GateError says what differs."""
    frames, slices = verify_segments.check(ds, context, findings)
    _check_voxels(ds, frames, slices, findings.mask)


def _check_voxels(
    ds: Dataset, frames: verify_segments.Frames, slices: NDArray[np.int64], mask: NDArray[Any]
) -> None:
    """Each frame must be its segment's voxels on its slice, and all frames together the whole mask."""
    keys = set(zip(slices.tolist(), frames.segments.tolist(), strict=True))
    if len(keys) != len(frames.sources) or int(ds.NumberOfFrames) != len(frames.sources):
        raise GateError("two frames show the same segment on the same slice, or a frame is not described")
    covered = np.zeros(mask.shape[0], dtype=np.int64)
    for number, pixels in enumerate(unpack(ds)):
        index, segment = int(slices[number]), int(frames.segments[number])
        if not np.array_equal(pixels, mask[index] == segment):
            raise GateError(f"segment {segment} differs from the mask on slice {index + 1}")
        covered[index] += np.count_nonzero(pixels)
    present = np.array([np.count_nonzero(plane) for plane in mask], dtype=np.int64)
    missing = np.flatnonzero(covered != present)
    if missing.size:
        raise GateError(f"voxels of the mask on slice {int(missing[0]) + 1} are not in the object")


def unpack(ds: Dataset) -> Any:
    """The frames, one after the other, (rows, columns) of bool.

    Bits are packed without padding between frames, the first pixel in the lowest bit (PS3.5 8.1.1).
    """
    data = np.frombuffer(ds.PixelData, dtype=np.uint8)
    pixels = int(ds.Rows) * int(ds.Columns)
    frames = int(ds.NumberOfFrames)
    if data.size * 8 < pixels * frames:
        raise GateError("the pixel data is shorter than its frames")
    for number in range(frames):
        start, stop = number * pixels, (number + 1) * pixels
        bits = np.unpackbits(data[start // 8 : -(-stop // 8)], bitorder="little")
        yield bits[start % 8 : start % 8 + pixels].reshape(ds.Rows, ds.Columns).view(np.bool_)
