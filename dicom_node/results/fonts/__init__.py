"""The letters of a printed report: fonts that travel with it, since a hospital's viewer may have none.

DejaVu Sans has Latin, Greek and Cyrillic, Droid Sans Fallback has Chinese and Japanese; their licences lie
beside them. What neither has, and what runs from right to left, cannot be shown and is written as `MISSING`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from reportlab.pdfbase import pdfmetrics
from reportlab.pdfbase.ttfonts import TTFont

#: Stands for a letter that cannot be shown.
MISSING = "?"

#: Names in a page, and files.
PLAIN, BOLD, HAN = "DejaVuSans", "DejaVuSans-Bold", "DroidSansFallbackFull"

#: Letters of scripts that run from right to left (Unicode's bidirectional classes).
_FROM_THE_RIGHT = ("R", "AL", "AN")


def markup(text: str, *, bold: bool = False) -> str:
    """The text as a paragraph's markup: escaped, each stretch of letters in a font that has them.

    There is no bold Chinese: a text with some is plain throughout, rather than of two weights.
    """
    bold = bold and all(_font_of(letter) != HAN for letter in text)
    stretches = groupby(text, key=lambda letter: _font_of(letter, bold=bold))
    return "".join(_stretch(font, "".join(letters)) for font, letters in stretches)


def register() -> str:
    """Make the fonts that styles name known to reportlab; the plain one's name."""
    for name in (PLAIN, BOLD):
        _glyphs(name)
    return PLAIN


def shown(text: str) -> str:
    """The text as it can be read on the page."""
    return "".join(letter if _font_of(letter) else MISSING for letter in text)


def is_complete(text: str) -> bool:
    """Whether every letter can be shown."""
    return all(_font_of(letter) for letter in text)


def _stretch(font: str, letters: str) -> str:
    """Letters of one font."""
    if not font:
        return MISSING * len(letters)
    return f'<font name="{font}">{escape(letters)}</font>'


def _font_of(letter: str, *, bold: bool = False) -> str:
    """The font to show a letter in; "" where none can."""
    if unicodedata.bidirectional(letter) in _FROM_THE_RIGHT:
        return ""
    return next((name for name in _order(bold=bold) if ord(letter) in _glyphs(name)), "")


def _order(*, bold: bool) -> Iterator[str]:
    """Which fonts are asked, in turn. The fallback is large: it is read where the first lacks a letter."""
    yield BOLD if bold else PLAIN
    yield HAN


@lru_cache
def _glyphs(name: str) -> dict[int, Any]:
    """The letters of a font, which is registered with it."""
    font = TTFont(name, str(Path(__file__).parent / f"{name}.ttf"))
    pdfmetrics.registerFont(font)
    glyphs: dict[int, Any] = font.face.charToGlyph
    return glyphs
