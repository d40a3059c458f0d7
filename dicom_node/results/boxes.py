"""The boxes of a detector on the source's slices: what each is called, where it is drawn, how large it is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from dicom_node.results.context import Provenance
from engines.findings import Box, Code, Findings, Measurement
from engines.volume import Geometry, Scale

#: What a device says of how sure it is of one thing that it found (PS3.16 Annex D).
CERTAINTY = Code(value="111012", scheme="DCM", meaning="Certainty of Finding")
_PERCENT = Code(value="%", scheme="UCUM", meaning="percent")
_MILLIMETRE = Code(value="mm", scheme="UCUM", meaning="millimeter")

#: Along a row, a column, and from slice to slice (CID 7470 "Linear Measurements", PS3.16); the axis of each.
_LENGTHS = (
    (2, "width", Code(value="103355008", scheme="SCT", meaning="Width")),
    (1, "height", Code(value="121207", scheme="DCM", meaning="Height")),
    (0, "depth", Code(value="131197000", scheme="SCT", meaning="Depth")),
)

#: Axes whose millimetres a source knows, at most.
_KNOWN = {Scale.VOLUME: (0, 1, 2), Scale.PLANE: (1, 2), Scale.NONE: ()}


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """One box with its place on the slices."""

    box: Box
    #: Its index among the findings' boxes.
    index: int
    #: Its number among those of its class, the most certain being 1.
    number: int
    #: The slice through its middle, and the first and last that it touches.
    slice: int
    first: int
    last: int
    #: (column, row) of each corner, clockwise from the upper left one and back to it; (0, 0) is the outer corner of
    #: the first pixel (PS3.3 C.18.6.1.2). What lies outside the image is cut off: no coordinate may.
    corners: tuple[tuple[float, float], ...]

    @property
    def label(self) -> str:
        """What it is called, e.g. "Nodule 2"."""
        return f"{self.box.label} {self.number}"


def placed(findings: Findings) -> tuple[Placed, ...]:
    """Every box of the findings, in their order: the most certain first."""
    counts: Counter[str] = Counter()
    made = []
    for index, box in enumerate(findings.boxes):
        counts[box.key] += 1
        made.append(_placed(box, index, counts[box.key], findings.geometry))
    return tuple(made)


def _placed(box: Box, index: int, number: int, geometry: Geometry) -> Placed:
    slices, rows, columns = geometry.shape
    first = max(0, math.floor(box.low[0] + 0.5))
    last = min(slices - 1, math.ceil(box.high[0] - 0.5))
    middle = math.floor((box.low[0] + box.high[0]) / 2 + 0.5)
    top, bottom = (min(max(box_face[1] + 0.5, 0.0), float(rows)) for box_face in (box.low, box.high))
    left, right = (min(max(box_face[2] + 0.5, 0.0), float(columns)) for box_face in (box.low, box.high))
    return Placed(
        box=box,
        index=index,
        number=number,
        slice=min(max(middle, first), last),
        first=first,
        last=last,
        corners=((left, top), (right, top), (right, bottom), (left, bottom), (left, top)),
    )


def measurements(placed: Placed, geometry: Geometry) -> tuple[Measurement, ...]:
    """How certain the detector is of it, and its extents as far as the source knows millimetres."""
    certain = Measurement(key="certainty", name=CERTAINTY, value=100 * placed.box.score, unit=_PERCENT)
    return (certain, *_extents(placed.box, geometry))


def _extents(box: Box, geometry: Geometry) -> Iterator[Measurement]:
    """Its lengths along the axes, the part outside the image too: the thing may go on there."""
    for axis, key, name in _LENGTHS:
        # A single slice has a thickness, and a box on it no depth.
        if axis in _KNOWN[geometry.scale] and (axis > 0 or geometry.shape[0] > 1):
            length = (box.high[axis] - box.low[axis]) * geometry.spacing[axis]
            yield Measurement(key=key, name=name, value=length, unit=_MILLIMETRE)


def tracking_uid(context: Provenance, placed: Placed) -> str:
    """The Tracking UID of a box."""
    return context.uid("tracking", "box", str(placed.index))


def tracking_id(context: Provenance, placed: Placed) -> str:
    """The Tracking Identifier of a box, for people."""
    return f"{context.model.name}/{placed.label}"


def counted(findings: Findings) -> list[tuple[Box, int]]:
    """How many boxes of each class there are, with the first of each."""
    counts = Counter(box.key for box in findings.boxes)
    firsts = {box.key: box for box in reversed(findings.boxes)}
    return [(firsts[key], count) for key, count in counts.items()]
