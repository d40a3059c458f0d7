"""Lines of a presentation state, and the boxes that are drawn with them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.results import boxes, explicit, legend
from dicom_node.results.boxes import Placed
from dicom_node.results.context import ResultContext
from engines.findings import Box, Findings


def layer(findings: Findings, box: Box) -> str:
    """The name of the layer of a box's class (CS)."""
    keys = [one.key for one, _ in boxes.counted(findings)]
    return f"CLASS_{keys.index(box.key) + 1}"


def words(item: Placed) -> str:
    """What is written at a box: what it is, how certain, and that nobody has verified it."""
    return f"{item.label}, {100 * item.box.score:.0f} % ({legend.STANDING})"


def annotation(context: ResultContext, findings: Findings, image: Dataset, index: int) -> Dataset:
    """A box on an image that it touches: its outline, and its words at the upper left corner (PS3.3 C.10.5)."""
    found = boxes.placed(findings)[index]
    text, item = Dataset(), Dataset()
    text.AnchorPointAnnotationUnits, text.AnchorPointVisibility = "PIXEL", "N"
    text.AnchorPoint = list(found.corners[0])
    text.UnformattedTextValue = words(found)[:1024]
    item.ReferencedImageSequence = [image]
    item.GraphicLayer, item.TextObjectSequence = layer(findings, found.box), [text]
    named = identity(boxes.tracking_id(context, found), boxes.tracking_uid(context, found))
    explicit.set_sequence(item, 0x00700009, explicit.item(named, polyline(np.array(found.corners))))
    return item


def identity(tracking_id: str, tracking_uid: str) -> bytes:
    """Whose a line is (PS3.3 C.10.5): as the report of the same findings names it."""
    value = tracking_id.encode()
    return explicit.long_element(0x00620020, "UT", value + b" " * (len(value) % 2)) + explicit.text(
        0x00620021, "UI", tracking_uid
    )


def polyline(points: NDArray[Any]) -> bytes:
    """A line that is drawn, not filled: (column, row), the image's upper left corner at (0, 0) (PS3.3 C.10.5.1.2)."""
    return b"".join(
        (
            explicit.element(0x00700005, "CS", b"PIXEL "),
            explicit.element(0x00700020, "US", np.uint16(2).tobytes()),
            explicit.element(0x00700021, "US", np.uint16(len(points)).tobytes()),
            explicit.element(0x00700022, "FL", points.astype("<f4").tobytes()),
            explicit.element(0x00700023, "CS", b"POLYLINE"),
            explicit.element(0x00700024, "CS", b"N "),
        )
    )
