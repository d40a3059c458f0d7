"""What earlier models' answers give to a model: where to look, and channels beside those of the images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from engines import labels
from engines.answer import Answer
from engines.diameter import Point
from engines.errors import VolumeError
from engines.findings import Box
from engines.fusion import Seen
from engines.manifest_stages import LabelChannels
from engines.volume import Geometry, Scale, Volume

#: First and one-past-last index along each axis.
Part = tuple[slice, slice, slice]

#: Noise in an affine, in voxels, that must not decide anything.
_ROUNDING = 1e-4


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelMap:
    """An earlier model's labels on the grid of a volume, and how they become channels."""

    use: LabelChannels
    mask: NDArray[Any]
    #: Their numbers in the mask, in the order in which `use` lists them.
    numbers: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Given:
    """What a model is given beside its images; nothing where none goes before it."""

    #: Where to look, on the volume's grid; None: everywhere.
    part: Part | None = None
    channels: tuple[LabelMap, ...] = ()

    def cut(self, volume: Volume) -> Volume:
        """The part of the volume that is to be looked at (a view), each voxel where it was in the patient."""
        if self.part is None:
            return volume
        array = volume.array[self.part]
        corner = np.array([axis.start for axis in self.part], dtype=np.float64)
        affine = volume.geometry.affine.copy()
        affine[:3, 3] = volume.geometry.to_patient(corner)
        shape = (array.shape[0], array.shape[1], array.shape[2])
        return replace(volume, array=array, geometry=replace(volume.geometry, shape=shape, affine=affine))

    def beside(self, seen: Seen, volume: Volume) -> Seen:
        """What the network sees of `volume`, the part that `cut` gave, with the labels' channels added."""
        if not self.channels:
            return seen
        arrays = dict(seen.arrays)
        for given in self.channels:
            own = Volume(array=given.mask[self.part or ...], geometry=volume.geometry)
            turned = own.reoriented(seen.geometry.orientation) if own.geometry.in_patient else own
            made = _channels(given, turned.geometry, turned.array, seen.geometry)
            images = arrays.get(given.use.name)
            arrays[given.use.name] = made if images is None else np.concatenate([images, made])
        return replace(seen, arrays=arrays)

    def back(self, answer: Answer, geometry: Geometry) -> Answer:
        """What was answered about the part, on the grid of the whole; outside it there is nothing."""
        if self.part is None:
            return answer
        return replace(
            answer,
            mask=None if answer.mask is None else self._placed(answer.mask, geometry),
            maps=tuple(replace(item, array=self._placed(item.array, geometry)) for item in answer.maps),
            boxes=tuple(self._moved(box) for box in answer.boxes),
        )

    def _placed(self, array: NDArray[Any], geometry: Geometry) -> NDArray[Any]:
        whole = np.zeros(geometry.shape, array.dtype)
        whole[self.part or ...] = array
        return whole

    def _moved(self, box: Box) -> Box:
        return replace(box, low=self._point(box.low), high=self._point(box.high))

    def _point(self, point: Point) -> Point:
        slices, rows, columns = self.part or (slice(0), slice(0), slice(0))
        return (point[0] + slices.start, point[1] + rows.start, point[2] + columns.start)


NOTHING = Given()


def wanted_part(
    mask: NDArray[Any], numbers: Sequence[int], geometry: Geometry, *, margin_mm: float, min_slices: int
) -> Part | None:
    """The box around the labels with these numbers, with a margin; None where the mask holds none of them.

    It has at least `min_slices` slices, where the image has so many.
    Raises VolumeError where the margin's millimetres mean nothing to the image.
    """
    extent = labels.extents(mask, np.isin(np.arange(np.iinfo(mask.dtype).max + 1), numbers))
    if extent is None:
        return None
    if margin_mm and geometry.scale is Scale.NONE:
        raise VolumeError("the image does not say how large its pixels are, and the margin is in millimetres")
    margins = [math.ceil(margin_mm / length - _ROUNDING) for length in geometry.spacing]
    slices, rows, columns = (
        _within(first - margin, last + 1 + margin, length, fewest)
        for (first, last), margin, length, fewest in zip(
            extent, margins, geometry.shape, (min_slices, 1, 1), strict=True
        )
    )
    return (slices, rows, columns)


def _within(first: int, end: int, length: int, fewest: int) -> slice:
    """[first, end) as far as it lies in [0, length), widened evenly to `fewest` where there are so many."""
    first, end, fewest = max(0, first), min(length, end), min(fewest, length)
    if end - first < fewest:
        first = min(max(0, first - (fewest - (end - first)) // 2), length - fewest)
        end = first + fewest
    return slice(first, end)


def _channels(given: LabelMap, source: Geometry, mask: NDArray[Any], grid: Geometry) -> NDArray[np.float32]:
    """The labels of `mask`, which lies on `source`, as (channels, ...) on `grid`, whose axes run alike."""
    # Continuous indices of the source along each axis, one for each voxel of the grid.
    between = np.linalg.inv(source.affine) @ grid.affine
    places = [between[axis, axis] * np.arange(n) + between[axis, 3] for axis, n in enumerate(grid.shape)]
    brought = _nearest if given.use.interpolate == "nearest" else _linear
    found = brought(mask, places, given.numbers)
    if given.use.encoding == "numbers":
        return found[None].astype(np.float32)
    return np.stack([found == number for number in given.numbers]).astype(np.float32)


def _nearest(
    mask: NDArray[Any], places: Sequence[NDArray[np.float64]], numbers: Sequence[int]
) -> NDArray[Any]:
    """The label of the voxel that holds each place; 0 where it is none of `numbers`."""
    taken = [
        # Between two voxels the upper one, as elsewhere, and never as noise in an affine has it.
        np.clip(np.floor(place + 0.5 + _ROUNDING), 0, length - 1).astype(np.intp)
        for place, length in zip(places, mask.shape, strict=True)
    ]
    found = mask[np.ix_(*taken)]
    return np.where(np.isin(found, numbers), found, 0)


def _linear(
    mask: NDArray[Any], places: Sequence[NDArray[np.float64]], numbers: Sequence[int]
) -> NDArray[Any]:
    """The last of `numbers` whose own linear interpolant is at least one half at a place; 0 where none is."""
    along, rows, columns = (_hats(place, length) for place, length in zip(places, mask.shape, strict=True))
    shape = (len(places[0]), len(places[1]), len(places[2]))
    found = np.zeros(shape, mask.dtype)
    for number in numbers:
        flat = np.empty((mask.shape[0], *shape[1:]), np.float32)
        for index, plane in enumerate(mask):
            flat[index] = (columns @ (rows @ (plane == number).astype(np.float32)).T).T
        shares = np.asarray(along @ flat.reshape(len(flat), -1)).reshape(shape)
        found[shares >= 0.5 - _ROUNDING] = number
    return found


def _hats(places: NDArray[np.float64], length: int) -> scipy.sparse.csr_matrix[np.float32]:
    """Linear interpolation at `places` as a matrix; beyond the first and last centre the edge value holds."""
    inside = np.clip(places, 0, length - 1)
    below = np.minimum(np.floor(inside), max(length - 2, 0)).astype(np.intp)
    share = (inside - below).astype(np.float32)
    each = np.arange(len(places))
    matrix = scipy.sparse.coo_matrix(
        (
            np.concatenate([1 - share, share]),
            (np.tile(each, 2), np.concatenate([below, np.minimum(below + 1, length - 1)])),
        ),
        shape=(len(places), length),
    )
    return matrix.tocsr()
