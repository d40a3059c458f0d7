"""A picture of where a model's time and memory go: one bar for each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from worker.pace import TOTAL, Pace, StagePace
from worker.sheet import BLUE, LIGHT, ORANGE, QUIET, Colour, Sheet

_WIDTH, _ROW, _TOP, _BOTTOM = 1200, 46, 120, 46
#: Where the names end, and the two panels of bars; pixels.
_NAMES, _TIME, _MEMORY = 150, (170, 640), (760, 1060)


@dataclass(frozen=True, kw_only=True)
class Panel:
    """Bars from `left` to `right`; the longest is of `most`."""

    left: int
    right: int
    most: float

    def at(self, value: float) -> int:
        """Where a value ends."""
        return self.left + round((self.right - self.left) * value / self.most) if self.most else self.left

    def draw(
        self,
        sheet: Sheet,
        top: int,
        height: int,
        value: float,
        words: str,
        *,
        beyond: float = 0.0,
        colour: Colour = BLUE,
    ) -> None:
        """A bar with its number behind it, in a row from `top`; a lighter one under it goes `beyond`."""
        low, high, end = top + 8, top + height - 8, self.at(max(value, beyond))
        if beyond:
            sheet.bar((self.left, low, end, high), LIGHT)
        sheet.bar((self.left, low, self.at(value), high), colour)
        sheet.text((end + 8, top + height // 2), words, size=16, anchor="lm")


def draw(pace: Pace, path: Path) -> None:
    """Write the picture, as PNG or SVG by its name. Raises WorkerError."""
    sheet = Sheet(_WIDTH, bottom := _TOP + _ROW * len(pace.stages) + _BOTTOM)
    _head(sheet, pace)
    peaks = [stage.peak_megabytes or 0.0 for stage in pace.stages]
    time = Panel(left=_TIME[0], right=_TIME[1], most=max(stage.p90 for stage in pace.stages))
    memory = Panel(left=_MEMORY[0], right=_MEMORY[1], most=max(peaks))
    for number, stage in enumerate(pace.stages):
        _row(sheet, stage, _TOP + number * _ROW, time, memory)
    _foot(sheet, pace.stages, bottom - _BOTTOM)
    sheet.save(path)


def _head(sheet: Sheet, pace: Pace) -> None:
    sheet.text((20, 16), f"{pace.model} {pace.version}", size=24)
    line = (
        f"{pace.input}; {pace.engine}, {pace.threads} threads; {pace.rounds} rounds, "
        f"{pace.per_minute:.1f} a minute; loaded in {pace.load_seconds:.1f} s"
    )
    sheet.text((20, 50), line, colour=QUIET, size=16)
    sheet.text((_TIME[0], _TOP - 34), "seconds: median, light to p90", size=16)
    sheet.text((_MEMORY[0], _TOP - 34), "peak memory of the process, MB", size=16)


def _row(sheet: Sheet, stage: StagePace, top: int, time: Panel, memory: Panel) -> None:
    """One stage's name, bars and numbers."""
    if stage.stage == TOTAL:
        sheet.line((20, top, _WIDTH - 20, top))
    share = "" if stage.stage == TOTAL else f", {stage.share:.0%}"
    sheet.text((_NAMES, top + _ROW // 2), stage.stage, size=17, anchor="rm")
    time.draw(sheet, top, _ROW, stage.median, f"{stage.median:.3g}{share}", beyond=stage.p90)
    if stage.peak_megabytes is not None:
        memory.draw(sheet, top, _ROW, stage.peak_megabytes, f"{stage.peak_megabytes:.0f}", colour=ORANGE)


def _foot(sheet: Sheet, stages: Sequence[StagePace], top: int) -> None:
    words = "The memory is the process' own, with all that was loaded before."
    if not any(stage.stage == "read" for stage in stages):
        words += " No DICOM files: nothing was read or encoded."
    sheet.text((20, top + 14), words, colour=QUIET, size=14)
