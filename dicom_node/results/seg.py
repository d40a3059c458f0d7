"""Findings -> a DICOM Segmentation on the source images' own grid, one bit for each voxel and segment."""

from __future__ import annotations

from collections.abc import Mapping

from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.results import explicit, frames, segments
from dicom_node.results.context import ResultContext
from engines.findings import Findings


def build(context: ResultContext, findings: Findings, made: Mapping[str, Dataset]) -> Dataset | None:
    """A BINARY Segmentation (PS3.3 A.51) with one frame for each slice and segment that has voxels.

    None where there is no voxel at all. What `segments.unplaced` speaks against cannot be made.
    """
    if not segments.has_voxels(findings):
        return None
    ds = segments.begin(
        context, findings, "seg", encoding="BINARY", transfer_syntax_uid=ExplicitVRLittleEndian
    )
    images, shown = context.source.datasets, frames.shown(findings)
    [sample] = ds.PerFrameFunctionalGroupsSequence
    explicit.set_sequence(ds, 0x52009230, *frames.groups(shown, images, sample))
    ds.NumberOfFrames = len(shown)
    ds.add_new("PixelData", "OB", frames.pixels(shown, findings.mask))
    slices = [frame.slice for frame in shown]
    segments.place(ds, context, slices, one_each=len(findings.segments) == 1)
    return ds
