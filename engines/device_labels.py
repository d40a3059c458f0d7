"""Sums of logits on the GPU become labels, as `postprocess` has it on the host, and the labels come to the host."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycuda import driver

from engines import tiling
from engines.cuda import OnDevice
from engines.device_memory import Memory
from engines.device_sums import DeviceSums
from engines.errors import OutputError
from engines.manifest_tiling import Tiling
from engines.volume import Region
from engines.way_back import WayBack, Weights
from engines.window_sums import TOO_LARGE, without_padding
from engines.windows import Window

#: Slices of labels that are copied to the host at a time.
_MOST_SLICES = 32

#: As the kernels number them.
_ACTIVATIONS = {"none": 0, "softmax": 1, "sigmoid": 2}

_AXES = ("along", "rows", "columns")
_PARTS = ("begins", "indices", "shares")


@dataclass(frozen=True, kw_only=True, eq=False)
class Wanted:
    """What is made on the device."""

    #: The label map to fill, in the model's axes; and how it is made.
    mask: NDArray[Any]
    way: WayBack
    tiling: Tiling
    output_name: str
    classes: int
    #: A value for each class where windows are skipped.
    background: Sequence[float]
    #: What of the network's grid the image is.
    inner: Region


@dataclass(frozen=True, kw_only=True)
class _Layer:
    """What can be finished once a layer's windows are added up."""

    #: Of the padded grid, [first, end).
    slices: tuple[int, int]
    #: Of the source's grid: those whose labels can then be told.
    ready: range


class DeviceLabels:
    """Sums become labels, and labels come to the host."""

    def __init__(self, wanted: Wanted, sums: DeviceSums) -> None:
        self.name = wanted.output_name
        self._wanted, self._sums = wanted, sums
        # Where the model's grid begins in the padded one.
        self._corner = tuple(
            before + (part.start or 0)
            for (before, _), part in zip(sums.layout.padding, wanted.inner, strict=True)
        )
        self._layers = list(self._planned())
        self._done = 0
        self._waiting: list[_Turn] = []
        self._turns: Iterator[_Turn] = iter(())
        #: That the network has answered, and that its answer is added up.
        self._events: tuple[driver.Event, ...] = ()
        most = max(len(layer.ready) for layer in self._layers)
        self._chunk = (max(1, min(_MOST_SLICES, most)), *wanted.mask.shape[1:])

    def _planned(self) -> Iterator[_Layer]:
        """What becomes ready with each layer of windows: what `postprocess.Backward` fills by then."""
        length, way, ready = self._sums.shape[0], self._wanted.way, 0
        for first, end in itertools.pairwise((*self._sums.layout.starts[0], length)):
            start = ready
            low, high = without_padding(self._sums.layout, first, end, length)
            stop = min(high - self._corner[0], way.slices)
            if low < high and stop > 0:
                ready = way.ready(ready, stop)
            yield _Layer(slices=(first, end), ready=range(start, ready))

    @property
    def sizes(self) -> Mapping[str, int]:
        """Bytes that it needs, by name."""
        size = math.prod(self._chunk) * self._wanted.mask.itemsize
        return {"labels 0": size, "labels 1": size}

    @property
    def constants(self) -> Mapping[str, NDArray[Any]]:
        """What its kernel reads, by name; an axis that nothing changes along has no arrays."""
        way = self._wanted.way
        found: dict[str, NDArray[Any]] = {}
        for axis, matrix in zip(_AXES, (way.along, way.rows, way.columns), strict=True):
            found |= _of_axis(axis, matrix)
        if way.regions:
            found["numbers"] = np.array(way.regions, np.int32)
        return found

    def begin(self, memory: Memory) -> None:
        """Work in `memory`."""
        self._memory = memory
        self._events = (driver.Event(), driver.Event())
        kind = self._wanted.mask.dtype
        self._turns = itertools.cycle(
            [_Turn(self._chunk, kind, address) for address in memory.at("labels 0", "labels 1")]
        )

    @property
    def nbytes(self) -> int:
        """What it takes on the device, with the sums."""
        return self._memory.nbytes

    def free(self) -> None:
        """Give back what `begin` took; nothing may be queued that uses it."""
        self._waiting.clear()
        self._turns = iter(())
        self._events = ()

    def add(self, answer: OnDevice, windows: Sequence[Window], count: int) -> None:
        """Add up a batch's windows, once the network has answered; `count` windows were in the call."""
        stream, (answered, added) = self._memory.stream, self._events
        answered.record(answer.stream)
        stream.wait_for_event(answered)
        self._sums.look(self._memory, answer.address, count)
        size = self._sums.classes * self._sums.patch * 4
        for number, window in enumerate(windows):
            while self._layers[self._done].slices[0] != window.corner[0]:
                self._finish()
            self._sums.add(self._memory, answer.address + number * size, window)
        # The network may then overwrite it.
        added.record(stream)
        answer.stream.wait_for_event(added)

    def end(self) -> None:
        """Finish the layers that are left, and take all labels. Raises OutputError."""
        while self._done < len(self._layers):
            self._finish()
        while self._waiting:
            self._take(self._waiting.pop(0))

    def _finish(self) -> None:
        """Average the current layer's slices, fetch the labels that can be told, and make room for the next."""
        layer, way = self._layers[self._done], self._wanted.way
        self._done += 1
        self._sums.average(self._memory, layer.slices, _ACTIVATIONS[way.activation] if way.early else 0)
        for start in layer.ready[:: self._chunk[0]]:
            self._label(start, min(start + self._chunk[0], layer.ready.stop))
        if self._done < len(self._layers):
            self._sums.make_room(self._memory, layer.slices)

    def _label(self, start: int, stop: int) -> None:
        """Queue the labels of the source's slices [start, stop), and their way to the host."""
        turn = next(self._turns)
        if turn in self._waiting:
            self._waiting.remove(turn)
            self._take(turn)
        way, mask, memory = self._wanted.way, self._wanted.mask, self._memory
        rows, columns = mask.shape[1:]
        memory.launch(
            "label",
            (stop - start) * rows * columns,
            *memory.at("sums"),
            turn.address,
            *memory.at(*(f"{axis} {part}" for axis in _AXES for part in _PARTS), "numbers"),
            0.5 if way.early else 0.0,
            self._sums.classes,
            *(start, stop - start, rows, columns),
            *self._corner,
            self._sums.slots,
            *self._sums.shape[1:],
            way.halves,
            mask.itemsize > 1,
        )
        (flags,) = memory.at("flags")
        turn.fetch((start, stop), flags, memory.stream)
        self._waiting.append(turn)

    def _take(self, turn: _Turn) -> None:
        """Labels into the label map, once they are there. Raises OutputError."""
        turn.copied.synchronize()
        if turn.flags[0]:
            raise tiling.not_finite(self.name)
        if turn.flags[1]:
            raise OutputError(TOO_LARGE)
        start, stop = turn.slices
        self._wanted.mask[start:stop] = turn.labels[: stop - start]


class _Turn:
    """Some slices of labels, and where they come to on the host."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any], address: int) -> None:
        self.address = address
        self.labels: NDArray[Any] = driver.pagelocked_empty(shape, dtype)
        #: What the kernels found wrong: see there.
        self.flags: NDArray[np.int32] = driver.pagelocked_empty(2, np.int32)
        self.copied = driver.Event()
        self.slices = (0, 0)

    def fetch(self, slices: tuple[int, int], flags: int, stream: driver.Stream) -> None:
        """Queue the copies."""
        self.slices = slices
        driver.memcpy_dtoh_async(self.labels[: slices[1] - slices[0]], self.address, stream)
        driver.memcpy_dtoh_async(self.flags, flags, stream)
        self.copied.record(stream)


def _of_axis(axis: str, matrix: Weights) -> dict[str, NDArray[Any]]:
    """A matrix' arrays."""
    if matrix is None:
        return {}
    arrays = (matrix.indptr.astype(np.int32), matrix.indices.astype(np.int32), matrix.data)
    return {f"{axis} {part}": array for part, array in zip(_PARTS, arrays, strict=True)}
