"""Which pixels lines enclose: how the gates read outlines back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]


def by_parity(lines: Sequence[Points], shape: tuple[int, ...]) -> NDArray[np.bool_]:
    """Which of (rows, columns) pixels lie right of an odd number of lines.

    Each line leads from point to point, (points, 2) as row and column, whole at the centres of pixels. Lines that
    are closed, together, enclose the same pixels as seen from any side.
    """
    begin = np.concatenate([line[:-1] for line in lines])
    end = np.concatenate([line[1:] for line in lines])
    low = np.clip(np.ceil(np.minimum(begin[:, 0], end[:, 0])), 0, shape[0]).astype(np.int64)
    high = np.clip(np.ceil(np.maximum(begin[:, 0], end[:, 0])), 0, shape[0]).astype(np.int64)
    step = np.repeat(np.arange(len(begin)), high - low)
    rows = np.arange(len(step)) - np.repeat(np.cumsum(high - low) - (high - low), high - low) + low[step]
    slope = (end[step, 1] - begin[step, 1]) / (end[step, 0] - begin[step, 0])
    columns = np.ceil(begin[step, 1] + (rows - begin[step, 0]) * slope)
    crossed = np.zeros((shape[0], shape[1] + 1), dtype=np.int64)
    np.add.at(crossed, (rows, np.clip(columns, 0, shape[1]).astype(np.int64)), 1)
    return np.asarray(np.cumsum(crossed, axis=1)[:, :-1] % 2 == 1)


def closed(line: Points) -> Points:
    """The line with its first point at its end, too."""
    return np.concatenate([line, line[:1]])


def area(line: Points) -> float:
    """What a closed line encloses, in pixels; the channels to its holes enclose nothing."""
    row, column = line[:, 0], line[:, 1]
    return abs(float(np.dot(row, np.roll(column, -1)) - np.dot(np.roll(row, -1), column))) / 2
