"""Boxes on a picture of one plane: their outlines, what each is and how certain."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from engines.findings import Box
from engines.volume import Geometry

#: Height of the letters, as a part of the picture's longer side.
_LETTERS = 36
_WHITE, _BLACK = (255, 255, 255), (0, 0, 0)


def reoriented(box: Box, geometry: Geometry, orientation: str) -> Box:
    """The same box on the axes of `Geometry.reoriented`."""
    grid, permutation, flips = geometry.reoriented(orientation)
    low, high = [], []
    for new_axis, (axis, flip) in enumerate(zip(permutation, flips, strict=True)):
        first, last = box.low[axis], box.high[axis]
        far = grid.shape[new_axis] - 1
        low.append(far - last if flip else first)
        high.append(far - first if flip else last)
    return replace(box, low=(low[0], low[1], low[2]), high=(high[0], high[1], high[2]))


def on(boxes: Sequence[Box], index: int) -> list[Box]:
    """Those that touch a slice; the least certain first, so that it is drawn under the others."""
    return [box for box in reversed(boxes) if box.low[0] < index + 0.5 and box.high[0] > index - 0.5]


def draw(picture: NDArray[np.uint8], boxes: Sequence[Box], grid: tuple[int, int]) -> NDArray[np.uint8]:
    """The picture, (height, width, 3), of a plane of `grid` (rows, columns) with these boxes over it."""
    if not boxes:
        return picture
    canvas = Image.fromarray(picture)
    pen = ImageDraw.Draw(canvas)
    height, width = picture.shape[:2]
    thickness = max(1, round(max(height, width) / 400))
    for box in boxes:
        top, bottom = (_place(face[1], grid[0], height) for face in (box.low, box.high))
        left, right = (_place(face[2], grid[1], width) for face in (box.low, box.high))
        corners = (left, top, max(right - 1, left), max(bottom - 1, top))
        pen.rectangle(corners, outline=box.colour, width=thickness)
        _name(pen, box, corners, (height, width))
    return np.asarray(canvas, dtype=np.uint8)


def named(box: Box) -> str:
    """What a box is called where only Latin letters can be drawn, and how certain it is."""
    texts = (box.label, box.code.meaning)
    latin = (text for text in texts if text.encode("latin-1", "ignore").decode("latin-1") == text)
    return f"{next(latin, box.key)} {100 * box.score:.0f} %"


def _place(face: float, own: int, wanted: int) -> int:
    """A face in pixels of the picture, within it."""
    return min(max(round((face + 0.5) * wanted / own), 0), wanted)


def _name(pen: Any, box: Box, corners: tuple[int, int, int, int], shape: tuple[int, int]) -> None:
    """Words above the box, or within it where there is no room."""
    size = max(shape) // _LETTERS
    left, top = corners[:2]
    above = top - size - 4
    words = named(box)
    room = shape[1] - round(_font(size).getlength(words)) - 2
    at = (max(min(left, room), 0), above if above >= 0 else top + 2)
    # In white: the box's own colour is the line's alone, by which the picture can be checked.
    pen.text(at, words, fill=_WHITE, font=_font(size), stroke_width=1, stroke_fill=_BLACK)


@lru_cache
def _font(size: int) -> Any:
    """The letters that Pillow ships."""
    return ImageFont.load_default(size=size)
