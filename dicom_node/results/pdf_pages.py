"""A report in words on A4 pages: the patient on each, the conclusion first, key images, and what it rests on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from reportlab.lib import colors
from reportlab.lib.enums import TA_LEFT
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.platypus import (
    BaseDocTemplate,
    Flowable,
    Frame,
    KeepTogether,
    PageTemplate,
    Paragraph,
    Spacer,
    Table,
    TableStyle,
)

from dicom_node.results import fonts, pdf_frame, pdf_pictures, report, report_phrases
from dicom_node.results.context import ResultContext
from dicom_node.results.report import Conclusion, Weight, WordedReport
from engines.findings import Findings

_INK, _QUIET, _LINE, _SHADE = (colors.HexColor(code) for code in ("#1a1a1a", "#5a5a5a", "#c8c8c8", "#f2f4f7"))

#: Colour of a conclusion's mark, by its weight.
_MARKS = {
    Weight.URGENT: colors.HexColor("#b00020"),
    Weight.PRESENT: colors.HexColor("#b36b00"),
    Weight.ABSENT: colors.HexColor("#2e6b34"),
    Weight.REMARK: colors.HexColor("#5a5a5a"),
}

#: The space between a number and a unit.
_UNIT = re.compile(r"(?<=\d) (?=[%a-zA-Zµ°]{1,3}(?![a-zA-Z]))")

#: Shares of the width that a table's columns have, by their number.
_SHARES = {4: (0.34, 0.28, 0.15, 0.23), 5: (0.29, 0.25, 0.13, 0.13, 0.20)}


def render(context: ResultContext, findings: Findings) -> bytes:
    """The pages as a PDF: for the same context and findings the same bytes.

    They bear the patient's name, number, birth date and sex, since a page without is a danger; nothing
    of it is in the PDF's own metadata.
    """
    words = report.worded(context, findings)
    file = BytesIO()
    document = BaseDocTemplate(
        file,
        pagesize=A4,
        title=words.title,
        author="secondread",
        subject=words.standing,
        creator=f"secondread {context.secondread_version}",
        invariant=1,
        lang=words.language,
        # Named on every page, used or not; Helvetica, which it is otherwise, would not be embedded.
        initialFontName=fonts.register(),
    )
    left, bottom, width, height = pdf_frame.BODY
    body = Frame(left, bottom, width, height, leftPadding=0, rightPadding=0, topPadding=0, bottomPadding=0)
    document.addPageTemplates([PageTemplate(frames=[body])])
    document.build(list(_story(context, findings, words)), canvasmaker=pdf_frame.canvas_for(context, words))
    return file.getvalue()


def _story(context: ResultContext, findings: Findings, words: WordedReport) -> Iterator[Flowable]:
    """Everything between the head and the foot of the pages, from the top."""
    yield _text(words.about, colour=_QUIET)
    yield KeepTogether([_heading(words.conclusion), *map(_conclusion, words.conclusions)])
    for table in words.tables:
        yield _heading(table.heading)
        if table.said:
            yield _text(table.said)
        if table.rows:
            yield Spacer(0, 1 * mm)
            yield _table(table)
    pictures = list(pdf_pictures.rows(context, findings))
    if pictures:
        heading = _heading(report_phrases.wording(words.language).pictures)
        yield KeepTogether([heading, pictures[0]])
        yield from pictures[1:]
    yield _heading(words.limits)
    yield from (_text(line, size=7.5, colour=_QUIET) for line in words.limitations)


def _heading(text: str) -> Paragraph:
    """The head of a section."""
    style = _style(size=10.5, bold=True, before=3.5 * mm, after=1 * mm)
    style.keepWithNext = True
    return Paragraph(fonts.markup(text, bold=True), style)


def _text(text: str, *, size: float = 9, colour: Any = _INK, bold: bool = False) -> Paragraph:
    """A line of words, on as many lines as it takes; a unit stays with its number."""
    held = _UNIT.sub("\u00a0", text)
    return Paragraph(fonts.markup(held, bold=bold), _style(size=size, colour=colour, bold=bold))


def _conclusion(item: Conclusion) -> Table:
    """One line of the conclusion, marked by its weight."""
    strong = item.weight in (Weight.URGENT, Weight.PRESENT)
    colour = _MARKS[Weight.URGENT] if item.weight is Weight.URGENT else _INK
    line = _text(item.text, size=10, bold=strong, colour=colour)
    table = Table([["", line]], colWidths=[2 * mm, pdf_frame.BODY[2] - 2 * mm])
    table.setStyle(
        TableStyle(
            [
                # A cell has a font beside that of its words: it would be Helvetica, and not embedded.
                ("FONTNAME", (0, 0), (-1, -1), fonts.PLAIN),
                ("BACKGROUND", (0, 0), (0, 0), _MARKS[item.weight]),
                ("BACKGROUND", (1, 0), (1, 0), _SHADE),
                ("LINEBELOW", (0, 0), (-1, -1), 1.5, colors.white),
                ("TOPPADDING", (0, 0), (-1, -1), 3),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 4),
            ]
        )
    )
    return table


def _table(table: report.Table) -> Table:
    """Measurements or a comparison; its head is repeated on each page."""
    head = [_text(name, size=8, bold=True, colour=_QUIET) for name in table.columns]
    rows = [[_text(cell, size=8.5) for cell in row] for row in table.rows]
    widths = [share * pdf_frame.BODY[2] for share in _SHARES[len(table.columns)]]
    made = Table([head, *rows], colWidths=widths, repeatRows=1, splitInRow=1)
    made.setStyle(
        TableStyle(
            [
                ("FONTNAME", (0, 0), (-1, -1), fonts.PLAIN),
                ("VALIGN", (0, 0), (-1, -1), "TOP"),
                ("BACKGROUND", (0, 0), (-1, 0), _SHADE),
                ("LINEBELOW", (0, 0), (-1, -1), 0.4, _LINE),
                ("LEFTPADDING", (0, 0), (-1, -1), 3),
                ("RIGHTPADDING", (0, 0), (-1, -1), 3),
                ("TOPPADDING", (0, 0), (-1, -1), 1.5),
                ("BOTTOMPADDING", (0, 0), (-1, -1), 3),
            ]
        )
    )
    return made


def _style(
    *, size: float, colour: Any = _INK, bold: bool = False, before: float = 0, after: float = 0
) -> ParagraphStyle:
    """How words are set. Lines may break between any two Chinese characters."""
    return ParagraphStyle(
        "words",
        fontName=fonts.BOLD if bold else fonts.PLAIN,
        fontSize=size,
        leading=1.35 * size,
        textColor=colour,
        alignment=TA_LEFT,
        spaceBefore=before,
        spaceAfter=after,
        splitLongWords=1,
    )
