"""Findings -> an RT Structure Set: the outline of every segment on every slice, along the voxels' edges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from highdicom.base import SOPClass
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian, RTStructureSetStorage
from scipy import ndimage

from dicom_node.results import codes, header, implicit, legend, references, segments
from dicom_node.results.context import ResultContext
from engines import contours, labels
from engines.findings import Findings, Segment

#: Decimals of a coordinate in mm: a ten-thousandth is far below a voxel.
_DECIMALS = 4

#: What a structure set holds at most, so that no mask takes many minutes and gigabytes: 104 jagged organs on 200
#: slices of 512 x 512 have 1.1 million points in 13,000 lines. A hole is a line too: it has to be cut in.
_MOST_POINTS, _MOST_LINES = 4_000_000, 200_000

#: The retired class of a study, which stands for it in the reference to the images (PS3.3 C.8.8.5).
_STUDY_CLASS = "1.2.840.10008.3.1.2.3.1"

#: Of Anatomical Structure (PS3.16 CID 7150, by its code of today and of before) we know that it is an organ, of
#: others no Interpreted Type. EXTERNAL and the targets decide about a dose: none is ever named here.
_ORGANS = (("91723000", "SCT"), ("123037004", "SCT"))


def build(context: ResultContext, findings: Findings, made: Mapping[str, Dataset]) -> Dataset | None:
    """A structure set (PS3.3 A.19) with a region of interest for each segment that has voxels.

    None where there is no voxel at all. The source must have a place in the patient (`segments.without_place`).
    Implicit VR, since an outline in Explicit VR may not be longer than 64 KB.
    """
    if not segments.has_voxels(findings):
        return None
    ds: Dataset = SOPClass(
        study_instance_uid=str(context.header.StudyInstanceUID),
        sop_class_uid=RTStructureSetStorage,
        modality="RTSTRUCT",
        transfer_syntax_uid=ImplicitVRLittleEndian,
        **header.constructor(context, "rtstruct"),
    )
    drawn = _contours(context, findings)
    present = [segment for segment in findings.segments if drawn[segment.number]]
    _set(ds, context, [segment.label for segment in present])
    voxels = labels.counts(findings.mask, len(findings.segments))
    ds.StructureSetROISequence = [_region(context, segment, voxels[segment.number]) for segment in present]
    ds.RTROIObservationsSequence = [_observation(segment) for segment in present]
    implicit.set_sequence(ds, 0x30060010, _frame_of_reference(context))
    implicit.set_sequence(ds, 0x30060039, *(_outlined(segment, drawn[segment.number]) for segment in present))
    return ds


def excessive(findings: Findings) -> str:
    """Why a mask is too much to be outlined; "" where it is not. Counted before any line is followed."""
    points = sum(contours.corners(plane) for plane in findings.mask)
    # No line has less than four points.
    few = points <= 4 * _MOST_LINES
    lines = 0 if few else sum(contours.lines(plane) for plane in findings.mask)
    if points <= _MOST_POINTS and lines <= _MOST_LINES:
        return ""
    return (
        f"the mask is too ragged: it has {lines} outlines of {points} points "
        f"(at most {_MOST_LINES} of {_MOST_POINTS})"
    )


def name(segment: Segment) -> str:
    """The ROI Name (LO, at most 64 characters)."""
    return segment.label[:64].replace("\\", "/")


def interpreted(segment: Segment) -> str:
    """The RT ROI Interpreted Type (PS3.3 C.8.8.8.1); "" where it is not known."""
    return "ORGAN" if (segment.category.value, segment.category.scheme) in _ORGANS else ""


def _set(ds: Dataset, context: ResultContext, names: list[str]) -> None:
    """Structure Set and Approval (PS3.3 C.8.8.5, C.8.8.16): nobody has looked at it."""
    header.finish(ds, context, header.describe(context, ["outlines", *names]))
    ds.FrameOfReferenceUID = context.frame_of_reference_uid
    ds.PositionReferenceIndicator = context.header.get("PositionReferenceIndicator")
    ds.OperatorsName = None
    ds.StructureSetLabel = "AI unverified"
    ds.StructureSetName = f"{context.model.name} {context.model.version}"[:64]
    ds.StructureSetDescription = f"{header.standing(context)}: not made for treatment planning"
    ds.StructureSetDate, ds.StructureSetTime = ds.ContentDate, ds.ContentTime
    # Structure Set Date and Time say the same: these are of no module of this IOD.
    del ds.ContentDate, ds.ContentTime
    ds.ApprovalStatus = "UNAPPROVED"


def _region(context: ResultContext, segment: Segment, voxels: int) -> Dataset:
    """An item of the Structure Set ROI Sequence."""
    item = Dataset()
    item.ROINumber = segment.number
    item.ReferencedFrameOfReferenceUID = context.frame_of_reference_uid
    item.ROIName = name(segment)
    item.ROIDescription = legend.STANDING
    voxel_mm3 = context.source.volume.geometry.voxel_volume_mm3
    if voxel_mm3 is not None:
        item.ROIVolume = f"{voxels * voxel_mm3 / 1000:.10g}"  # mL
    item.ROIGenerationAlgorithm = "AUTOMATIC"
    item.ROIGenerationDescription = f"{context.model.name} {context.model.version}"[:64]
    item.ROIDerivationAlgorithmIdentificationSequence = segments.algorithm(context)
    return item


def _observation(segment: Segment) -> Dataset:
    """An item of the RT ROI Observations Sequence (PS3.3 C.8.8.8)."""
    item = Dataset()
    item.ObservationNumber = item.ReferencedROINumber = segment.number
    item.SegmentedPropertyCategoryCodeSequence = [codes.concept(segment.category)]
    item.RTROIIdentificationCodeSequence = [codes.concept(segment.type)]
    if segment.anatomic_region is not None:
        item.AnatomicRegionSequence = [codes.concept(segment.anatomic_region)]
    item.RTROIInterpretedType = interpreted(segment)
    item.ROIInterpreter = None
    return item


def _frame_of_reference(context: ResultContext) -> bytes:
    """The item of the Referenced Frame of Reference Sequence: all source images (PS3.3 C.8.8.5)."""
    source = context.source
    images = [implicit.reference(image, *references.some_frames(source, image)) for image in source.instances]
    series = implicit.item(
        _uid(0x0020000E, str(context.header.SeriesInstanceUID)), implicit.sequence(0x30060016, *images)
    )
    study = implicit.item(
        _uid(0x00081150, _STUDY_CLASS),
        _uid(0x00081155, str(context.header.StudyInstanceUID)),
        implicit.sequence(0x30060014, series),
    )
    return implicit.item(
        _uid(0x00200052, context.frame_of_reference_uid), implicit.sequence(0x30060012, study)
    )


def _uid(tag: int, value: str) -> bytes:
    """An element that holds a UID."""
    return implicit.text(tag, value, padding=b"\0")


def _outlined(segment: Segment, drawn: list[bytes]) -> bytes:
    """An item of the ROI Contour Sequence (PS3.3 C.8.8.6)."""
    return implicit.item(
        implicit.text(0x3006002A, "\\".join(map(str, segment.colour))),
        implicit.sequence(0x30060040, *drawn),
        implicit.text(0x30060084, str(segment.number)),
    )


def _contours(context: ResultContext, findings: Findings) -> dict[int, list[bytes]]:
    """Items of the Contour Sequence by segment, in slice order."""
    drawn: dict[int, list[bytes]] = {segment.number: [] for segment in findings.segments}
    down, across = findings.geometry.affine[:3, 1], findings.geometry.affine[:3, 2]
    for image, plane in zip(context.source.datasets, findings.mask, strict=True):
        corner = np.array(image.ImagePositionPatient, dtype=np.float64) - (down + across) / 2
        named = implicit.sequence(0x30060016, implicit.slice_reference(image))
        for number, line in _lines(plane):
            points = corner + line[:, :1] * down + line[:, 1:] * across
            drawn[number].append(_contour(points, named, len(drawn[number]) + 1))
    return drawn


def _lines(plane: NDArray[Any]) -> Iterator[tuple[int, contours.Line]]:
    """The closed lines of each label of a slice."""
    for number, box in enumerate(ndimage.find_objects(plane), start=1):
        if box is not None:
            first = np.array([part.start for part in box])
            for line in contours.polygons(plane[box] == number):
                yield number, line + first


def _contour(points: NDArray[np.float64], named: bytes, number: int) -> bytes:
    """An item of the Contour Sequence: a closed line in LPS mm on one slice."""
    values = (np.round(points, _DECIMALS) + 0.0).ravel().tolist()
    return implicit.item(
        named,
        implicit.text(0x30060042, "CLOSED_PLANAR"),
        implicit.text(0x30060046, str(len(points))),
        implicit.text(0x30060048, str(number)),
        implicit.text(0x30060050, "\\".join(["%.10g"] * len(values)) % tuple(values)),
    )
