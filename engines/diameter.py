"""The longest diameter of a region on any slice, as a reader with a caliper would measure it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.spatial
from numpy.typing import NDArray

from engines.volume import Point


@dataclass(frozen=True, kw_only=True, slots=True)
class Diameter:
    """Two points of one slice, and how far they are apart."""

    ends: tuple[Point, Point]
    mm: float


def longest(region: NDArray[np.bool_], spacing: tuple[float, float, float]) -> Diameter | None:
    """The longest straight line between two points on the edge of `region` (slice, row, column) on one slice.

    `spacing` is in mm along the same axes. The edge runs through the middles of the sides of the outermost
    pixels, as in pyradiomics' Maximum2DDiameterSlice (marching squares at 0.5): one pixel is as long as it
    is. Of equal ones the first; None where the region is empty.
    """
    best: Diameter | None = None
    for index in np.flatnonzero(region.any(axis=(1, 2))):
        edge = _edge(region[index])
        scale = np.array(spacing[1:])
        reach = float(np.hypot(*((edge.max(axis=0) - edge.min(axis=0)) * scale)))
        if best is None or reach > best.mm:
            found = _farthest(edge, scale, int(index))
            best = found if best is None or found.mm > best.mm else best
    return best


def _edge(plane: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(points, 2) rows and columns: where each row and each column of the region begins and ends."""
    ends = []
    for axis in (0, 1):
        lines = np.flatnonzero(plane.any(axis=1 - axis))
        along = plane[lines] if axis == 0 else plane[:, lines].T
        first = along.argmax(axis=1) - 0.5
        last = along.shape[1] - along[:, ::-1].argmax(axis=1) - 0.5
        for places in (first, last):
            ends.append(np.stack([lines, places] if axis == 0 else [places, lines], axis=1))
    return np.concatenate(ends).astype(np.float64)


def _farthest(edge: NDArray[np.float64], scale: NDArray[np.float64], index: int) -> Diameter:
    """The two points that are farthest apart; both are corners of the convex hull."""
    corners = edge[np.sort(scipy.spatial.ConvexHull(edge * scale).vertices)]
    away = np.linalg.norm((corners[:, None] - corners[None]) * scale, axis=2)
    first, second = np.unravel_index(int(away.argmax()), away.shape)
    points = [(float(index), float(corners[i][0]), float(corners[i][1])) for i in (first, second)]
    return Diameter(ends=(points[0], points[1]), mm=float(away[first, second]))
