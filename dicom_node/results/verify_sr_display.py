"""The gate for what is drawn: every shape lies on the mask, on the image of its slice, with its own numbers."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import GateError
from dicom_node.results import content_tree, drawings, references, sr_display, verify_regions, verify_sr
from dicom_node.results.context import ResultContext
from dicom_node.results.drawings import Drawing
from dicom_node.results.verify_regions import Region
from engines import measure
from engines.findings import Box, Findings
from engines.volume import Geometry

_GROUP = ("125007", "DCM")
_TRACKING_IDENTIFIER, _TRACKING_UID = ("112039", "DCM"), ("112040", "DCM")

#: Graphic Data are 32-bit numbers (PS3.3 C.18.6): a length relative to itself.
_LENGTH = 1e-3


@dataclass(frozen=True, kw_only=True)
class Shape(Region):
    """One measurement group, as read."""

    tracking_id: str
    numbers: list[verify_sr.Number]
    comments: list[str]


def check(ds: Dataset, context: ResultContext, findings: Findings, made: Collection[str]) -> None:
    """Compare a report of shapes, as read from disk, with the findings. GateError says what differs."""
    if (ds.get("VerificationFlag"), ds.get("CompletionFlag")) != ("UNVERIFIED", "COMPLETE"):
        raise GateError("an AI report must be UNVERIFIED and COMPLETE")
    expected = drawings.drawings(context, findings)
    shapes = read_shapes(ds)
    if list(shapes) != [drawing.tracking_uid for drawing in expected]:
        raise GateError(f"{len(shapes)} shapes instead of {len(expected)}, or others")
    slices = context.source_slices()
    for drawing in expected:
        shape = shapes[drawing.tracking_uid]
        if shape.image != slices[drawing.slice]:
            raise GateError(f"{shape.tracking_id} is on another image than that of slice {drawing.slice + 1}")
        _check_said(shape, drawing)
        _check_place(shape, drawing, findings)
    drawn_on = references.of_slices(context.source, {drawing.slice for drawing in expected})
    evidence = [uid for *_, uid in references.read(ds, "CurrentRequestedProcedureEvidenceSequence")]
    if evidence != [str(ds.SOPInstanceUID) for ds in drawn_on]:
        raise GateError("the evidence is not the images that are drawn on")


def read_shapes(ds: Dataset) -> dict[str, Shape]:
    """Every measurement group by its Tracking UID. Raises GateError where one is not just one shape."""
    shapes: dict[str, Shape] = {}
    for group in (item for item in content_tree.walk(ds) if content_tree.name(item) == _GROUP):
        items = content_tree.children(group)
        named = {content_tree.name(item): item for item in items}
        drawn = [item for item in content_tree.walk(group) if item.ValueType == "SCOORD"]
        uid = str(named[_TRACKING_UID].UID)
        if len(drawn) != 1 or uid in shapes:
            raise GateError("a measurement group is not one shape with a Tracking UID of its own")
        region = verify_regions.read(drawn[0])
        shapes[uid] = Shape(
            tracking_id=str(named[_TRACKING_IDENTIFIER].TextValue),
            graphic_type=region.graphic_type,
            points=region.points,
            image=region.image,
            numbers=[verify_sr.read_number(item) for item in items if item.ValueType == "NUM"],
            comments=[
                str(item.TextValue)
                for item in items
                if item.ValueType == "TEXT" and item.RelationshipType == "CONTAINS"
            ],
        )
    return shapes


def _check_said(shape: Shape, drawing: Drawing) -> None:
    """Name, numbers and words must be the drawing's."""
    wanted = [verify_sr.expected_number(drawing.measurement)] if drawing.measurement is not None else []
    if shape.numbers != wanted:
        raise GateError(f"the numbers of {drawing.tracking_id} are not its own")
    if (shape.tracking_id, shape.comments) != (sr_display.tracking_identifier(drawing), [drawing.comment]):
        raise GateError(f"the words of {drawing.tracking_id} are not its own")


def _check_place(shape: Shape, drawing: Drawing, findings: Findings) -> None:
    """An arrow must point into its segment, a box be its span, and a line as long as it says."""
    if drawing.box is not None:
        own, shape_of = drawing.box.box, findings.geometry.shape
        places_of = {"arrow": _points_at, "box": verify_regions.surrounds}
        if not places_of[drawing.shape](shape, own, shape_of):
            raise GateError(f"the {drawing.shape} of {drawing.tracking_id} is not where its box is")
        return
    number = drawing.segment.number if drawing.segment is not None else 0
    region = findings.mask[drawing.slice] == number
    places = {"arrow": _points_into, "box": _spans}
    if drawing.measurement is not None:
        right = _measures(shape, drawing, findings.geometry)
    else:
        right = places[drawing.shape](shape, region)
    if not right:
        raise GateError(f"the {drawing.shape} of {drawing.tracking_id} is not where the mask has it")


def _points_at(shape: Region, box: Box, grid: tuple[int, int, int]) -> bool:
    """Whether a single point is the upper right corner of a box, as far as it is on the image."""
    corner = np.array([min(box.high[2] + 0.5, grid[2]), max(box.low[1] + 0.5, 0)])
    near = shape.points.shape == (1, 2) and np.abs(shape.points[0] - corner).max() < verify_regions.TOLERANCE
    return shape.graphic_type == "POINT" and bool(near)


def _points_into(shape: Shape, region: NDArray[np.bool_]) -> bool:
    """Whether a single point lies in a pixel of the region."""
    if shape.graphic_type != "POINT" or shape.points.shape != (1, 2):
        return False
    column, row = np.floor(shape.points[0]).astype(int)
    return 0 <= row < region.shape[0] and 0 <= column < region.shape[1] and bool(region[row, column])


def _spans(shape: Shape, region: NDArray[np.bool_]) -> bool:
    """Whether a closed line runs around the region's rows and columns, corner by corner."""
    at = np.argwhere(region)[:, ::-1]
    first, last = at.min(axis=0), at.max(axis=0) + 1
    expected = np.array([first, (last[0], first[1]), last, (first[0], last[1]), first])
    return verify_regions.is_line(shape, expected)


def _measures(shape: Shape, drawing: Drawing, geometry: Geometry) -> bool:
    """Whether a line is where it was measured, and as long as the number says."""
    item = drawing.measurement
    if (
        item is None
        or item.ends is None
        or not verify_regions.is_line(shape, np.array(item.ends)[:, :0:-1] + 0.5)
    ):
        return False
    down, across = geometry.spacing[1:]
    mm = float(np.linalg.norm((shape.points[1] - shape.points[0]) * (across, down)))
    return math.isclose(item.value, mm * measure.PER_MM[item.unit.value], rel_tol=_LENGTH)
