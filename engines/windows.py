"""A network before the windows of a grid: stacked, with what every call is given, and empty ones left out."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from engines.runner import Runner, TensorSpec

#: Patches per call where the network takes any number of them.
BATCH = 4


#: What a runner makes of a batch.
Answer = TypeVar("Answer")


@dataclass(frozen=True, kw_only=True, slots=True)
class Window:
    """One patch of a grid, as it lies or mirrored."""

    #: Its first voxel in the padded grid.
    corner: tuple[int, int, int]
    #: Axes (0 slice, 1 row, 2 column) that are mirrored.
    mirror: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Answers:
    """What a network answered about some windows, in their order."""

    windows: Sequence[Window]
    #: By output name; may be reused by the network's next call. The first axis counts windows, and may be longer
    #: than their number, where the network makes one answer for each.
    outputs: Mapping[str, NDArray[Any]]
    #: How many windows were in the call, those that fill it up included.
    count: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """A runner that is given windows of arrays."""

    runner: Runner
    patch: tuple[int, int, int]
    #: Slices before and after a window that it sees too.
    context: int = 0
    #: Inputs that are the same in every call, by name.
    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    #: Windows whose every input value is at most this are left out.
    skip_at_most: float | None = None

    def answers(
        self,
        arrays: Mapping[str, NDArray[np.float32]],
        windows: Sequence[Window],
        *,
        progress: Callable[[float], None] | None = None,
    ) -> Iterator[Answers]:
        """Run the network on `windows` of `arrays`, (channels, slices, rows, columns) by input name, with the
        `context` around them. What is skipped is missing from the answers.
        """
        for (chosen, count), outputs in self.each(arrays, windows, self.runner.infer_each, progress=progress):
            yield Answers(windows=chosen, outputs=outputs, count=count)

    def each(
        self,
        arrays: Mapping[str, NDArray[np.float32]],
        windows: Sequence[Window],
        infer: Callable[[Iterator[Mapping[str, NDArray[Any]]]], Iterator[Answer]],
        *,
        progress: Callable[[float], None] | None = None,
    ) -> Generator[tuple[tuple[Sequence[Window], int], Answer]]:
        """What `infer` answers about `windows`, batch by batch: with the batch's windows, and their number in the call,
        those that fill it up included.
        """
        done = 0
        # A device may be several batches ahead of its answers.
        asked: deque[tuple[list[Window], int, int]] = deque()
        for answer in infer(self._batches(arrays, windows, asked)):
            chosen, count, done = asked.popleft()
            yield (chosen, count), answer
            if progress is not None:
                progress(done / len(windows))
        if progress is not None and done < len(windows):
            progress(1.0)

    def _batches(
        self,
        arrays: Mapping[str, NDArray[np.float32]],
        windows: Sequence[Window],
        asked: deque[tuple[list[Window], int, int]],
    ) -> Iterator[Mapping[str, NDArray[Any]]]:
        """What the network is given, batch by batch; of each, `asked` gets its windows, their number in the call, and
        how far it reaches into all of them.
        """
        kept = (numbered for numbered in enumerate(windows, start=1) if self._worthwhile(arrays, numbered[1]))
        while batch := list(itertools.islice(kept, self.batch)):
            chosen = [window for _, window in batch]
            stacks = {
                spec.name: self._stack(spec, [self.tile(arrays[spec.name], window) for window in chosen])
                for spec in self._images
            }
            asked.append((chosen, len(next(iter(stacks.values()))), batch[-1][0]))
            yield {**stacks, **self.constants}

    @property
    def batch(self) -> int:
        """Patches per call: the network's own number where it is fixed. What is given with each call has no
        further copies for further patches.
        """
        return self._images[0].shape[0] or (1 if self.constants else BATCH)

    @property
    def _images(self) -> list[TensorSpec]:
        """The inputs that windows go to."""
        return [spec for spec in self.runner.inputs if spec.name not in self.constants]

    def tile(self, array: NDArray[np.float32], window: Window) -> NDArray[np.float32]:
        """One window (a view), with the slices around it that are its context."""
        (first, row, column), (depth, height, width) = window.corner, self.patch
        last = first + depth + 2 * self.context
        return flipped(array[:, first:last, row : row + height, column : column + width], window.mirror)

    def _worthwhile(self, arrays: Mapping[str, NDArray[np.float32]], window: Window) -> bool:
        """Whether there is anything to see in the window."""
        limit = self.skip_at_most
        if limit is None:
            return True
        return any(bool((self.tile(array, window) > limit).any()) for array in arrays.values())

    def _stack(self, spec: TensorSpec, tiles: Sequence[NDArray[np.float32]]) -> NDArray[Any]:
        """Tiles (channels, slices, rows, columns) as the network takes them; slices are channels in 2D."""
        shape = tiles[0].shape if len(spec.shape) == 5 else (-1, *tiles[0].shape[2:])
        first = tiles[0].reshape(shape)
        stack = np.zeros((spec.shape[0] or len(tiles), *first.shape), dtype=spec.dtype)
        for index, tile in enumerate(tiles):
            stack[index] = tile.reshape(shape)
        return stack


def flipped(array: NDArray[np.float32], axes: tuple[int, ...]) -> NDArray[np.float32]:
    """(channels, slices, rows, columns) mirrored along the `axes` of the grid (a view)."""
    return np.flip(array, tuple(axis + 1 for axis in axes)) if axes else array
