"""Findings -> a DICOM Segmentation on the source images' own grid."""

from __future__ import annotations

import re

import highdicom
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian

from dicom_node.results import codes, header
from dicom_node.results.context import ResultContext
from engines.findings import Findings, Segment


def build(context: ResultContext, findings: Findings) -> Dataset:
    """A BINARY Segmentation (PS3.3 A.51) with one frame for each slice and segment that has voxels.

    Every segment is described, also one without voxels: "looked for and not found" is a result,
    and its number stays the one that the findings use. The mask must have a voxel somewhere: a
    multi-frame image without frames does not exist (`has_voxels`). Raises SeriesError where the source
    has no Frame of Reference.
    """
    uid = context.frame_of_reference_uid
    ds: Dataset = Segmentation(
        source_images=context.stubs,
        pixel_array=findings.mask,
        segmentation_type="BINARY",
        segment_descriptions=[_describe(context, segment) for segment in findings.segments],
        content_label=_content_label(context.model.name),
        content_description=f"{context.model.name} {context.model.version}"[:64],
        omit_empty_frames=True,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **header.constructor(context, "seg"),
    )
    ds.FrameOfReferenceUID = uid
    _name_dimensions(ds, context.uid("seg", "dimensions"))
    measures = ds.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0]
    if "SpacingBetweenSlices" not in measures:
        # highdicom leaves it out where slices are not evenly spaced; viewers stumble without it.
        measures.SpacingBetweenSlices = f"{findings.geometry.spacing[0]:.6g}"
    if context.header.get("BodyPartExamined"):
        ds.BodyPartExamined = context.header.BodyPartExamined
    header.finish(ds, context, header.describe(context, [segment.label for segment in findings.segments]))
    return ds


def has_voxels(findings: Findings) -> bool:
    """Whether there is anything to make a Segmentation of."""
    return bool(findings.segments) and bool(np.any(findings.mask))


def is_present(findings: Findings, number: int) -> bool:
    """Whether any voxel of the mask belongs to the segment."""
    return any(bool((plane == number).any()) for plane in findings.mask)


def tracking_uid(context: ResultContext, number: int) -> str:
    """The Tracking UID of a segment: the same in the Segmentation and in the report."""
    return context.uid("tracking", "segment", str(number))


def tracking_id(context: ResultContext, segment: Segment) -> str:
    """The Tracking ID of a segment, for people (LO, at most 64 characters)."""
    return f"{context.model.name}/{segment.number} {segment.label}"[:64].replace("\\", "/")


def _describe(context: ResultContext, segment: Segment) -> SegmentDescription:
    """One item of the Segment Sequence (PS3.3 C.8.20.2)."""
    region = segment.anatomic_region
    return SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label[:64].replace("\\", "/"),
        segmented_property_category=codes.concept(segment.category),
        segmented_property_type=codes.concept(segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=_algorithm(context),
        tracking_uid=tracking_uid(context, segment.number),
        tracking_id=tracking_id(context, segment),
        anatomic_regions=[codes.concept(region)] if region is not None else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*segment.colour),
    )


def _algorithm(context: ResultContext) -> highdicom.AlgorithmIdentificationSequence:
    """Which algorithm, with the runtime that it ran on (PS3.3 Table 10-19)."""
    return highdicom.AlgorithmIdentificationSequence(
        name=context.model.name,
        family=codes.concept(codes.ARTIFICIAL_INTELLIGENCE),
        version=context.model.version,
        source=context.model.manufacturer,
        parameters={"engine": context.engine, "digest": f"sha256:{context.model.digest}"},
    )


def _content_label(name: str) -> str:
    """The model's name as a CS: at most 16 capitals, digits and underscores (PS3.5 Table 6.2-1)."""
    return re.sub(r"[^A-Z0-9]+", "_", name.upper())[:16].strip("_") or "SEGMENTATION"


def _name_dimensions(ds: Dataset, uid: str) -> None:
    """Replace highdicom's random Dimension Organization UID: a rebuilt object must be the same."""
    for item in ds.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = uid
    for item in ds.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid
