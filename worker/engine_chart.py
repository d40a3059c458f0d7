"""A picture of how fast a network is on each engine: latency, throughput, and where the time of a patch goes."""

from __future__ import annotations

from pathlib import Path

from worker.engine_pace import EnginesPace
from worker.pace_chart import Panel
from worker.sheet import ORANGE, QUIET, Sheet

_WIDTH, _ROW, _TOP = 1200, 46, 120
#: Where the two panels of bars are; pixels.
_LATENCY, _THROUGHPUT = (20, 480), (680, 980)


def draw(pace: EnginesPace, path: Path) -> None:
    """Write the picture, as PNG or SVG by its name. Raises WorkerError."""
    sheet = Sheet(_WIDTH, _TOP + len(pace.engines) * 2 * _ROW + 20)
    sheet.text((20, 16), f"{pace.model} {pace.version}", size=24)
    sheet.text((20, 50), f"patches of {pace.patch}, {pace.rounds} rounds", colour=QUIET, size=16)
    sheet.text((_LATENCY[0], _TOP - 34), "ms for a patch: median, light to p99", size=16)
    sheet.text((_THROUGHPUT[0], _TOP - 34), "patches in a second, several under way", size=16)
    latency = Panel(left=_LATENCY[0], right=_LATENCY[1], most=max(each.p99 for each in pace.engines))
    most = max(each.per_second for each in pace.engines)
    throughput = Panel(left=_THROUGHPUT[0], right=_THROUGHPUT[1], most=most)
    for number, each in enumerate(pace.engines):
        top = _TOP + number * 2 * _ROW
        sheet.text((20, top + _ROW // 2 + 4), each.engine or each.asked, size=17, anchor="lm")
        if each.missing:
            sheet.text((20, top + _ROW + 8), each.missing[:150], colour=QUIET, size=14, anchor="lm")
            continue
        stages = ", ".join(f"{name} {1000 * seconds:.3g} ms" for name, seconds in each.stages.items())
        sheet.text((_WIDTH - 20, top + _ROW // 2 + 4), stages, colour=QUIET, size=14, anchor="rm")
        row = top + _ROW - 6
        latency.draw(sheet, row, _ROW, each.p50, f"{1000 * each.p50:.3g}", beyond=each.p99)
        times = f"{each.per_second:.1f}, {each.speed_up:.1f} x reference"
        throughput.draw(sheet, row, _ROW, each.per_second, times, colour=ORANGE)
    sheet.save(path)
