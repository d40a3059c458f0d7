"""The rows of a report's tables: what was measured, and how that compares with an earlier result."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeAlias

from dicom_node import elements
from dicom_node.results import boxes
from dicom_node.results.boxes import Placed
from dicom_node.results.context import EarlierValue, EarlierValues, ResultContext
from dicom_node.results.report_phrases import Phrases, quantity
from engines import printing
from engines.findings import Finding, Findings, Measurement

#: One cell for each column; "" where there is nothing to say.
Row: TypeAlias = tuple[str, ...]

#: The cells of a measurement, and of a comparison.
MEASURED = ("what", "where", "value", "threshold")
COMPARED = ("what", "where", "earlier", "now", "change")

#: Units whose zero is a convention: a change in percent of such a number says nothing.
_NO_RATIO = ("[hnsf'U]", "Cel", "[degF]", "[pH]")


def measured(findings: Findings, phrases: Phrases) -> Iterator[Row]:
    """What was measured, segment by segment, then of segments together: what, where, value, threshold."""
    for measurement in _ordered(findings):
        ruling = [rule for rule in findings.findings if _decides(rule, measurement)]
        bounds = [phrases.bound(rule, measurement.unit.value) for rule in ruling]
        names = [phrases.finding(rule) for rule in ruling]
        threshold = "; ".join(
            f"{name}{phrases.words.colon}{bound}" for name, bound in zip(names, bounds, strict=True) if bound
        )
        unlike = tuple(bound for rule in ruling for bound in rule.bounds)
        value = phrases.value(measurement, unlike=unlike)
        yield (phrases.measurement(measurement), phrases.where(measurement), value, phrases.line(threshold))


def found(context: ResultContext, findings: Findings, phrases: Phrases) -> Iterator[Row]:
    """The boxes of a detector: what, where, how certain and how large."""
    for item in boxes.placed(findings):
        certain, *lengths = boxes.measurements(item, findings.geometry)
        said = [phrases.words.certainty.format(value=phrases.value(certain))]
        if lengths:
            said.append(" × ".join(printing.number(length.value) for length in lengths) + " mm")
        where = place(context, item.slice, phrases)
        yield (named(item, phrases), where, phrases.words.comma.join(said), "")


def named(item: Placed, phrases: Phrases) -> str:
    """What a box is called."""
    return f"{phrases.box(item.box)} {item.number}"


def place(context: ResultContext, index: int, phrases: Phrases) -> str:
    """Which image a slice is."""
    number = elements.number(context.source.datasets[index], "InstanceNumber")
    slices = context.source.volume.geometry.shape[0]
    pattern = phrases.words.picture if slices > 1 else phrases.words.single
    return pattern.format(number=f"{number:g}" if number is not None else "–", slice=index + 1, slices=slices)


def compared(findings: Findings, phrases: Phrases, earlier: EarlierValues) -> Iterator[Row]:
    """What both have: what, where, the earlier value, the present one, and the difference."""
    labels = {segment.number: segment.label for segment in findings.segments}
    known = {(item.key, item.segment, item.unit): item for item in earlier.values}
    for measurement in _ordered(findings):
        label = labels.get(measurement.segment_number or 0, "")
        then = known.get((measurement.key, label, measurement.unit.value))
        if then is not None and math.isfinite(then.value) and math.isfinite(measurement.value):
            yield (
                phrases.measurement(measurement),
                phrases.where(measurement),
                quantity(then.value, then.unit, unlike=(measurement.value,)),
                quantity(measurement.value, then.unit, unlike=(then.value,)),
                _change(then, measurement.value, phrases),
            )


def _ordered(findings: Findings) -> list[Measurement]:
    """Those of a segment together, in the segments' order; those of several, or of none, last."""
    last = len(findings.segments) + 1
    return sorted(findings.measurements, key=lambda item: item.segment_number or last)


def _decides(rule: Finding, measurement: Measurement) -> bool:
    """Whether a rule looks at this measurement: at the combined one, where there is one, else at each."""
    return any(
        item.key == measurement.key and (item.segment_number is None) == (measurement.segment_number is None)
        for item in rule.deciding
    )


def _change(then: EarlierValue, now: float, phrases: Phrases) -> str:
    """The difference in the unit, and in percent of the earlier value where that means something."""
    percent = then.unit == "%"
    unit = phrases.words.points if percent else printing.unit(then.unit)
    said = f"{printing.change(now - then.value)} {unit}".strip()
    if percent or then.unit in _NO_RATIO or then.value <= 0:
        return said
    return said + phrases.words.aside.format(f"{printing.change(100 * (now - then.value) / then.value)} %")
