"""What a viewer's picture says about the image under it: colours at the image's pixels, and lines in its coordinates."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Cosine to its colour that an overlay's tint must have; neighbours in any palette of ours have less.
_ALIKE = 0.97
#: Length of a tint (0 to 255 in each channel) below which a pixel counts as grey.
_GREY = 15.0


Element = Mapping[str, Any]


def _no_points(element: Element) -> NDArray[np.float64]:
    return np.empty((0, 2))


def _of_line(element: Element) -> NDArray[np.float64]:
    return np.array([[element["x1"], element["y1"]], [element["x2"], element["y2"]]], np.float64)


def _of_rectangle(element: Element) -> NDArray[np.float64]:
    x, y, width, height = (float(element[name]) for name in ("x", "y", "width", "height"))
    return np.array([[x, y], [x + width, y], [x + width, y + height], [x, y + height]])


def _of_numbers(element: Element) -> NDArray[np.float64]:
    """Points of a polyline, or of a path that has no curves."""
    numbers = re.findall(r"-?[\d.]+(?:e-?\d+)?", element.get("points") or element.get("d") or "")
    return np.array(numbers, np.float64).reshape(-1, 2)


_POINTS: dict[str, Callable[[Element], NDArray[np.float64]]] = {
    "line": _of_line,
    "rect": _of_rectangle,
    "polyline": _of_numbers,
    "polygon": _of_numbers,
    "path": _of_numbers,
}


@dataclass(frozen=True, kw_only=True)
class Sight:
    """A viewport's picture, of an image that it shows whole, upright and as large as it can."""

    sop_instance_uid: str
    #: From 1.
    frame: int
    png: bytes
    #: SVG elements over the image, as their attributes, in pixels of the viewport.
    drawn: tuple[Element, ...]

    @property
    def picture(self) -> NDArray[np.uint8]:
        """(row, column, channel) of the viewport."""
        return np.asarray(Image.open(io.BytesIO(self.png)).convert("RGB"))

    def colours(self, shape: tuple[int, int], spacing: tuple[float, float] = (1.0, 1.0)) -> NDArray[np.uint8]:
        """The colour at the centre of every pixel of the image: (row, column, channel)."""
        picture = self.picture
        scale, corner = self._fit(shape, spacing)
        rows, columns = (
            np.rint(corner[axis] + scale[axis] * np.arange(shape[axis])).astype(int) for axis in (0, 1)
        )
        inside = picture[np.clip(rows, 0, picture.shape[0] - 1)]
        return inside[:, np.clip(columns, 0, picture.shape[1] - 1)]

    def shapes(
        self, shape: tuple[int, int], spacing: tuple[float, float] = (1.0, 1.0)
    ) -> list[tuple[str, NDArray[np.float64]]]:
        """Kind and points of what is drawn in full lines, as (column, row) of the image.

        As in a SCOORD, 0 is the corner of the first pixel, and 0.5 its centre (PS3.3 C.18.6.1.2). A dashed
        line is none of them: it leads to a text. Of a rectangle there are all four corners.
        """
        scale, corner = self._fit(shape, spacing)
        found = []
        for element in self.drawn:
            points = _POINTS.get(element["kind"], _no_points)(element)
            if len(points) and not element.get("stroke-dasharray"):
                at = (points - (corner[1], corner[0])) / (scale[1], scale[0]) + 0.5
                found.append((str(element["kind"]), at))
        return found

    def texts(self) -> list[str]:
        """What is written over the image next to shapes."""
        return [str(element["text"]) for element in self.drawn if element["kind"] == "text"]

    def _fit(
        self, shape: tuple[int, int], spacing: tuple[float, float]
    ) -> tuple[tuple[float, float], tuple[float, float]]:
        """Viewport pixels for each image pixel, and where the first one's centre is; (row, column) both."""
        with Image.open(io.BytesIO(self.png)) as image:
            room = (image.height, image.width)
        extent = (shape[0] * spacing[0], shape[1] * spacing[1])
        per_mm = min(room[0] / extent[0], room[1] / extent[1])
        scale = (per_mm * spacing[0], per_mm * spacing[1])
        corner = tuple((room[axis] - scale[axis] * (shape[axis] - 1)) / 2 for axis in (0, 1))
        return scale, (corner[0], corner[1])


def labels(colours: NDArray[np.uint8], palette: Mapping[int, tuple[int, int, int]]) -> NDArray[np.uint8]:
    """Which of the palette's colours tints each pixel; 0 where none does.

    A half transparent colour over grey shifts along the grey axis only: what is left beside that axis
    points where the colour's own does, however opaque it is.
    """
    tints = _tint(colours.astype(np.float64))
    length = np.linalg.norm(tints, axis=-1)
    found = np.zeros(length.shape, np.uint8)
    best = np.full(length.shape, _ALIKE)
    for number, colour in palette.items():
        own = _tint(np.asarray(colour, np.float64))
        cosine = tints @ own / np.maximum(length * np.linalg.norm(own), 1e-9)
        here = (length > _GREY) & (cosine > best)
        found[here], best[here] = number, cosine[here]
    return found


def _tint(colours: NDArray[np.float64]) -> NDArray[np.float64]:
    """The part of colours that is not grey."""
    tint: NDArray[np.float64] = colours - colours.mean(axis=-1, keepdims=True)
    return tint


def overlap(seen: NDArray[np.uint8], wanted: NDArray[np.uint8], number: int) -> float:
    """Intersection over union of one label; 1 where neither has it."""
    a, b = seen == number, wanted == number
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 1.0


def likeness(colours: NDArray[np.uint8], wanted: NDArray[np.generic], where: NDArray[np.bool_]) -> float:
    """Correlation of a picture's brightness with an image's values, over the pixels `where`."""
    bright = colours.astype(np.float64).mean(axis=-1)[where]
    return float(np.corrcoef(bright, np.asarray(wanted, np.float64)[where])[0, 1])
