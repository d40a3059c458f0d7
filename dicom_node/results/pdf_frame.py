"""What is on every page of a printed report: whose it is, how it is to be taken, and which page it is."""

from __future__ import annotations

from typing import Any

from reportlab.lib import colors
from reportlab.lib.pagesizes import A4
from reportlab.lib.styles import ParagraphStyle
from reportlab.lib.units import mm
from reportlab.pdfgen.canvas import Canvas
from reportlab.platypus import Paragraph

from dicom_node import elements
from dicom_node.results import fonts, report_phrases
from dicom_node.results.context import ResultContext
from dicom_node.results.report import WordedReport

_MARGIN = 16 * mm
_WIDTH = A4[0] - 2 * _MARGIN
_TOP, _BOTTOM = A4[1] - 10 * mm, 8 * mm
_HEAD, _FOOT = 35 * mm, 9 * mm

#: Left, bottom, width and height of what lies between head and foot, points.
BODY = (_MARGIN, _BOTTOM + _FOOT, _WIDTH, _TOP - _HEAD - _BOTTOM - _FOOT)

_INK, _QUIET, _AMBER, _PALE = (colors.HexColor(code) for code in ("#1a1a1a", "#5a5a5a", "#8a4b00", "#fff3d6"))

#: A person's name fills so many letters at most; identifiers too.
_LONGEST = 120


def canvas_for(context: ResultContext, words: WordedReport) -> type[Canvas]:
    """A canvas that knows, when it ends, how many pages there are, and then draws head and foot on each."""

    class Pages(Canvas):  # type: ignore[misc]
        """Keeps its pages until it is saved."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self._kept: list[dict[str, Any]] = []

        def showPage(self) -> None:
            self._kept.append(dict(self.__dict__))
            self._startPage()

        def save(self) -> None:
            for number, page in enumerate(self._kept, start=1):
                self.__dict__.update(page)
                _draw(self, context, words, f"{number}/{len(self._kept)}")
                super().showPage()
            super().save()

    return Pages


def identity(context: ResultContext) -> list[tuple[str, str]]:
    """Who the report is about and of which study, as headings and values; those that are known."""
    words, header = report_phrases.wording(context.language), context.header
    values = (
        (words.patient, person(str(header.get("PatientName") or ""))),
        (words.patient_id, elements.text(header, "PatientID")),
        (words.birth_date, _date(elements.text(header, "PatientBirthDate"))),
        (words.sex, elements.text(header, "PatientSex")),
        (words.study, _date(elements.text(header, "StudyDate"))),
        (words.accession, elements.text(header, "AccessionNumber")),
    )
    return [(name, report_phrases.clean(value, _LONGEST) or "–") for name, value in values]


def person(name: str) -> str:
    """A name (PS3.5 6.2, PN) as "Family, Given", in each of its scripts that can be shown."""
    groups = [_group(group) for group in name.split("=")]
    present = list(dict.fromkeys(group for group in groups if group))
    readable = [group for group in present if fonts.is_complete(group)]
    return " / ".join(readable or present[:1])


def _group(group: str) -> str:
    """One component group of a name: family name first."""
    family, *others = (part.strip() for part in group.split("^"))
    if any("\u3400" <= letter <= "\u9fff" for letter in family):
        return family + "".join(others)  # Chinese and Japanese names have neither comma nor blank
    return ", ".join(part for part in (family, " ".join(part for part in others if part)) if part)


def _date(text: str) -> str:
    return report_phrases.iso(text) or text


def _draw(canvas: Canvas, context: ResultContext, words: WordedReport, number: str) -> None:
    """Head and foot of one page."""
    wording = report_phrases.wording(words.language)
    people = identity(context)
    top = _place(canvas, fonts.markup(words.title, bold=True), _TOP, size=15, colour=_INK)
    top = _band(canvas, fonts.markup(words.standing, bold=True), top - 1.5 * mm)
    for row in (people[:3], people[3:]):
        top = _row(canvas, row, top)
    canvas.setStrokeColor(_QUIET)
    canvas.setLineWidth(0.6)
    canvas.line(_MARGIN, top - 1.5 * mm, _MARGIN + _WIDTH, top - 1.5 * mm)
    page, pages = number.split("/")
    foot = [words.standing, wording.page.format(page=page, pages=pages)]
    if any(not fonts.is_complete(value) for _, value in people):
        foot.insert(1, wording.missing_letters.format(letter=fonts.MISSING))
    _place(canvas, fonts.markup("   ·   ".join(foot)), _BOTTOM + 4 * mm, size=7.5, colour=_QUIET)


def _row(canvas: Canvas, cells: list[tuple[str, str]], top: float) -> float:
    """Headings and values side by side, each cut where its third ends; returns where they end."""
    third = _WIDTH / 3
    ends = []
    for index, (name, value) in enumerate(cells):
        said = (
            f'<font size="7" color="#5a5a5a">{fonts.markup(name)}</font><br/>{fonts.markup(value, bold=True)}'
        )
        ends.append(
            _place(
                canvas,
                said,
                top - 1 * mm,
                size=9,
                colour=_INK,
                left=_MARGIN + index * third,
                width=third - 3 * mm,
            )
        )
    return float(min(ends))


def _band(canvas: Canvas, said: str, top: float) -> float:
    """How the report is to be taken, on a band that cannot be overlooked."""
    canvas.setFillColor(_PALE)
    canvas.rect(_MARGIN, top - 5.6 * mm, _WIDTH, 5.6 * mm, stroke=0, fill=1)
    _place(canvas, said, top - 0.8 * mm, size=9, colour=_AMBER, left=_MARGIN + 2 * mm)
    return float(top - 5.6 * mm)


def _place(
    canvas: Canvas,
    said: str,
    top: float,
    *,
    size: float,
    colour: Any,
    left: float = _MARGIN,
    width: float = _WIDTH,
) -> float:
    """Markup below `top`; returns where it ends."""
    style = ParagraphStyle("frame", fontName=fonts.PLAIN, fontSize=size, leading=1.3 * size, textColor=colour)
    paragraph = Paragraph(said, style)
    _, height = paragraph.wrap(width, A4[1])
    paragraph.drawOn(canvas, left, top - height)
    return float(top - height)
