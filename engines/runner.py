"""What every inference backend has in common: one lifecycle, and inputs checked before they reach it."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from engines.errors import InputMismatch, RunnerError


@dataclass(frozen=True, kw_only=True, slots=True)
class TensorSpec:
    """The name, dtype and shape of one input or output of a network."""

    name: str
    dtype: np.dtype[Any]
    #: None where the axis may have any length; () also where nobody knows how many axes there are.
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        axes = ", ".join("any" if length is None else str(length) for length in self.shape)
        return f"{self.name}: {self.dtype} ({axes})"


class Runner(ABC):
    """An open network. A context manager; for one thread at a time.

    A backend calls `__init__` at the end of its own, once nothing can fail any more, and fills in
    `_infer` and `_close`.
    """

    _open = False
    #: Device memory that the open network holds, in bytes, and what its label maps took at most; none on a CPU.
    device_bytes = 0
    #: Whether answers can be left on a device (engines/trt.py: `each_on_device`).
    leaves_on_device = False

    def __init__(
        self, *, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], description: str
    ) -> None:
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        #: Backend, version, device and precision, e.g. "openvino 2026.4.1 CPU float32".
        self.description = description
        self._open = True

    def infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the network on `feeds` (input name -> array); return output name -> array.

        The arrays returned may be reused by the next call: copy what must live longer.
        Raises InputMismatch where a name, dtype or shape is not the declared one, RunnerError where
        the runner is closed or the runtime fails.
        """
        return self._infer(self._checked(feeds))

    def infer_each(self, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> Iterator[dict[str, NDArray[Any]]]:
        """Run the network on each of `feeds`; yield the answers in their order.

        A device may take the next feeds before it yields the first answer. What is yielded may be reused as soon as
        the next answer is asked for. Raises as `infer` does.
        """
        return self._infer_each(self._checked(feed) for feed in feeds)

    def close(self) -> None:
        """Free the network; a second call does nothing."""
        if self._open:
            self._open = False
            self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if self._open:
            warnings.warn(f"{self.description}: the runner was never closed", ResourceWarning, stacklevel=2)
            self.close()

    def _checked(self, feeds: Mapping[str, NDArray[Any]]) -> Mapping[str, NDArray[Any]]:
        """The feeds, where the runner is open and they fit."""
        if not self._open:
            raise RunnerError(f"{self.description}: the runner is closed")
        self._check(feeds)
        return feeds

    def _check(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Compare the feeds with the declared inputs."""
        expected = {spec.name for spec in self.inputs}
        if set(feeds) != expected:
            raise InputMismatch(f"expected inputs {sorted(expected)}, got {sorted(feeds)}")
        for spec in self.inputs:
            _check_array(spec, feeds[spec.name])

    def _infer_each(self, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> Iterator[dict[str, NDArray[Any]]]:
        """Run the network on feeds that are known to fit, one after the other."""
        return map(self._infer, feeds)

    @abstractmethod
    def _infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the network on feeds that are known to fit."""

    @abstractmethod
    def _close(self) -> None:
        """Free what the backend holds; called once."""


def usable_cores() -> int:
    """CPU cores that this process may run on: fewer than the machine's in a container or under taskset."""
    # macOS has no affinity.
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def of_rank(shape: tuple[int, ...], rank: int) -> tuple[int, ...]:
    """(n, channels, slices, rows, columns) as a network of `rank` axes takes it: in 2D, slices are channels."""
    if rank == len(shape) - 1 == 4:
        number, channels, slices, rows, columns = shape
        return (number, channels * slices, rows, columns)
    return shape


def _check_array(spec: TensorSpec, array: NDArray[Any]) -> None:
    """Raise InputMismatch where the array is not what `spec` declares."""
    got = f"got {array.dtype} {array.shape}"
    if array.dtype != spec.dtype:
        raise InputMismatch(f"expected {spec}, {got}: the dtype differs")
    if len(array.shape) != len(spec.shape):
        raise InputMismatch(f"expected {spec}, {got}: the number of axes differs")
    for axis, (length, wanted) in enumerate(zip(array.shape, spec.shape, strict=True)):
        if wanted is not None and length != wanted:
            raise InputMismatch(f"expected {spec}, {got}: axis {axis} differs in length")
