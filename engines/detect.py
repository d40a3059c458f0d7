"""The task "detection": boxes with a class and a score, on the grid of the source."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import boxes, placement, probability, tiling
from engines.answer import Answer, Case
from engines.errors import OutputError
from engines.findings import Box
from engines.manifest_outputs import Class, DetectionOutput
from engines.volume import Point
from engines.windows import Answers, Window

#: Of one class in one window, those with the highest scores: networks without a threshold of their own answer with
#: hundreds of thousands.
_CANDIDATES = 5000


@dataclass(kw_only=True, eq=False)
class _Candidates:
    """Boxes of one class from all windows, on the source's grid."""

    entry: Class
    places: list[NDArray[np.float64]] = field(default_factory=list)
    scores: list[NDArray[np.float64]] = field(default_factory=list)
    #: Of all boxes, whatever the threshold.
    highest: float = 0.0

    def add(self, places: NDArray[np.float64], scores: NDArray[np.float64]) -> None:
        """Take in the boxes of a window; one below the threshold can neither stay nor take another's place."""
        self.highest = max(self.highest, float(scores.max(initial=0.0)))
        best = np.argsort(-scores, kind="stable")[:_CANDIDATES]
        if self.entry.threshold is not None:
            best = best[scores[best] >= self.entry.threshold]
        self.places.append(places[best])
        self.scores.append(scores[best])

    def distinct(self, output: DetectionOutput) -> list[Box]:
        """Those that are not the same thing, the highest score first."""
        if not self.places:
            return []
        places, scores = np.concatenate(self.places), np.concatenate(self.scores)
        kept = boxes.distinct(places, scores, overlap=output.overlap, most=output.most)
        return [self._box(places[index], float(scores[index])) for index in kept]

    def _box(self, place: NDArray[np.float64], score: float) -> Box:
        """With what it is; voxel centres are whole numbers there."""
        low, high = (_point(corner - 0.5) for corner in place)
        return Box(
            key=self.entry.key,
            label=self.entry.label,
            code=self.entry.code.code(),
            score=score,
            low=low,
            high=high,
            colour=self.entry.colour,
        )


def answer(case: Case) -> Answer:
    """The boxes, and for each class the highest probability and, where it has a threshold, a finding."""
    output = case.package.manifest.outputs[0]
    assert isinstance(output, DetectionOutput)
    candidates = [_Candidates(entry=entry) for entry in output.classes]
    _collect(case, output, candidates)
    with case.clock.stage("postprocess"):
        found = [one.distinct(output) for one in candidates]
    measurements = [probability.measured(one.entry, one.highest) for one in candidates]
    stated = [
        probability.stated(one.entry, measurement, boxes=len(own))
        for one, measurement, own in zip(candidates, measurements, found, strict=True)
    ]
    # A stable sort: of equal scores the class that the manifest names first.
    ranked = sorted((box for own in found for box in own), key=lambda box: -box.score)
    return Answer(
        boxes=tuple(ranked[: output.most]),
        measurements=tuple(measurements),
        findings=tuple(finding for finding in stated if finding is not None),
    )


def _collect(case: Case, output: DetectionOutput, candidates: list[_Candidates]) -> None:
    """Ask the network about every window."""
    windows = case.package.manifest.windows
    layout = placement.plan(case.seen.geometry.shape, windows)
    network = tiling.network_for(case.runner, windows, case.prompts)
    padded = tiling.padded_for(case.seen.arrays, layout, windows)
    padding = np.array([before for before, _ in layout.padding], dtype=np.float64)
    with case.clock.stage("infer"):
        for answers in network.answers(padded, layout.windows, progress=case.report):
            for index, window in enumerate(answers.windows):
                numbers = _of_window(answers, output, index)
                places = _places(case, output, numbers[output.boxes], window, padding)
                there = boxes.real(places)
                shares = _shares(output, numbers[output.scores])
                for one in candidates:
                    chosen, scores = _of_class(one.entry, output, numbers, shares)
                    chosen &= there
                    one.add(places[chosen], scores[chosen])


def _of_window(answers: Answers, output: DetectionOutput, index: int) -> dict[str, NDArray[Any]]:
    """Boxes (boxes, 4 or 6), scores and class numbers of one window of a call.

    Raises OutputError where their shapes do not go together.
    """
    raw = answers.outputs[output.boxes]
    names = [output.scores] if output.class_numbers is None else [output.scores, output.class_numbers]
    if raw.ndim == 2 and answers.count > 1:
        raise OutputError(
            f'output "{output.boxes}" does not say which of {answers.count} windows a box is of'
        )
    taken = {name: answers.outputs[name] for name in (output.boxes, *names)}
    if raw.ndim == 3:
        taken = {name: array[index] for name, array in taken.items()}
    found = taken[output.boxes]
    for name in names:
        if len(taken[name]) != len(found):
            raise OutputError(
                f'output "{name}" has shape {answers.outputs[name].shape}, which does not go with the boxes '
                f'{raw.shape} of output "{output.boxes}"'
            )
        if not np.isfinite(taken[name]).all():
            raise OutputError(f'output "{name}" holds values that are not finite numbers')
    return taken


def _places(
    case: Case,
    output: DetectionOutput,
    numbers: NDArray[Any],
    window: Window,
    padding: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Where the boxes of a window lie on the source's grid."""
    patch = case.package.manifest.windows.patch
    flat = 4 if patch[0] == 1 else 6
    if numbers.shape[1] != flat:
        raise OutputError(f'output "{output.boxes}" has {numbers.shape[1]} numbers for each box, not {flat}')
    places = boxes.read(
        numbers, box_format=output.box_format, axis_order=output.axis_order, name=output.boxes
    )
    places = boxes.mirrored(places, patch, window.mirror) + (np.array(window.corner) - padding)
    geometry = case.volume.geometry
    return boxes.clipped(boxes.moved(places, case.seen.geometry, geometry), geometry.shape)


def _shares(output: DetectionOutput, scores: NDArray[Any]) -> NDArray[np.float64]:
    """Probabilities (boxes,), or (boxes, classes) where the network gives no class numbers."""
    wanted = 1 if output.class_numbers is not None else 2
    least = max(entry.index for entry in output.classes) + 1
    if scores.ndim != wanted or (wanted == 2 and scores.shape[1] < least):
        layout = "(boxes,)" if wanted == 1 else f"(boxes, {least} or more classes)"
        raise OutputError(f'output "{output.scores}" has shape {scores.shape}, not {layout}')
    return probability.activated(scores.astype(np.float64), output.activation, name=output.scores)


def _of_class(
    entry: Class, output: DetectionOutput, numbers: Mapping[str, NDArray[Any]], shares: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    """Which of a window's boxes may be of the class, and the probability of each that it is."""
    if output.class_numbers is None:
        chosen, own = np.ones(len(shares), dtype=np.bool_), shares[:, entry.index]
    else:
        chosen, own = np.asarray(numbers[output.class_numbers] == entry.index), shares
    return chosen, probability.calibrated(own, entry.calibration)


def _point(corner: NDArray[np.float64]) -> Point:
    """(slice, row, column)."""
    slices, rows, columns = corner.tolist()
    return (slices, rows, columns)
