"""From logits on the model grid to a label map on the source grid, without ever holding all classes there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import scipy.sparse
import scipy.special
from numpy.typing import NDArray

from engines.errors import OutputError
from engines.slabs import spread
from engines.way_back import WayBack, Weights

#: How far a probability may be outside 0 to 1 for rounding.
_ROUNDING = 1e-4

#: Rows and columns of the source that are filled at a time.
_TILE = 128

#: What interpolated values are rounded with.
Rounding = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def mask_dtype(classes: int) -> type[np.uint8] | type[np.uint16]:
    """The smallest unsigned type that `classes` (background included) fit in."""
    return np.uint8 if classes <= 256 else np.uint16


class Backward:
    """Writes slabs of logits on the model grid into a label map on the source grid.

    Per-class values are brought to the source's voxel centres by linear interpolation and the largest
    wins there; on equal grids that is plain argmax. Of regions the last one wins that is beyond one half.
    Slabs come in slice order; only one slab and the slice before it are held.
    """

    def __init__(
        self,
        mask: NDArray[Any],
        shape: tuple[int, int, int],
        *,
        activation: str,
        interpolate: str = "probabilities",
        steps: Sequence[float | None] = (None, None, None),
        matrices: Sequence[Weights] | None = None,
        numbers: Sequence[int] = (),
        probabilities: Mapping[int, NDArray[np.float32]] = MappingProxyType({}),
        halves: bool = False,
        threads: int = 1,
    ) -> None:
        """`mask` is the label map to fill, `shape` the model grid; both in the model's axes.

        `probabilities` are arrays like the mask to fill with those of their class; of no other class is there
        ever more than a plane on the source grid. Along an axis that has a step, in voxels of the source, the
        grids share their first voxel instead of their outer faces; `matrices` are for each axis what else
        interpolates. `numbers` are what each channel stands for in the mask, which sigmoid needs. With `halves`
        interpolated values are rounded to float16 before they are compared.
        """
        self._mask = mask
        self._probabilities = probabilities
        self._threads = threads
        self._rounded = _to_half if halves else _as_it_is
        self.way = way = WayBack.to(
            mask.shape,
            shape,
            activation=activation,
            interpolate=interpolate,
            steps=steps,
            matrices=matrices,
            numbers=numbers,
            probabilities=bool(probabilities),
            halves=halves,
        )
        self._row_tiles = _tiles(way.rows, mask.shape[1])
        self._column_tiles = _tiles(way.columns, mask.shape[2])
        self._activate = _ACTIVATIONS[activation]
        self._next = 0
        self._held: NDArray[np.float32] | None = None

    def write(self, start: int, logits: NDArray[np.float32]) -> None:
        """Take the slab (classes, slices, rows, columns) whose first slice is `start`."""
        values = self._activate(logits) if self.way.early else logits
        held = self._held
        stop = start + values.shape[1]
        ready = self.way.ready(self._next, stop)

        def slice_at(tap: int) -> NDArray[np.float32]:
            if tap >= start:
                return values[:, tap - start]
            assert held is not None
            return held

        def fill(index: int) -> None:
            plane = _between(slice_at, self.way.taps(index))
            self._plane(plane, self._mask[index])
            if self._probabilities:
                self._share(index, plane)

        spread(fill, range(self._next, ready), threads=self._threads)
        self._next = ready
        self._held = values[:, -1].copy()

    def _share(self, index: int, plane: NDArray[np.float32]) -> None:
        """Fill source slice `index` of the probabilities. Raises OutputError where they are none."""
        numbers = list(self._probabilities)
        channels = [self.way.regions.index(number) for number in numbers] if self.way.regions else numbers
        if self.way.early:
            shares = _enlarged(plane[channels], self.way.rows, self.way.columns).transpose(1, 2, 0)
        else:
            # What one class's probability is takes all of them; a plane of each is as much as there ever is.
            whole = _enlarged(plane, self.way.rows, self.way.columns).transpose(1, 2, 0)
            shares = self._activate(whole)[channels]
        # What the weights of an interpolation sum up to is 1 to the last digits only.
        if not (shares.min() >= -_ROUNDING and shares.max() <= 1 + _ROUNDING):
            raise OutputError(
                f"the network's probabilities run from {shares.min():.4g} to {shares.max():.4g}; "
                'where its last layer makes none, the manifest must say "activation: softmax"'
            )
        for number, share in zip(numbers, shares, strict=True):
            np.clip(share, 0, 1, out=self._probabilities[number][index])

    def _plane(self, values: NDArray[np.float32], labels: NDArray[Any]) -> None:
        """Fill `labels`, one source plane, from (classes, rows, columns) on the model grid, tile by tile."""
        for rows, columns in itertools.product(self._row_tiles, self._column_tiles):
            tile = values[:, rows.taken, columns.taken]
            out = labels[rows.made, columns.made]
            if self.way.regions:
                self._inside(tile, rows.weights, columns.weights, out)
                continue
            kept = candidates(tile, self._rounded)
            if len(kept) == 1:
                out[...] = kept[0]
                continue
            between = self._rounded(_enlarged(tile[kept], rows.weights, columns.weights))
            found = winners(between, labels.dtype).T
            out[...] = found if len(kept) == kept[-1] + 1 else kept.astype(labels.dtype)[found]

    def _inside(
        self, values: NDArray[np.float32], rows: Weights, columns: Weights, out: NDArray[Any]
    ) -> None:
        """Labels of a tile where channels are regions: the last one that is beyond one half."""
        half = 0.5 if self.way.early else 0.0
        out[...] = 0
        for number, region in zip(self.way.regions, values, strict=True):
            if region.max() > half:
                out.T[_enlarged(region[None], rows, columns)[:, 0] > half] = number


@dataclass(frozen=True, kw_only=True, eq=False)
class _Tile:
    """A piece of an axis: the places that are made, those that they are made of, and how."""

    made: slice
    taken: slice
    weights: Weights


def _tiles(weights: Weights, length: int) -> list[_Tile]:
    """An axis of `length` in pieces: few classes are near each, so few have to be interpolated there."""
    tiles = []
    for start in range(0, length, _TILE):
        made = slice(start, min(start + _TILE, length))
        if weights is None:
            tiles.append(_Tile(made=made, taken=made, weights=None))
            continue
        part = weights[made]
        taken = slice(int(part.indices.min()), int(part.indices.max()) + 1)
        tiles.append(_Tile(made=made, taken=taken, weights=part[:, taken].tocsr()))
    return tiles


def sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of logits that exclude nothing."""
    return np.asarray(scipy.special.expit(logits))


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Probabilities of (classes, ...) logits."""
    values: NDArray[np.float32] = logits - logits.max(axis=0)
    np.exp(values, out=values)
    values /= values.sum(axis=0)
    return values


_ACTIVATIONS: Mapping[str, Callable[[NDArray[np.float32]], NDArray[np.float32]]] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "none": np.asarray,
}


def _between(
    slice_at: Callable[[int], NDArray[np.float32]], taps: Sequence[tuple[int, float]]
) -> NDArray[np.float32]:
    """The plane (classes, rows, columns) between slices, as the weighted sum of its neighbours."""
    (first, weight), *rest = taps
    if not rest and weight == 1:
        return slice_at(first)
    plane = slice_at(first) * np.float32(weight)
    for tap, weight in rest:
        plane += slice_at(tap) * np.float32(weight)
    return plane


def _as_it_is(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return values


def _to_half(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rounded to what float16 holds."""
    return values.astype(np.float16).astype(np.float32)


def candidates(values: NDArray[np.float32], rounded: Rounding = _as_it_is) -> NDArray[np.intp]:
    """The classes of (classes, ...) that can win anywhere between the given values, each rounded.

    Interpolated values stay within the range of what they come from, so a class that never reaches
    the smallest value of another one can be left out: the answer is the same.
    """
    flat = values.reshape(len(values), -1)
    return np.flatnonzero(rounded(flat.max(axis=1)) >= rounded(flat.min(axis=1)).max())


def _enlarged(
    values: NDArray[np.float32],
    rows: scipy.sparse.csr_matrix[np.float32] | None,
    columns: scipy.sparse.csr_matrix[np.float32] | None,
) -> NDArray[np.float32]:
    """(classes, rows, columns) interpolated in-plane, as (columns, classes, rows)."""
    count, height, width = values.shape
    if rows is not None:
        tall = np.asarray(rows @ values.transpose(1, 0, 2).reshape(height, count * width))
        height = len(tall)
        values = tall.reshape(height, count, width).transpose(1, 0, 2)
    turned = values.transpose(2, 0, 1)
    if columns is None:
        return turned
    return np.asarray(columns @ turned.reshape(width, count * height)).reshape(-1, count, height)


def winners(values: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Labels (columns, rows): the largest of (columns, classes, rows), the first of equals."""
    best = values[:, 0].copy()
    labels = np.zeros(best.shape, dtype=dtype)
    for index in range(1, values.shape[1]):
        np.copyto(labels, index, where=values[:, index] > best, casting="unsafe")
        np.maximum(best, values[:, index], out=best)
    return labels
