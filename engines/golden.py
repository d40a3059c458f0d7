"""Whether an answer is the one that a package's example expects: labels, numbers, statements, boxes, images."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from engines.example import Example, Expected, ExpectedBox, ExpectedFinding, ExpectedMeasurement
from engines.findings import Box, Findings
from engines.volume import Volume


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """One answer beside the expected one."""

    #: The least of all labels; None where there are none.
    dice: float | None
    #: Each in words; none where they agree.
    differences: tuple[str, ...]


def expected_of(found: Findings, terms: Expected) -> Expected:
    """The answer as what is expected from now on, with the tolerances of `terms`."""
    return terms.model_copy(
        update={
            "measurements": tuple(
                ExpectedMeasurement(key=one.key, segment=one.segment_number, value=one.value)
                for one in found.measurements
            ),
            "findings": tuple(ExpectedFinding(key=one.key, present=one.present) for one in found.findings),
            "boxes": tuple(
                ExpectedBox(key=one.key, score=one.score, low=one.low, high=one.high) for one in found.boxes
            ),
        }
    )


def compare(example: Example, found: Findings) -> Comparison:
    """The answer about an example's volumes, against what it expects."""
    dice = _dice(example, found)
    least = min(dice.values(), default=None)
    terms = example.expected
    differences = [
        f"label {label}: Dice {value:.4f}, at least {terms.minimum_dice:g} is expected"
        for label, value in dice.items()
        if value < terms.minimum_dice
    ]
    differences += _numbers(terms, found)
    differences += _statements(terms, found)
    differences += _boxes(terms, found.boxes)
    differences += _image(example, found.image)
    return Comparison(dice=least, differences=tuple(differences))


def _dice(example: Example, found: Findings) -> dict[str, float]:
    """2 |A and B| / (|A| + |B|) of each label; 1 where it is in neither."""
    if example.mask is None:
        return {}
    values = {}
    for segment in found.segments:
        wanted, got = example.mask == segment.number, found.mask == segment.number
        both, either = np.count_nonzero(wanted & got), np.count_nonzero(wanted) + np.count_nonzero(got)
        values[segment.label] = 2 * both / either if either else 1.0
    return values


def _numbers(terms: Expected, found: Findings) -> Iterator[str]:
    """Measurements that differ by more than they may, are missing, or were not expected."""
    got = {(one.key, one.segment_number): one.value for one in found.measurements}
    for one in terms.measurements:
        name = one.key if one.segment is None else f"{one.key} of segment {one.segment}"
        value = got.pop((one.key, one.segment), None)
        allowed = one.tolerance
        if allowed is None:
            allowed = terms.absolute + terms.relative * abs(one.value)
        if value is None:
            yield f"measurement {name}: missing"
        elif not abs(value - one.value) <= allowed:
            yield f"measurement {name}: {value:g}, expected {one.value:g} within {allowed:g}"
    for key, segment in got:
        name = key if segment is None else f"{key} of segment {segment}"
        yield f"measurement {name}: not expected"


def _statements(terms: Expected, found: Findings) -> Iterator[str]:
    """Findings that are otherwise."""
    got = {one.key: one.present for one in found.findings}
    wanted = {one.key: one.present for one in terms.findings}
    for key in sorted(got.keys() | wanted.keys()):
        if got.get(key) is not wanted.get(key):
            yield f"finding {key}: {_said(got.get(key))}, expected {_said(wanted.get(key))}"


def _said(present: bool | None) -> str:
    return "not stated" if present is None else "present" if present else "absent"


def _boxes(terms: Expected, found: Sequence[Box]) -> Iterator[str]:
    """Boxes without their like, in either direction."""
    left = list(found)
    for wanted in terms.boxes:
        alike = [box for box in left if box.key == wanted.key]
        best = max(alike, key=lambda box: _iou(box, wanted), default=None)
        if best is None or _iou(best, wanted) < terms.minimum_iou:
            yield f"box {wanted.key} at {_place(wanted)}: missing"
            continue
        left.remove(best)
        allowed = terms.absolute + terms.relative * abs(wanted.score)
        if not abs(best.score - wanted.score) <= allowed:
            yield f"box {wanted.key} at {_place(wanted)}: score {best.score:g}, expected {wanted.score:g}"
    for box in left:
        yield f"box {box.key} at {_place(box)}: not expected"


def _place(box: Box | ExpectedBox) -> str:
    middle = ((low + high) / 2 for low, high in zip(box.low, box.high, strict=True))
    return f"({', '.join(f'{value:.0f}' for value in middle)})"


def _iou(first: Box | ExpectedBox, second: Box | ExpectedBox) -> float:
    """Intersection over union of two boxes."""
    low = np.maximum(first.low, second.low)
    high = np.minimum(first.high, second.high)
    both = float(np.prod(np.clip(high - low, 0, None)))
    sizes = [float(np.prod(np.subtract(box.high, box.low))) for box in (first, second)]
    return both / (sum(sizes) - both)


def _image(example: Example, found: Volume | None) -> Iterator[str]:
    """An image that was made, where its voxels differ by more than they may of its range."""
    if (example.image is None) != (found is None):
        yield "image: missing" if found is None else "image: not expected"
    if example.image is None or found is None:
        return
    allowed = example.expected.absolute + example.expected.relative * float(np.ptp(example.image))
    largest = float(np.abs(example.image.astype(np.float64) - found.array).max())
    if not largest <= allowed:
        yield f"image: a voxel differs by {largest:g}, {allowed:g} is allowed"
