"""The slices that matter: where each thing that was found is seen best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicom_node import display
from dicom_node.results import boxes
from dicom_node.results.context import ResultContext
from engines.findings import Findings

#: A reader leafs through so many; the Segmentation has them all.
MOST = 8

#: Percentiles shown black and white where the source names no window.
_CONTRAST = (1.0, 99.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class KeySlice:
    """One slice of the source, and what is on it."""

    #: Index along the mask's first axis.
    index: int
    #: Numbers of the segments that have voxels there.
    segments: tuple[int, ...]
    #: Indices of the boxes that touch it.
    boxes: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where one segment is seen best."""

    #: Segment Number.
    segment: int
    #: Index along the mask's first axis.
    index: int


def choose(findings: Findings) -> tuple[KeySlice, ...]:
    """The slices of `best` and those through the middle of boxes, the most certain first; in slice order, each once.

    Together they are `MOST` at most. A single image that something is said of as a whole is shown, too.
    """
    areas, placed = _areas(findings), boxes.placed(findings)
    indices = {place.index for place in _best(findings, areas)}
    for item in placed:
        if len(indices) < MOST:
            indices.add(item.slice)
    if _is_said_of_one_image(findings):
        indices.add(0)
    return tuple(
        KeySlice(
            index=index,
            segments=tuple(int(number) for number in np.flatnonzero(areas[index, 1:]) + 1),
            boxes=tuple(item.index for item in placed if item.first <= index <= item.last),
        )
        for index in sorted(indices)
    )


def _is_said_of_one_image(findings: Findings) -> bool:
    """Whether a single image has classes or values, and nothing that could be drawn on it."""
    said = findings.measurements or findings.findings
    return findings.geometry.shape[0] == 1 and not findings.segments and bool(said)


def best(findings: Findings) -> tuple[Place, ...]:
    """For each segment the slice on which its area is greatest, the segments that matter first.

    Those of findings that are present come first, then the smallest: a lesion says more than a lung.
    Together they are on `MOST` slices at most. Nothing where no voxel is segmented.
    """
    return _best(findings, _areas(findings))


def _best(findings: Findings, areas: NDArray[np.int64]) -> tuple[Place, ...]:
    """`best` of the areas on each slice."""
    found = [number for number in range(1, areas.shape[1]) if areas[:, number].any()]
    wanted = {number for item in findings.findings if item.present for number in item.segment_numbers}
    found.sort(key=lambda number: (number not in wanted, int(areas[:, number].sum())))
    places: list[Place] = []
    for number in found:
        index = int(areas[:, number].argmax())
        slices = {place.index for place in places}
        if index in slices or len(slices) < MOST:
            places.append(Place(segment=number, index=index))
    return tuple(places)


def shown(chosen: tuple[KeySlice, ...]) -> list[int]:
    """Numbers of the segments that are on any of the slices."""
    return sorted({number for slice_ in chosen for number in slice_.segments})


def window(context: ResultContext, index: int) -> tuple[float, float]:
    """Values shown black and white: the source's own window, as a viewer opens it."""
    volume = context.source.volume
    asked = volume.window or display.window(context.source.datasets[index])
    if asked is not None:
        return asked
    low, high = np.percentile(volume.array[index], _CONTRAST)
    return float(low), float(max(high, low + 1))


def _areas(findings: Findings) -> NDArray[np.int64]:
    """(slices, labels 0..N): pixels of each label on each slice."""
    most = len(findings.segments)
    if not most:
        return np.zeros((findings.geometry.shape[0], 1), np.int64)
    return np.stack([np.bincount(plane.ravel(), minlength=most + 1)[: most + 1] for plane in findings.mask])
