"""Words burned into pictures: what is seen, what was measured, and that nobody has verified it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from dicom_node.results import boxes
from dicom_node.results.context import ResultContext
from dicom_node.results.key_slices import KeySlice
from engines import box_overlay, printing
from engines.findings import Findings, Measurement, Segment

#: Pixels.
WIDTH = 288
_MARGIN, _LINE, _SWATCH, _TEXT = 10, 19, 12, 14

_WHITE, _GREY, _AMBER = (255, 255, 255), (170, 170, 170), (255, 191, 0)

#: Said on each picture itself too: a viewer may crop what stands beside it.
STANDING = "AI, not verified"

#: A line: its words, their colour, and the colour of the swatch before them.
_Line = tuple[str, tuple[int, int, int], tuple[int, int, int] | None]


def beside(
    picture: NDArray[np.uint8],
    context: ResultContext,
    findings: Findings,
    chosen: KeySlice,
    place: str,
) -> NDArray[np.uint8]:
    """The picture, (height, width, 3), with words on it and, on its right, what its colours mean.

    `chosen` says what is on the picture; `place` says which slice it is. Lines for which there is no room
    are counted. No patient's name or number is written.
    """
    height, width = picture.shape[:2]
    canvas = Image.new("RGB", (width + WIDTH, height))
    canvas.paste(Image.fromarray(stamped(picture)), (0, 0))
    pen = ImageDraw.Draw(canvas)
    lines = list(_lines(context, findings, chosen, place))
    room = max(1, (height - 2 * _MARGIN) // _LINE)
    if len(lines) > room:
        lines = [*lines[: room - 1], (f"and {len(lines) - room + 1} more lines in the report", _GREY, None)]
    for number, line in enumerate(lines):
        _write(pen, line, (width + _MARGIN, _MARGIN + number * _LINE))
    return np.asarray(canvas, dtype=np.uint8)


def stamped(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The picture, with words on it that nobody has verified it."""
    canvas = Image.fromarray(picture)
    ImageDraw.Draw(canvas).text(
        (_MARGIN, _MARGIN), STANDING, fill=_AMBER, font=_font(), stroke_width=2, stroke_fill=(0, 0, 0)
    )
    return np.asarray(canvas, dtype=np.uint8)


def _lines(context: ResultContext, findings: Findings, chosen: KeySlice, place: str) -> Iterator[_Line]:
    """What is written beside a picture, from the top."""
    yield STANDING, _AMBER, None
    if context.model.research_only:
        yield "for research only", _AMBER, None
    yield f"{context.model.name} {context.model.version}", _GREY, None
    yield place, _GREY, None
    for segment in (findings.segments[number - 1] for number in chosen.segments):
        yield name(segment), _WHITE, segment.colour
        for item in findings.measurements:
            if item.segment_number == segment.number:
                yield f"   {measured(item)}", _GREY, None
    yield from _of_boxes(findings, chosen)
    yield from _of_the_whole(findings)


def _of_boxes(findings: Findings, chosen: KeySlice) -> Iterator[_Line]:
    """The boxes on the picture, and how large each is."""
    for item in boxes.placed(findings):
        if item.index in chosen.boxes:
            yield f"{box_overlay.named(item.box)} (no. {item.number})", _WHITE, item.box.colour
            lengths = boxes.measurements(item, findings.geometry)[1:]
            if lengths:
                yield f"   {' x '.join(printing.number(each.value) for each in lengths)} mm", _GREY, None


def _of_the_whole(findings: Findings) -> Iterator[_Line]:
    """Values where there is nothing else to measure, the classes with their probabilities, and what is stated."""
    stated = {finding.code: finding for finding in findings.findings}
    for item in findings.measurements:
        if item.about is not None:
            own = stated.pop(item.about, None)
            said = "" if own is None else f", {'present' if own.present else 'absent'}"
            yield f"{printing.number(item.value)} {item.about.meaning}{said}", _WHITE, None
        elif not findings.segments:
            yield measured(item), _WHITE, None
    for finding in findings.findings:
        if finding.code in stated:
            yield f"{finding.code.meaning}: {'present' if finding.present else 'absent'}", _WHITE, None


def name(segment: Segment) -> str:
    """What to call a segment where only Latin letters can be drawn."""
    for text in (segment.label, segment.type.meaning):
        if text.encode("latin-1", "ignore").decode("latin-1") == text:
            return text
    return f"Segment {segment.number}"


def measured(item: Measurement) -> str:
    """A measurement, the number first: what is too long loses its end."""
    derived = f" ({item.derivation.meaning.lower()})" if item.derivation is not None else ""
    named = f"{item.name.meaning}{derived}"
    return f"{quantity(item)} {named}" if math.isfinite(item.value) else f"{named}: {printing.NOT_COMPUTED}"


def quantity(item: Measurement) -> str:
    """A number and its unit, as people write them."""
    return f"{printing.number(item.value)} {printing.unit(item.unit.value)}".strip()


def _write(pen: Any, line: _Line, at: tuple[int, int]) -> None:
    """Write one line, with an ellipsis where it is too long."""
    words, colour, swatch = line
    left, top = at
    if swatch is not None:
        pen.rectangle((left, top + 2, left + _SWATCH, top + 2 + _SWATCH), fill=swatch)
        left += _SWATCH + _MARGIN // 2
    room = at[0] + WIDTH - 2 * _MARGIN - left
    shown = words
    while shown and _font().getlength(shown if shown == words else shown + "…") > room:
        shown = shown[:-1]
    pen.text((left, top), shown if shown == words else shown + "…", fill=colour, font=_font())


@lru_cache
def _font() -> Any:
    """The letters that Pillow ships."""
    return ImageFont.load_default(size=_TEXT)
