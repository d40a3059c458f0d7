"""A sheet of bars and words, written as PNG or as SVG."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from worker.errors import WorkerError

Colour = tuple[int, int, int]

INK, QUIET, PAPER = (34, 34, 34), (110, 110, 110), (255, 255, 255)
#: Colours that those who see no red or green tell apart (Okabe and Ito).
BLUE, LIGHT, ORANGE = (0, 114, 178), (158, 200, 226), (230, 159, 0)

#: Pillow's anchors of text as SVG has them: left or right end, top or middle.
_ENDS = {"l": "start", "r": "end"}
_HEIGHTS = {"a": "hanging", "m": "central"}


def check(path: Path) -> None:
    """Raise WorkerError where nothing can be written there: asked before minutes of measuring."""
    if path.suffix.lower() not in (".png", ".svg"):
        raise WorkerError(f"--plot {path}: write a name that ends with .png or .svg")
    if not path.absolute().parent.is_dir():
        raise WorkerError(f"--plot {path}: there is no folder {path.absolute().parent}")


class Sheet:
    """What is drawn is kept until it is written; pixels."""

    def __init__(self, width: int, height: int) -> None:
        self._size = (width, height)
        self._strokes: list[tuple[Callable[[ImageDraw.ImageDraw], None], str]] = []

    def text(
        self, at: tuple[int, int], words: str, *, size: int, colour: Colour = INK, anchor: str = "la"
    ) -> None:
        """Words that begin or end `at` (anchor l or r), with their top or middle there (a or m)."""
        place = f'x="{at[0]}" y="{at[1]}" font-size="{size}" fill="{_hex(colour)}"'
        ends = f'text-anchor="{_ENDS[anchor[0]]}" dominant-baseline="{_HEIGHTS[anchor[1]]}"'
        font = ImageFont.load_default(size)
        self._strokes.append(
            (
                lambda pen: pen.text(at, words, fill=colour, font=font, anchor=anchor),
                f"<text {place} {ends}>{escape(words)}</text>",
            )
        )

    def bar(self, box: tuple[int, int, int, int], colour: Colour) -> None:
        """A filled box (left, top, right, bottom)."""
        left, top, right, bottom = box
        self._strokes.append(
            (
                lambda pen: pen.rectangle(box, fill=colour),
                f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" fill="{_hex(colour)}"/>',
            )
        )

    def line(self, ends: tuple[int, int, int, int], colour: Colour = QUIET) -> None:
        """From (x, y) to (x, y)."""
        self._strokes.append(
            (
                lambda pen: pen.line(ends, fill=colour),
                '<line x1="{}" y1="{}" x2="{}" y2="{}" stroke="{}"/>'.format(*ends, _hex(colour)),
            )
        )

    def save(self, path: Path) -> None:
        """Write it, in the format that the name ends with. Raises WorkerError."""
        check(path)
        try:
            if path.suffix.lower() == ".svg":
                path.write_text(self._svg(), encoding="utf-8")
            else:
                self._picture().save(path, format="PNG")
        except OSError as error:
            said = error.strerror or type(error).__name__
            raise WorkerError(f"--plot {path}: cannot be written: {said}") from error

    def _picture(self) -> Image.Image:
        picture = Image.new("RGB", self._size, PAPER)
        pen = ImageDraw.Draw(picture)
        for draw, _ in self._strokes:
            draw(pen)
        return picture

    def _svg(self) -> str:
        width, height = self._size
        head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">'
        paper = f'<rect width="{width}" height="{height}" fill="{_hex(PAPER)}"/>'
        return "\n".join([head, paper, *(words for _, words in self._strokes), "</svg>", ""])


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
