"""Key images on a printed page: three in a row, each with what it is and what its colours mean."""

from __future__ import annotations

from collections.abc import Iterator
from io import BytesIO
from typing import Any

from PIL import Image as Pixels
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import Flowable, Image, Paragraph, Table, TableStyle

from dicom_node.results import (
    fonts,
    key_images,
    key_slices,
    legend,
    pdf_frame,
    report_phrases,
    report_tables,
)
from dicom_node.results.context import ResultContext
from dicom_node.results.key_slices import KeySlice
from engines import labels
from engines.findings import Findings

#: Pictures in a row, the space between them, and the longer side of one: points, and pixels.
_IN_A_ROW, _GAP, _TALLEST, _PIXELS = 3, 3 * mm, 52 * mm, 512
#: Segments that are named under a picture.
_NAMED = 6


def rows(context: ResultContext, findings: Findings) -> Iterator[Table]:
    """The key slices, in slice order; nothing where no voxel is segmented."""
    chosen = key_slices.choose(findings)
    unfilled = labels.surrounding(labels.counts(findings.mask, len(findings.segments)))
    width = (pdf_frame.BODY[2] - (_IN_A_ROW - 1) * _GAP) / _IN_A_ROW
    for start in range(0, len(chosen), _IN_A_ROW):
        cells: list[Any] = [
            [_picture(context, findings, slice_, unfilled, width), _caption(context, findings, slice_)]
            for slice_ in chosen[start : start + _IN_A_ROW]
        ]
        cells += [""] * (_IN_A_ROW - len(cells))
        table = Table([cells], colWidths=[width + _GAP] * _IN_A_ROW)
        table.setStyle(
            TableStyle(
                [
                    ("FONTNAME", (0, 0), (-1, -1), fonts.PLAIN),
                    ("VALIGN", (0, 0), (-1, -1), "TOP"),
                    ("LEFTPADDING", (0, 0), (-1, -1), 0),
                    ("RIGHTPADDING", (0, 0), (-1, -1), _GAP),
                    ("TOPPADDING", (0, 0), (-1, -1), 2),
                ]
            )
        )
        table.hAlign = "LEFT"
        yield table


def _picture(
    context: ResultContext, findings: Findings, chosen: KeySlice, unfilled: set[int], width: float
) -> Flowable:
    """One slice with its overlay."""
    drawn = key_images.drawn(context, findings, chosen, unfilled, size=_PIXELS)
    stamped = legend.stamped(drawn)
    file = BytesIO()
    Pixels.fromarray(stamped).save(file, format="PNG")
    height, across = stamped.shape[:2]
    scale = min(width / across, _TALLEST / height)
    image = Image(BytesIO(file.getvalue()), width=across * scale, height=height * scale)
    image.hAlign = "LEFT"
    return image


def _caption(context: ResultContext, findings: Findings, chosen: KeySlice) -> Paragraph:
    """Which slice it is, and the segments on it with their colours."""
    phrases = report_phrases.of(context, findings)
    said = report_tables.place(context, chosen.index, phrases)
    lines = [fonts.markup(said)]
    for index in chosen.segments[:_NAMED]:
        segment = findings.segments[index - 1]
        colour = "#{:02x}{:02x}{:02x}".format(*segment.colour)
        lines.append(
            f'<font name="{fonts.PLAIN}" color="{colour}">■</font> {fonts.markup(phrases.segment(segment))}'
        )
    for index in chosen.boxes[:_NAMED]:
        box = findings.boxes[index]
        colour = "#{:02x}{:02x}{:02x}".format(*box.colour)
        text = f"{phrases.box(box)} {100 * box.score:.0f} %"
        lines.append(f'<font name="{fonts.PLAIN}" color="{colour}">■</font> {fonts.markup(text)}')
    if len(chosen.segments) > _NAMED:
        lines.append(fonts.markup(phrases.words.more.format(count=len(chosen.segments) - _NAMED)))
    style = ParagraphStyle("caption", fontName=fonts.PLAIN, fontSize=7, leading=9, spaceBefore=1 * mm)
    return Paragraph("<br/>".join(lines), style)
