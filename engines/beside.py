"""Two networks that are given the same: how far one's answers are from the other's, call by call."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import fit
from engines.errors import OutputError
from engines.manifest import Manifest
from engines.manifest_outputs import Output, SegmentationOutput
from engines.runner import Runner

#: Numbers of other tasks than segmentation that differ by less are the same, as a part of them and beside zero.
_SAME = 1e-3

#: Numbers that are looked at together: nothing of an output's size is made.
_BLOCK = 2**20

_Outputs = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """One output over all calls so far."""

    #: Of two numbers at the same place; infinite where there are more of them, or no numbers.
    largest: float
    #: The reference's least and greatest number.
    low: float
    high: float
    #: Voxels with the same label; of other tasks than segmentation, numbers that are the same.
    same: int
    compared: int
    #: Why it is no answer that could be compared; "" where it is one.
    problem: str = ""

    @property
    def fraction(self) -> float:
        """The largest difference as a fraction of the reference's range, 0 to infinite."""
        if not self.largest:
            return 0.0
        span = self.high - self.low
        return self.largest / span if span > 0 else float("inf")

    @property
    def agreement(self) -> float:
        """The part of it that is the same, 0 to 1."""
        return self.same / self.compared if self.compared else 1.0

    def __add__(self, other: Difference) -> Difference:
        return Difference(
            largest=max(self.largest, other.largest),
            low=min(self.low, other.low),
            high=max(self.high, other.high),
            same=self.same + other.same,
            compared=self.compared + other.compared,
            problem=self.problem or other.problem,
        )


class Beside(Runner):
    """A network that answers as `runner` does, and asks `reference` the same.

    Both stay open when it is closed. Its feeds are those of `runner`; a reference that takes fewer windows in a call
    is given them one after the other.
    """

    def __init__(self, manifest: Manifest, runner: Runner, reference: Runner) -> None:
        self._output = manifest.outputs[0]
        self._prompts = {prompt.name for prompt in manifest.prompts}
        self._runner, self._reference = runner, reference
        #: By the names of the outputs that the manifest has; empty where the network was never asked.
        self.differences: dict[str, Difference] = {}
        #: For a window, in each call.
        self._seconds: list[float] = []
        self._reference_seconds: list[float] = []
        super().__init__(inputs=runner.inputs, outputs=runner.outputs, description=runner.description)

    @property
    def reference(self) -> str:
        """What it is compared with."""
        return self._reference.description

    @property
    def largest(self) -> float:
        """The largest difference of any output; infinite where it is no answer."""
        return max((found.largest for found in self.differences.values()), default=float("inf"))

    @property
    def fraction(self) -> float:
        """That of the output that differs most, as a fraction of the reference's range."""
        return max((found.fraction for found in self.differences.values()), default=float("inf"))

    @property
    def agreement(self) -> float:
        """The part of the output that agrees least which is the same, 0 to 1."""
        return min((found.agreement for found in self.differences.values()), default=0.0)

    @property
    def problems(self) -> tuple[str, ...]:
        """Why outputs are no answers."""
        return tuple(found.problem for found in self.differences.values() if found.problem)

    @property
    def speed_up(self) -> float:
        """The reference's time for a window, divided by the network's; 0 where it was never asked."""
        if not self._seconds:
            return 0.0
        return statistics.median(self._reference_seconds) / statistics.median(self._seconds)

    def _infer(self, feeds: _Outputs) -> dict[str, NDArray[Any]]:
        windows = self._windows(feeds)
        if not self.differences:
            # The first call of a network is slower than all others.
            self._runner.infer(feeds)
            self._reference.infer(windows[0])
        expected = self._asked(windows)
        began = time.perf_counter()
        got = self._runner.infer(feeds)
        self._seconds.append((time.perf_counter() - began) / self._count(feeds))
        for name in fit.names(self._output):
            found = difference(self._output, name, expected[name], got[name])
            self.differences[name] = self.differences[name] + found if name in self.differences else found
        return dict(got)

    def _asked(self, windows: Sequence[_Outputs]) -> _Outputs:
        """The reference's answer."""
        if len(windows) == 1:
            return self._timed(windows[0])
        parts: list[_Outputs] = []
        for number, window in enumerate(windows):
            # A call is filled up with empty windows.
            if number and _are_equal(window, windows[number - 1]):
                parts.append(parts[-1])
            else:
                parts.append({name: array.copy() for name, array in self._timed(window).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _timed(self, feeds: _Outputs) -> _Outputs:
        began = time.perf_counter()
        answer = self._reference.infer(feeds)
        self._reference_seconds.append((time.perf_counter() - began) / self._count(feeds))
        return answer

    def _windows(self, feeds: _Outputs) -> list[_Outputs]:
        """The feeds in calls of as many windows as the reference takes."""
        size = next(spec.shape[0] for spec in self._reference.inputs if spec.name not in self._prompts)
        count = self._count(feeds)
        if size in (None, count):
            return [feeds]
        return [
            {name: array if name in self._prompts else array[at : at + size] for name, array in feeds.items()}
            for at in range(0, count, size or 1)
        ]

    def _count(self, feeds: _Outputs) -> int:
        """How many windows there are in a call."""
        return next(len(array) for name, array in feeds.items() if name not in self._prompts)

    def _close(self) -> None:
        pass


def difference(output: Output, name: str, expected: NDArray[Any], got: NDArray[Any]) -> Difference:
    """One call's answers, the reference's and the other's.

    Raises OutputError where the reference's own holds no finite numbers: two of those would agree.
    """
    if not _is_finite(expected):
        raise OutputError(f'the reference\'s own output "{name}" holds values that are not finite numbers')
    low, high = (float(expected.min()), float(expected.max())) if expected.size else (0.0, 0.0)
    if expected.ndim < 3:
        # A row of a few numbers, or one: its range says nothing of how large they are.
        low, high = min(low, 0.0), max(high, 0.0)
    problem = ""
    if expected.shape != got.shape:
        problem = f'output "{name}" has shape {got.shape}, the reference\'s {expected.shape}'
    elif not _is_finite(got):
        problem = f'output "{name}" holds values that are not finite numbers'
    if problem:
        return Difference(
            largest=float("inf"), low=low, high=high, same=0, compared=max(1, got.size), problem=problem
        )
    same, compared = _same(output, expected, got)
    return Difference(largest=_largest(expected, got), low=low, high=high, same=same, compared=compared)


def _same(output: Output, expected: NDArray[Any], got: NDArray[Any]) -> tuple[int, int]:
    """How many voxels have the same label, or numbers are the same; and of how many."""
    if not isinstance(output, SegmentationOutput):
        alike = np.isclose(got, expected, rtol=_SAME, atol=_SAME)
    elif output.activation == "sigmoid":
        alike = (expected > 0) == (got > 0)
    else:
        alike = expected.argmax(axis=1) == got.argmax(axis=1)
    return int(np.count_nonzero(alike)), alike.size


def _largest(expected: NDArray[Any], got: NDArray[Any]) -> float:
    """The largest difference of two numbers at the same place."""
    first, second = expected.reshape(-1), got.reshape(-1)
    return max(
        (
            float(np.abs(first[at : at + _BLOCK].astype(np.float64) - second[at : at + _BLOCK]).max())
            for at in range(0, first.size, _BLOCK)
        ),
        default=0.0,
    )


def _is_finite(array: NDArray[Any]) -> bool:
    """Whether all its numbers are; both are NaN where any is."""
    return not array.size or bool(np.isfinite(array.min()) and np.isfinite(array.max()))


def _are_equal(first: _Outputs, second: _Outputs) -> bool:
    return all(np.array_equal(array, second[name]) for name, array in first.items())
