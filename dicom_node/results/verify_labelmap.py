"""The gate for a LABELMAP Segmentation: every label, in patient coordinates, is the mask's."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.utils import iter_pixels

from dicom_node.errors import GateError
from dicom_node.results import verify_segments
from dicom_node.results.context import ResultContext
from engines.findings import Findings


def check(ds: Dataset, context: ResultContext, findings: Findings, made: Collection[str]) -> None:
    """Compare a Segmentation, as read from disk, with the findings. GateError says what differs."""
    _, slices = verify_segments.check(ds, context, findings)
    if len(set(slices.tolist())) != len(slices) or int(ds.NumberOfFrames) != len(slices):
        raise GateError("two frames show the same slice, or a frame is not described")
    if (ds.get("SegmentationType"), ds.get("PixelPaddingValue")) != ("LABELMAP", 0):
        raise GateError("its label 0 is not said to be nothing")
    seen = np.zeros(findings.mask.shape[0], dtype=bool)
    decoded = iter_pixels(ds, decoding_plugin="pylibjpeg")
    for index, pixels in zip(slices.tolist(), decoded, strict=True):
        if not np.array_equal(pixels, findings.mask[index]):
            raise GateError(f"the labels differ from the mask on slice {index + 1}")
        seen[index] = True
    missing = [index for index, plane in enumerate(findings.mask) if not seen[index] and plane.any()]
    if missing:
        raise GateError(f"voxels of the mask on slice {missing[0] + 1} are not in the object")
