"""Coordinates of a report as its gates read them: on which image, and whether they run around a box."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import GateError
from dicom_node.results import content_tree, references
from engines.findings import Box

#: Graphic Data are 32-bit numbers (PS3.3 C.18.6); pixels.
TOLERANCE = 1e-2


@dataclass(frozen=True, kw_only=True)
class Region:
    """One SCOORD item."""

    graphic_type: str
    #: (points, 2): column, row.
    points: NDArray[np.float64]
    #: SOP Instance UID and frame number of the slice that it is on.
    image: tuple[str, int | None]


def read(item: Dataset) -> Region:
    """A SCOORD item. Raises GateError where it is not on one image."""
    images = content_tree.children(item)
    if len(images) != 1:
        raise GateError("coordinates are not on one image")
    return Region(
        graphic_type=str(item.GraphicType),
        points=np.array(item.GraphicData, dtype=np.float64).reshape(-1, 2),
        image=references.read_image(images[0].ReferencedSOPSequence[0]),
    )


def is_line(region: Region, expected: NDArray[np.float64]) -> bool:
    """Whether it is the line through these points."""
    return (
        region.graphic_type == "POLYLINE"
        and region.points.shape == expected.shape
        and bool(np.abs(region.points - expected).max() < TOLERANCE)
    )


def surrounds(region: Region, box: Box, shape: tuple[int, int, int]) -> bool:
    """Whether a closed line runs clockwise around a box's faces, as far as they are on the image."""
    limit = np.array(shape[:0:-1], dtype=np.float64)
    first, last = (np.clip(np.array(face[:0:-1]) + 0.5, 0, limit) for face in (box.low, box.high))
    expected = np.array([first, (last[0], first[1]), last, (first[0], last[1]), first])
    return is_line(region, expected)
