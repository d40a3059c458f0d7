"""What earlier models' answers give to a model: where to look, and channels beside those of the images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import grids, label_shares, labels, preprocess
from engines.answer import Answer
from engines.errors import VolumeError
from engines.findings import Box
from engines.fusion import Seen
from engines.manifest_inputs import Input
from engines.manifest_stages import LabelChannels
from engines.volume import Geometry, Point, Region, Scale, Volume

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
    part: Region | None = None
    channels: tuple[LabelMap, ...] = ()

    def cut(self, volume: Volume) -> Volume:
        """The part of the volume that is to be looked at (a view), each voxel where it was in the patient."""
        return volume if self.part is None else volume.within(self.part)

    def cut_others(self, others: Mapping[str, Volume], grid: Geometry) -> Mapping[str, Volume]:
        """The further series; of those on the very `grid` of the first, the same part."""
        return others if self.part is None else _Cut(others, self, grid)

    @property
    def labelled(self) -> NDArray[np.bool_] | None:
        """Where in the part an earlier model found something; None where no channel tells the body from the rest."""
        masks = [given.mask[self.part or ...] != 0 for given in self.channels if given.use.nonzero]
        return np.logical_or.reduce(masks) if masks else None

    def beside(self, seen: Seen, volume: Volume, entry: Input, *, threads: int = 1) -> Seen:
        """What the network sees of `volume`, the part that `cut` gave, with the labels' channels added.

        `entry` is the model's first input.
        """
        if not self.channels:
            return seen
        arrays = dict(seen.arrays)
        for given in self.channels:
            whole = Volume(array=given.mask[self.part or ...], geometry=volume.geometry)
            source = preprocess.turn(whole, entry).within(seen.region)
            made = _channels(given, source, seen, entry, threads=threads)
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


class _Cut(Mapping[str, Volume]):
    """Further series, each cut as it is asked for."""

    def __init__(self, others: Mapping[str, Volume], given: Given, grid: Geometry) -> None:
        self._others, self._given, self._grid = others, given, grid

    def __getitem__(self, role: str) -> Volume:
        found = self._others[role]
        return self._given.cut(found) if found.geometry.agrees_with(self._grid) else found

    def __contains__(self, role: object) -> bool:
        return role in self._others

    def __iter__(self) -> Iterator[str]:
        return iter(self._others)

    def __len__(self) -> int:
        return len(self._others)


NOTHING = Given()


def wanted_part(
    mask: NDArray[Any], numbers: Sequence[int], geometry: Geometry, *, margin_mm: float, min_slices: int
) -> Region | None:
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


def _channels(
    given: LabelMap, source: Volume, seen: Seen, entry: Input, *, threads: int
) -> NDArray[np.float32]:
    """The labels of `source` as (channels, slices, rows, columns) on the model grid; 0 in its padding."""
    grid = seen.geometry.within(seen.inner)
    if given.use.splines is None:
        found = _nearest(source, grid, given.numbers)
    else:
        found = label_shares.resample(
            source,
            grid,
            given.use.splines,
            spacing_mm=grids.asked_spacing(source.geometry, entry),
            body=seen.body if given.use.nonzero else None,
            threads=threads,
        )
        found = np.where(np.isin(found, given.numbers), found, 0)
    count = given.use.count
    made = np.zeros((count, *seen.geometry.shape), np.float32)
    inner = made[(slice(None), *seen.inner)]
    for channel in range(count):
        inner[channel] = found == given.numbers[channel] if given.use.encoding == "one-hot" else found
    return made


def _nearest(source: Volume, grid: Geometry, numbers: Sequence[int]) -> NDArray[Any]:
    """The label of the voxel that holds each voxel's centre; 0 where it is none of `numbers`."""
    # Continuous indices of the source, one for each voxel of the grid along each axis: both axes run alike.
    between = np.linalg.inv(source.geometry.affine) @ grid.affine
    taken = [
        # Between two voxels the upper one, as elsewhere, and never as noise in an affine has it.
        np.clip(
            np.floor(between[axis, axis] * np.arange(n) + between[axis, 3] + 0.5 + _ROUNDING), 0, most - 1
        )
        for axis, (n, most) in enumerate(zip(grid.shape, source.array.shape, strict=True))
    ]
    found = source.array[np.ix_(*(places.astype(np.intp) for places in taken))]
    return np.where(np.isin(found, numbers), found, 0)
