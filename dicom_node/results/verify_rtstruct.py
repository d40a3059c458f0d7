"""The gate for an RT Structure Set: filled again, its outlines are the mask, voxel for voxel."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import GateError
from dicom_node.results import codes, filling, references, rtstruct
from dicom_node.results.context import ResultContext
from dicom_node.results.verify_segments import TOLERANCE_MM
from engines import labels
from engines.findings import Findings

#: Closed lines by segment and slice, each (points, 2): row and column of the mask, whole at voxel centres.
_Lines = dict[tuple[int, int], list[NDArray[np.float64]]]


def check(ds: Dataset, context: ResultContext, findings: Findings, made: Collection[str]) -> None:
    """Compare a structure set, as read from disk, with the findings. GateError says what differs."""
    if not findings.geometry.agrees_with(context.source.volume.geometry):
        raise GateError("the mask is not on the source volume's grid")
    if ds.get("ApprovalStatus") != "UNAPPROVED":
        raise GateError("what nobody has looked at must be UNAPPROVED")
    _check_references(ds, context)
    _check_regions(ds, findings)
    lines = _read(ds, context, findings)
    left = np.array([np.count_nonzero(plane) for plane in findings.mask])
    for (number, index), closed in lines.items():
        left[index] -= _check_filled(closed, findings.mask[index], number, index)
    if left.any():
        raise GateError(f"voxels of the mask on slice {int(np.flatnonzero(left)[0]) + 1} are not outlined")


def _check_references(ds: Dataset, context: ResultContext) -> None:
    """All source images in their Frame of Reference, and nothing in another one."""
    [frame] = ds.ReferencedFrameOfReferenceSequence
    [study] = frame.RTReferencedStudySequence
    [series] = study.RTReferencedSeriesSequence
    named = {ds.FrameOfReferenceUID, frame.FrameOfReferenceUID}
    named |= {item.ReferencedFrameOfReferenceUID for item in ds.StructureSetROISequence}
    if named != {context.frame_of_reference_uid}:
        raise GateError("the Frame of Reference is not the source's")
    owners = (study.ReferencedSOPInstanceUID, series.SeriesInstanceUID)
    if owners != (context.header.StudyInstanceUID, context.header.SeriesInstanceUID):
        raise GateError("the study or series referred to is not the source's")
    images = [item.ReferencedSOPInstanceUID for item in series.ContourImageSequence]
    if images != context.source_uids():
        raise GateError("the images referred to are not the source's")


def _check_regions(ds: Dataset, findings: Findings) -> None:
    """A region for each segment with voxels, of its name, colour, code and Interpreted Type."""
    described = [
        (
            int(region.ROINumber),
            str(region.ROIName),
            int(seen.ReferencedROINumber),
            codes.read(seen.RTROIIdentificationCodeSequence[0]),
            str(seen.RTROIInterpretedType or ""),
            int(drawn.ReferencedROINumber),
            tuple(int(part) for part in drawn.ROIDisplayColor),
        )
        for region, seen, drawn in zip(
            ds.StructureSetROISequence, ds.RTROIObservationsSequence, ds.ROIContourSequence, strict=True
        )
    ]
    voxels = labels.counts(findings.mask, len(findings.segments))
    wanted = [
        (
            segment.number,
            rtstruct.name(segment),
            segment.number,
            segment.type,
            rtstruct.interpreted(segment),
            segment.number,
            segment.colour,
        )
        for segment in findings.segments
        if voxels[segment.number]
    ]
    if described != wanted:
        raise GateError("the regions are not the segments: another number, name, code, type or colour")


def _read(ds: Dataset, context: ResultContext, findings: Findings) -> _Lines:
    """Every outline in the mask's rows and columns. Raises GateError where one is not on its image."""
    slices = {key: index for index, key in enumerate(context.source_slices())}
    corners = np.array([image.ImagePositionPatient for image in context.source.datasets], dtype=np.float64)
    to_index = np.linalg.inv(findings.geometry.affine[:3, :3]).T
    lines: _Lines = {}
    for drawn in ds.ROIContourSequence:
        number = int(drawn.ReferencedROINumber)
        for item in drawn.ContourSequence:
            points = _points(item)
            [image] = item.ContourImageSequence
            index = slices.get(references.read_image(image))
            if index is None:
                raise GateError(f"an outline of segment {number} names an image that is not the source's")
            place = (points - corners[index]) @ to_index
            away = np.abs(place[:, 0]).max() * findings.geometry.spacing[0]
            if away > TOLERANCE_MM:
                raise GateError(f"an outline of segment {number} is {away:.3f} mm off its slice {index + 1}")
            lines.setdefault((number, index), []).append(place[:, 1:])
    return lines


def _points(item: Dataset) -> NDArray[np.float64]:
    """The points of a closed line, LPS mm, from the bytes: pydicom would make an object of each number."""
    raw = item.get_item("ContourData")
    points = np.array([float(part) for part in bytes(raw.value).split(b"\\")]).reshape(-1, 3)
    if item.ContourGeometricType != "CLOSED_PLANAR" or len(points) != int(item.NumberOfContourPoints):
        raise GateError("an outline is not closed, or has not as many points as it says")
    return points


def _check_filled(closed: list[NDArray[np.float64]], plane: NDArray[Any], number: int, index: int) -> int:
    """Raise GateError unless the lines fill a segment's voxels on a slice, each once; how many voxels."""
    points = np.concatenate(closed)
    first = np.maximum(np.floor(points.min(axis=0)), 0).astype(np.int64)
    last = np.minimum(np.ceil(points.max(axis=0)), np.array(plane.shape) - 1).astype(np.int64)
    there = plane[first[0] : last[0] + 1, first[1] : last[1] + 1] == number
    filled = sum(filling.area(line) for line in closed)
    voxels = int(np.count_nonzero(there))
    # Filled by parity they are the mask; and with an area of as many voxels, they do not overlap.
    inside = filling.by_parity([filling.closed(line - first) for line in closed], there.shape)
    if not np.array_equal(inside, there) or abs(filled - voxels) > 0.5:
        raise GateError(f"the outlines of segment {number} do not enclose its voxels on slice {index + 1}")
    return voxels
