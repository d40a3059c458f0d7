"""The slices that matter: where each thing that was found is seen best."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicom_node import elements
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


def choose(findings: Findings) -> tuple[KeySlice, ...]:
    """For each segment the slice on which its area is greatest, in slice order, each slice once.

    Where that would be more than `MOST`, the segments of findings that are present come first, then the
    smallest: a lesion says more than a lung. Nothing where no voxel is segmented.
    """
    areas = _areas(findings)
    found = [number for number in range(1, areas.shape[1]) if areas[:, number].any()]
    wanted = {number for item in findings.findings if item.present for number in item.segment_numbers}
    found.sort(key=lambda number: (number not in wanted, int(areas[:, number].sum())))
    best: list[int] = []
    for number in found:
        index = int(areas[:, number].argmax())
        if index not in best and len(best) < MOST:
            best.append(index)
    return tuple(
        KeySlice(index=index, segments=tuple(int(number) for number in np.flatnonzero(areas[index, 1:]) + 1))
        for index in sorted(best)
    )


def shown(chosen: tuple[KeySlice, ...]) -> list[int]:
    """Numbers of the segments that are on any of the slices."""
    return sorted({number for slice_ in chosen for number in slice_.segments})


def window(context: ResultContext, index: int) -> tuple[float, float]:
    """Values shown black and white: the source's first window (PS3.3 C.11.2.1.2), as a viewer opens it."""
    image = context.source.datasets[index]
    centres, widths = (elements.value(image, f"Window{part}") for part in ("Center", "Width"))
    try:
        centre, width = (float(np.ravel(value)[0]) for value in (centres, widths))
    except (TypeError, ValueError, IndexError):
        centre, width = np.nan, np.nan
    if np.isfinite([centre, width]).all() and width >= 1:
        return centre - width / 2, centre + width / 2
    low, high = np.percentile(context.source.volume.array[index], _CONTRAST)
    return float(low), float(max(high, low + 1))


def _areas(findings: Findings) -> NDArray[np.int64]:
    """(slices, labels 0..N): pixels of each label on each slice."""
    most = len(findings.segments)
    return np.stack([np.bincount(plane.ravel(), minlength=most + 1)[: most + 1] for plane in findings.mask])
