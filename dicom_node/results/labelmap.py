"""Findings -> a DICOM Segmentation of labels: one number for each voxel, whatever the number of segments."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.results import explicit, frames, segments
from dicom_node.results.context import ResultContext
from engines.findings import Findings


def build(context: ResultContext, findings: Findings, made: Mapping[str, Dataset]) -> Dataset | None:
    """A LABELMAP Segmentation (PS3.3 A.51, Supplement 243) with one frame for each slice that has voxels.

    None where there is no voxel at all. What `segments.unplaced` speaks against cannot be made.
    """
    if not segments.has_voxels(findings):
        return None
    ds = segments.begin(
        context, findings, "labelmap", encoding="LABELMAP", transfer_syntax_uid=ExplicitVRLittleEndian
    )
    # The label 0 is the padding value, which highdicom writes too. As an item it shifts the colours of a
    # viewer that takes them by their place in the sequence (OHIF 3.13), and numbers start at 1 (C.8.20.4).
    ds.SegmentSequence = [item for item in ds.SegmentSequence if item.SegmentNumber != 0]
    images, shown = context.source.datasets, frames.labelled(findings)
    [sample] = ds.PerFrameFunctionalGroupsSequence
    explicit.set_sequence(ds, 0x52009230, *frames.groups(shown, images, sample))
    slices = [frame.slice for frame in shown]
    segments.place(ds, context, slices, one_each=True)
    _pixels(ds, findings, slices)
    return ds


def _pixels(ds: Dataset, findings: Findings, slices: list[int]) -> None:
    """Pixel Data of as many bits as the labels need, in RLE (PS3.5 Annex G): labels are runs of the same."""
    kind = np.uint8 if len(findings.segments) < 256 else np.uint16
    labels = findings.mask[slices].astype(kind, copy=False)
    ds.NumberOfFrames = len(slices)
    ds.BitsAllocated = ds.BitsStored = 8 * np.dtype(kind).itemsize
    ds.HighBit = ds.BitsStored - 1
    ds.add_new("PixelPaddingValue", "US", 0)
    frames.run_lengths(ds, labels)
