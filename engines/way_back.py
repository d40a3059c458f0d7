"""How values on the model's grid become labels on the source's: what is interpolated, and how along each axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.sparse

from engines import lattice
from engines.resampling import axis_weights

#: Interpolation along one axis; None where nothing changes.
Weights = scipy.sparse.csr_matrix | None


@dataclass(frozen=True, kw_only=True, eq=False)
class WayBack:
    """From the model's grid to the source's."""

    #: Slices of the model's grid, and the shape of the source's, in the model's axes.
    slices: int
    wanted: tuple[int, int, int]
    along: Weights
    rows: Weights
    columns: Weights
    activation: str
    #: Whether probabilities are made before values are interpolated.
    early: bool
    #: What each channel stands for, where they are regions of which the last one wins that is beyond one half.
    regions: tuple[int, ...]
    #: Whether interpolated values are rounded to float16 before they are compared.
    halves: bool

    @classmethod
    def to(
        cls,
        wanted: Sequence[int],
        shape: tuple[int, int, int],
        *,
        activation: str,
        interpolate: str,
        steps: Sequence[float | None],
        matrices: Sequence[Weights] | None,
        numbers: Sequence[int],
        probabilities: bool,
        halves: bool,
    ) -> WayBack:
        """The way from a grid of `shape` to one of `wanted`; see `postprocess.Backward` for the rest."""
        # No anti-aliasing: a label belongs to a voxel's centre, and a thin structure must not fade.
        along, rows, columns = matrices or [
            _weights(own, length, step, nearest=interpolate == "labels")
            for own, length, step in zip(shape, wanted, steps, strict=True)
        ]
        unchanged = along is None and rows is None and columns is None
        # Where labels are what is brought over, only the order of the values matters.
        needed = interpolate == "probabilities" or (interpolate == "labels" and probabilities)
        return cls(
            slices=shape[0],
            wanted=(wanted[0], wanted[1], wanted[2]),
            along=along,
            rows=rows,
            columns=columns,
            activation=activation,
            early=needed and not unchanged,
            regions=tuple(numbers) if activation == "sigmoid" else (),
            halves=halves,
        )

    def taps(self, index: int) -> list[tuple[int, float]]:
        """The model slices that source slice `index` lies between, and their weights."""
        if self.along is None:
            return [(index, 1.0)]
        begin, end = self.along.indptr[index], self.along.indptr[index + 1]
        return list(
            zip(self.along.indices[begin:end].tolist(), self.along.data[begin:end].tolist(), strict=True)
        )

    def ready(self, first: int, stop: int) -> int:
        """How many source slices need no model slice at or after `stop`; it is known of `first`."""
        if stop == self.slices:
            return self.wanted[0]
        ready = first
        while ready < self.wanted[0] and max(tap for tap, _ in self.taps(ready)) < stop:
            ready += 1
        return ready


def _weights(
    own: int, wanted: int, step: float | None, *, nearest: bool
) -> scipy.sparse.csr_matrix[np.float32] | None:
    """From the model's voxels to the source's along one axis; `step` is the other way, as preprocessing has it."""
    inverse = None if step is None else 1 / step
    if nearest:
        # One value of weight 1 for each voxel: the largest there is the nearest voxel's label.
        return lattice.nearest(own, wanted, inverse)
    if inverse is None:
        return axis_weights(own, wanted, antialias=False)
    return lattice.linear(own, wanted, inverse)
