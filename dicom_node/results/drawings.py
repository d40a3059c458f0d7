"""What is drawn on the images: an arrow with words at each thing found, a box around a small one, measured lines.

What a detector found has a box of its own, and its arrow points at a corner of that, not into the thing.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from dicom_node.results import boxes, key_slices, legend, outline, segments
from dicom_node.results.boxes import Placed
from dicom_node.results.context import ResultContext
from engines.findings import Findings, Measurement, Segment
from engines.volume import Geometry

#: What covers more of the image than this gets no box: it would be one around everything.
_BOXED = 0.1

#: Shapes in all: a reader looks at so many, and each is a group of a report that takes long to make.
MOST = 50

#: Numbers that are written beside an arrow; the report has them all.
_NUMBERS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Drawing:
    """One shape on one slice."""

    shape: Literal["arrow", "box", "line"]
    tracking_uid: str
    #: For people.
    tracking_id: str
    #: Index along the mask's first axis.
    slice: int
    #: (column, row) of each corner; (0, 0) is the outer corner of the first pixel, (0.5, 0.5) its middle
    #: (PS3.3 C.18.6.1.2).
    points: tuple[tuple[float, float], ...]
    #: In words, for a viewer that writes them beside it.
    comment: str
    #: What it is of: a segment, or a detector's box.
    segment: Segment | None = None
    box: Placed | None = None
    #: What the line is the length of.
    measurement: Measurement | None = None


def drawings(context: ResultContext, findings: Findings) -> tuple[Drawing, ...]:
    """What is drawn of each segment that matters (`key_slices.best`), on the slice where it is largest.

    Lines lie where they were measured. A detector's boxes follow, each on the slice through its middle. Together
    they are `MOST` shapes at most, what matters first; the report of numbers and the Segmentation have them all.
    """
    made: list[Drawing] = []
    for place in key_slices.best(findings):
        if len(made) >= MOST:
            break
        segment = findings.segments[place.segment - 1]
        region = findings.mask[place.index] == place.segment
        words = _words(findings, segment)
        made.append(_drawing(context, "arrow", segment, place.index, (_inside(region),), words))
        if np.count_nonzero(region) < _BOXED * region.size:
            made.append(_drawing(context, "box", segment, place.index, _around(region), words))
        made.extend(_lines(context, findings, segment))
    for item in boxes.placed(findings):
        if len(made) + 2 > MOST:
            break
        made.extend(_boxed(context, item, findings.geometry))
    return tuple(made[:MOST])


def _boxed(context: ResultContext, item: Placed, geometry: Geometry) -> Iterator[Drawing]:
    """A detector's box, which bears its identity, and an arrow at its upper right corner."""
    certain, *lengths = (legend.quantity(each) for each in boxes.measurements(item, geometry))
    words = f"{', '.join([item.label, certain, *lengths[:1]])} ({legend.STANDING})"
    shapes: tuple[tuple[Literal["arrow", "box"], str, tuple[tuple[float, float], ...]], ...] = (
        ("box", boxes.tracking_uid(context, item), item.corners),
        ("arrow", context.uid("tracking", "arrow", "box", str(item.index)), item.corners[1:2]),
    )
    for shape, uid, points in shapes:
        yield Drawing(
            shape=shape,
            tracking_uid=uid,
            tracking_id=boxes.tracking_id(context, item),
            slice=item.slice,
            points=points,
            comment=words,
            box=item,
        )


def _drawing(
    context: ResultContext,
    shape: Literal["arrow", "box"],
    segment: Segment,
    index: int,
    points: tuple[tuple[float, float], ...],
    words: str,
) -> Drawing:
    """An arrow, which bears the identity of its segment, or a box."""
    uid = segments.tracking_uid(context, segment.number)
    return Drawing(
        shape=shape,
        # A viewer merges shapes of one UID, so that only one can be the segment's own.
        tracking_uid=uid if shape == "arrow" else context.uid("tracking", shape, str(segment.number)),
        tracking_id=segments.tracking_id(context, segment),
        segment=segment,
        slice=index,
        points=points,
        comment=words,
    )


def _lines(context: ResultContext, findings: Findings, segment: Segment) -> Iterator[Drawing]:
    """The segment's measurements that are lengths of lines."""
    for item in outline.computed(findings.measurements):
        if item.segment_number == segment.number and item.ends is not None:
            first, second = item.ends
            yield Drawing(
                shape="line",
                tracking_uid=context.uid("tracking", "line", item.key, str(segment.number)),
                tracking_id=segments.tracking_id(context, segment),
                segment=segment,
                slice=int(first[0]),
                # In voxels, whole numbers are the middles of pixels.
                points=((first[2] + 0.5, first[1] + 0.5), (second[2] + 0.5, second[1] + 0.5)),
                comment=f"{segment.label}: {item.name.meaning} {legend.quantity(item)} ({legend.STANDING})",
                measurement=item,
            )


def _inside(region: NDArray[np.bool_]) -> tuple[float, float]:
    """The middle of the pixel of the region that is nearest to its centroid; a centroid may lie outside."""
    at = np.argwhere(region)
    nearest = at[np.linalg.norm(at - at.mean(axis=0), axis=1).argmin()]
    return float(nearest[1]) + 0.5, float(nearest[0]) + 0.5


def _around(region: NDArray[np.bool_]) -> tuple[tuple[float, float], ...]:
    """The region's bounding box, clockwise from its top left corner and back to it."""
    at = np.argwhere(region)
    (top, left), (bottom, right) = at.min(axis=0).tolist(), (at.max(axis=0) + 1).tolist()
    corners = ((left, top), (right, top), (right, bottom), (left, bottom), (left, top))
    return tuple((float(column), float(row)) for column, row in corners)


def _words(findings: Findings, segment: Segment) -> str:
    """What is written at a segment, e.g. "Nodule, 1.2 mL, 14.1 mm (AI, not verified)"."""
    found = [
        item.code.meaning
        for item in findings.findings
        if item.present and segment.number in item.segment_numbers
    ]
    own = [item for item in outline.computed(findings.measurements) if item.segment_number == segment.number]
    numbers = [legend.quantity(item) for item in own[:_NUMBERS]]
    return f"{', '.join([*found, segment.label, *numbers])} ({legend.STANDING})"
