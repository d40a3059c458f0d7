"""A picture of where a model's time and memory go: one bar for each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from worker.pace import TOTAL, Pace, StagePace

_WIDTH, _ROW, _TOP, _BOTTOM = 1200, 46, 120, 46
#: Where the names end, and the two panels of bars; pixels.
_NAMES, _TIME, _MEMORY = 150, (170, 640), (760, 1060)
_INK, _QUIET, _PAPER = (34, 34, 34), (110, 110, 110), (255, 255, 255)
#: Colours that those who see no red or green tell apart (Okabe and Ito).
_BLUE, _LIGHT, _ORANGE = (0, 114, 178), (158, 200, 226), (230, 159, 0)


@dataclass(frozen=True, kw_only=True)
class _Panel:
    """Bars from `left` to `right`; the longest is of `most`."""

    left: int
    right: int
    most: float

    def at(self, value: float) -> int:
        """Where a value ends."""
        return self.left + round((self.right - self.left) * value / self.most) if self.most else self.left


def draw(pace: Pace, path: Path) -> None:
    """Write the picture as PNG. Raises OSError."""
    picture = Image.new("RGB", (_WIDTH, _TOP + _ROW * len(pace.stages) + _BOTTOM), _PAPER)
    pen = ImageDraw.Draw(picture)
    _head(pen, pace)
    peaks = [stage.peak_megabytes or 0.0 for stage in pace.stages]
    time = _Panel(left=_TIME[0], right=_TIME[1], most=max(stage.p90 for stage in pace.stages))
    memory = _Panel(left=_MEMORY[0], right=_MEMORY[1], most=max(peaks))
    for number, stage in enumerate(pace.stages):
        _row(pen, stage, _TOP + number * _ROW, time, memory)
    _foot(pen, pace.stages, picture.height - _BOTTOM)
    picture.save(path, format="PNG")


def _head(pen: ImageDraw.ImageDraw, pace: Pace) -> None:
    pen.text((20, 16), f"{pace.model} {pace.version}", fill=_INK, font=_font(24))
    line = (
        f"{pace.input}; {pace.engine}, {pace.threads} threads; {pace.rounds} rounds, "
        f"{pace.per_minute:.1f} a minute; loaded in {pace.load_seconds:.1f} s"
    )
    pen.text((20, 50), line, fill=_QUIET, font=_font(16))
    pen.text((_TIME[0], _TOP - 34), "seconds: median, light to p90", fill=_INK, font=_font(16))
    pen.text((_MEMORY[0], _TOP - 34), "peak memory of the process, MB", fill=_INK, font=_font(16))


def _row(pen: ImageDraw.ImageDraw, stage: StagePace, top: int, time: _Panel, memory: _Panel) -> None:
    """One stage's name, bars and numbers."""
    low, high, middle = top + 8, top + _ROW - 8, top + _ROW // 2
    if stage.stage == TOTAL:
        pen.line((20, top, _WIDTH - 20, top), fill=_QUIET)
    pen.text((_NAMES, middle), stage.stage, fill=_INK, font=_font(17), anchor="rm")
    pen.rectangle((time.left, low, time.at(stage.p90), high), fill=_LIGHT)
    pen.rectangle((time.left, low, time.at(stage.median), high), fill=_BLUE)
    share = "" if stage.stage == TOTAL else f", {stage.share:.0%}"
    pen.text(
        (time.at(stage.p90) + 8, middle), f"{stage.median:.3g}{share}", fill=_INK, font=_font(16), anchor="lm"
    )
    if stage.peak_megabytes is not None:
        end = memory.at(stage.peak_megabytes)
        pen.rectangle((memory.left, low, end, high), fill=_ORANGE)
        pen.text((end + 8, middle), f"{stage.peak_megabytes:.0f}", fill=_INK, font=_font(16), anchor="lm")


def _foot(pen: ImageDraw.ImageDraw, stages: Sequence[StagePace], top: int) -> None:
    words = "The memory is the process' own, with all that was loaded before."
    if not any(stage.stage == "read" for stage in stages):
        words += " No DICOM files: nothing was read or encoded."
    pen.text((20, top + 14), words, fill=_QUIET, font=_font(14))


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
