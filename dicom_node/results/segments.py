"""What every kind of Segmentation says of its segments, its source and its space (PS3.3 A.51, C.8.20)."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import highdicom
import numpy as np
from highdicom.seg import Segmentation, SegmentDescription
from pydicom.dataset import Dataset

from dicom_node.results import codes, explicit, header, references
from dicom_node.results.context import ResultContext
from engines.findings import Findings, Segment

#: The kinds that are Segmentations; a report refers to the first one that was made.
KINDS = ("seg", "labelmap")


def begin(
    context: ResultContext, findings: Findings, kind: str, *, encoding: str, transfer_syntax_uid: str
) -> Dataset:
    """The Segmentation as highdicom makes it, of one pixel on the first image: it is slow with many.

    Every segment is described, also one without voxels: "looked for and not found" is a result, and its
    number stays the one that the findings use. What `unplaced` speaks against cannot be made.
    """
    pixel = np.zeros((1, *findings.mask.shape[1:]), findings.mask.dtype)
    pixel[0, 0, 0] = findings.segments[0].number
    ds: Dataset = Segmentation(
        source_images=[context.stub],
        pixel_array=pixel,
        segmentation_type=encoding,
        segment_descriptions=[_describe(context, segment) for segment in findings.segments],
        content_label=content_label(context.model.name),
        content_description=f"{context.model.name} {context.model.version}"[:64],
        omit_empty_frames=True,
        transfer_syntax_uid=transfer_syntax_uid,
        **header.constructor(context, kind),
    )
    if context.frame_of_reference_uid:
        ds.FrameOfReferenceUID = context.frame_of_reference_uid
    else:
        # Of type 2C where a frame has no orientation in the patient (PS3.3 Table C.7-9).
        ds.PatientOrientation = context.header.get("PatientOrientation")
    ds.ContentCreatorName = None  # type 2 (PS3.3 Table 10-12)
    name_dimensions(ds, context.uid(kind, "dimensions"))
    if context.header.get("BodyPartExamined"):
        ds.BodyPartExamined = context.header.BodyPartExamined
    refer(ds, context)
    named = [segment.label for segment in findings.segments]
    header.finish(
        ds, context, header.describe(context, ["label map", *named] if encoding == "LABELMAP" else named)
    )
    return ds


def has_voxels(findings: Findings) -> bool:
    """Whether there is anything to show: a multi-frame image without frames does not exist."""
    return bool(findings.segments) and bool(findings.mask.any())


def unplaced(context: ResultContext) -> str:
    """Why there can be no Segmentation of this source; "" where there can.

    An image without a place in the patient needs none: frames lie on it, pixel on pixel (PS3.3 A.51).
    """
    if context.frame_of_reference_uid or not context.source.volume.geometry.in_patient:
        return ""
    return (
        "the source images have no Frame of Reference UID (0020,0052), so that nothing can be placed in them"
    )


def without_place(context: ResultContext) -> str:
    """Why there can be nothing that must lie in the patient; "" where there can."""
    if context.source.volume.geometry.in_patient:
        return unplaced(context)
    return "the source image has no place in the patient"


def referred(made: Collection[str]) -> str | None:
    """The kind of Segmentation that a report refers to; None where none was made."""
    return next((kind for kind in KINDS if kind in made), None)


def is_present(findings: Findings, number: int) -> bool:
    """Whether any voxel of the mask belongs to the segment."""
    return any(bool((plane == number).any()) for plane in findings.mask)


def tracking_uid(context: ResultContext, number: int) -> str:
    """The Tracking UID of a segment: the same in the Segmentation and in the report."""
    return context.uid("tracking", "segment", str(number))


def tracking_id(context: ResultContext, segment: Segment) -> str:
    """The Tracking ID of a segment, for people (LO, at most 64 characters)."""
    return f"{context.model.name}/{segment.number} {segment.label}"[:64].replace("\\", "/")


def refer(ds: Dataset, context: ResultContext) -> None:
    """All source instances, in both places where readers look (PS3.3 C.7.6.1, C.12.2).

    Further series that the model looked at stand behind the source's in the second: no frame lies on their images.
    """
    source = context.source
    images = [
        explicit.item(explicit.reference(image, *references.some_frames(source, image)))
        for image in source.instances
    ]
    explicit.set_sequence(ds, 0x00082112, *images)
    explicit.set_sequence(ds, 0x00081115, *map(_of_series, context.looked_at()))


def _of_series(instances: Sequence[Dataset]) -> bytes:
    """A series and its instances, as a Segmentation lists them (PS3.3 Table C.12-8)."""
    items = [explicit.item(explicit.reference(image)) for image in instances]
    uid = explicit.text(0x0020000E, "UI", str(instances[0].SeriesInstanceUID))
    return explicit.item(explicit.sequence(0x0008114A, *items), uid)


def place(ds: Dataset, context: ResultContext, slices: Sequence[int], *, one_each: bool) -> None:
    """The slices' spacing, and whether the frames, on `slices`, are a volume (PS3.3 C.7.6.17).

    They may be where there is `one_each` for a slice.
    """
    geometry = context.source.volume.geometry
    if geometry.shape[0] == 1:
        return
    shared = ds.SharedFunctionalGroupsSequence[0]
    shared.PixelMeasuresSequence[0].SpacingBetweenSlices = f"{geometry.spacing[0]:.10g}"
    if one_each and len(slices) > 1:
        positions = [context.source.datasets[index].ImagePositionPatient for index in slices]
        orientation = shared.PlaneOrientationSequence[0].ImageOrientationPatient
        spacing, _ = highdicom.spatial.get_volume_positions(positions, orientation, sort=False)
        if spacing is not None and spacing > 0:
            ds.DimensionOrganizationType = "3D"


def _describe(context: ResultContext, segment: Segment) -> SegmentDescription:
    """One item of the Segment Sequence (PS3.3 C.8.20.2)."""
    region = segment.anatomic_region
    return SegmentDescription(
        segment_number=segment.number,
        segment_label=segment.label[:64].replace("\\", "/"),
        segmented_property_category=codes.concept(segment.category),
        segmented_property_type=codes.concept(segment.type),
        algorithm_type="AUTOMATIC",
        algorithm_identification=algorithm(context),
        tracking_uid=tracking_uid(context, segment.number),
        tracking_id=tracking_id(context, segment),
        anatomic_regions=[codes.concept(region)] if region is not None else None,
        display_color=highdicom.color.CIELabColor.from_rgb(*segment.colour),
    )


def algorithm(context: ResultContext) -> highdicom.AlgorithmIdentificationSequence:
    """Which algorithm, with the runtime that it ran on (PS3.3 Table 10-19)."""
    # highdicom joins parameters, and takes them apart, by these.
    engine = context.ran_on.replace(",", ";").replace("=", ":")
    return highdicom.AlgorithmIdentificationSequence(
        name=context.model.name,
        family=codes.concept(codes.ARTIFICIAL_INTELLIGENCE),
        version=context.model.version,
        source=context.model.manufacturer,
        parameters={"engine": engine, "digest": f"sha256:{context.model.digest}"},
    )


def content_label(name: str) -> str:
    """The model's name as a CS: at most 16 capitals, digits and underscores (PS3.5 Table 6.2-1)."""
    return re.sub(r"[^A-Z0-9]+", "_", name.upper())[:16].strip("_") or "SEGMENTATION"


def name_dimensions(ds: Dataset, uid: str) -> None:
    """Replace highdicom's random Dimension Organization UID: a rebuilt object must be the same."""
    for item in ds.DimensionOrganizationSequence:
        item.DimensionOrganizationUID = uid
    for item in ds.DimensionIndexSequence:
        item.DimensionOrganizationUID = uid
