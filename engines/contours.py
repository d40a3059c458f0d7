"""The boundary of a region of pixels, along the pixels' own edges: nothing is rounded, smoothed or lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

#: (points, 2): row and column of corners of pixels. (0, 0) is the outer corner of the first pixel.
Line = NDArray[np.int64]

#: What is cut into a line: before which of its points, the order at one place, and the points.
_Cut = tuple[int, int, Line]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Runs:
    """Straight pieces of boundary along the lines of a grid, in the order of line and place."""

    #: Row of horizontal ones, column of vertical ones.
    line: NDArray[np.int64]
    #: Where they begin and end for who walks along them; the region is on the right.
    start: NDArray[np.int64]
    stop: NDArray[np.int64]
    #: Whether the region lies below (of horizontal ones) or right (of vertical ones).
    after: NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class _Edges:
    """The boundary of a region, in pieces, and which piece follows which."""

    #: The region with a frame of one pixel that is not in it.
    framed: NDArray[np.bool_]
    across: _Runs
    down: _Runs
    #: By horizontal piece: the vertical one that follows, and the horizontal one after that.
    turn: NDArray[np.int64]
    next: NDArray[np.int64]


def outlines(region: NDArray[np.bool_]) -> list[Line]:
    """Every closed line between a (rows, columns) region and what is not in it; holes have theirs too.

    A line has only the points at which it turns, and the last leads back to the first. With rows running
    down, the region is on the right of who walks along it. Pixels that touch at a corner are not connected.
    """
    edges = _edges(region)
    return [_points(edges, loop) for loop in _loops(edges)]


def polygons(region: NDArray[np.bool_]) -> list[Line]:
    """The region as closed lines that do not overlap: one for each connected part, its holes cut in.

    From each hole a channel without width runs left along the pixels' edges to the next boundary and back
    (a keyhole), so that the hole is outside the line by whatever rule it is filled.
    """
    edges = _edges(region)
    loops = _loops(edges)
    lines = [_points(edges, loop) for loop in loops]
    if all(edges.across.after[loop[0]] for loop in loops):
        return lines
    place = _places(edges, loops)
    cuts: dict[int, list[_Cut]] = defaultdict(list)
    made = []
    # A hole is cut into what begins above it or on its left: what is cut into itself is known by then.
    for number in reversed(range(len(loops))):
        line = _inserted(lines[number], cuts.pop(number, []))
        if edges.across.after[loops[number][0]]:
            made.append(line)
            continue
        row, column = lines[number][1]  # the hole's upper left corner
        around = np.roll(line, -1, axis=0)
        end = np.array([[row, _next_on_left(edges.framed, row, column)]])
        parent, before = place(end[0])
        # The boundary there runs upwards, since the region is on its right.
        cuts[parent].append((before, -int(row), np.concatenate([end, around, around[:1], end])))
    return [_without_repeats(line) for line in reversed(made)]


def corners(plane: NDArray[Any]) -> int:
    """Points that the `outlines` of all labels of a (rows, columns) label map have: before any line is followed.

    Those of its `polygons` are at most twice as many, since a hole of four corners gets three more.
    """
    framed = np.pad(plane, 1)
    return 2 * (_pieces(framed[1:], framed[:-1]) + _pieces(framed[:-1], framed[1:]))


def lines(plane: NDArray[Any]) -> int:
    """How many `outlines` all labels of a label map have: one for each connected part, one for each hole."""
    there = plane != 0
    below = there[1:] & (plane[1:] == plane[:-1])
    beside = there[:, 1:] & (plane[:, 1:] == plane[:, :-1])
    # Between the pixels stands whether they are of one part.
    linked = np.zeros((2 * plane.shape[0] - 1, 2 * plane.shape[1] - 1), bool)
    linked[::2, ::2], linked[1::2, ::2], linked[::2, 1::2] = there, below, beside
    parts = int(ndimage.label(linked)[1])
    # Euler: parts without holes are as many as pixels, less their links, and the squares that links enclose.
    squares = below[:, 1:] & below[:, :-1] & beside[1:]
    counted = [int(np.count_nonzero(each)) for each in (there, below, beside, squares)]
    holes = parts - (counted[0] - counted[1] - counted[2] + counted[3])
    return parts + holes


def _pieces(own: NDArray[Any], other: NDArray[Any]) -> int:
    """How many straight horizontal pieces of boundary the labels of rows have towards other rows beside them."""
    edge = (own != other) & (own != 0)
    goes_on = edge[:, 1:] & edge[:, :-1] & (own[:, 1:] == own[:, :-1])
    return int(np.count_nonzero(edge) - np.count_nonzero(goes_on))


def _edges(region: NDArray[np.bool_]) -> _Edges:
    """The pieces of boundary of a region, linked.

    Where pixels touch at a corner, two lines meet: each turns right, and stays at its pixel.
    """
    framed = np.pad(region, 1)
    across, down = _runs(framed, forward=True), _runs(framed.T, forward=False)
    width = framed.shape[1]
    to_right, to_bottom = across.after, ~down.after
    turn = _linked(
        (across.line * width + across.stop) * 2 + to_right, (down.start * width + down.line) * 2 + to_bottom
    )
    back = _linked(
        (down.stop * width + down.line) * 2 + ~to_bottom, (across.line * width + across.start) * 2 + to_right
    )
    return _Edges(framed=framed, across=across, down=down, turn=turn, next=back[turn])


def _runs(framed: NDArray[np.bool_], *, forward: bool) -> _Runs:
    """The pieces along the first axis' lines; `forward`: walked towards higher places where the region is after."""
    side = framed[1:].astype(np.int8) - framed[:-1]
    change = side[:, 1:] != side[:, :-1]
    line, low = np.nonzero(change & (side[:, 1:] != 0))
    _, high = np.nonzero(change & (side[:, :-1] != 0))
    after = side[line, low + 1] > 0
    ahead = after == forward
    return _Runs(line=line, start=np.where(ahead, low, high), stop=np.where(ahead, high, low), after=after)


def _linked(ends: NDArray[np.int64], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each end the start at the same key's rank: at each corner as many end as start."""
    linked = np.empty(len(ends), np.int64)
    linked[np.argsort(ends)] = np.argsort(starts)
    return linked


def _loops(edges: _Edges) -> list[list[int]]:
    """The horizontal pieces of each closed line, from its uppermost and of those its leftmost one."""
    following: list[int] = edges.next.tolist()
    seen = bytearray(len(following))
    loops = []
    for first in range(len(following)):
        if seen[first]:
            continue
        loop, piece = [], first
        while not seen[piece]:
            seen[piece] = 1
            loop.append(piece)
            piece = following[piece]
        loops.append(loop)
    return loops


def _points(edges: _Edges, loop: Sequence[int]) -> Line:
    """The corners of a closed line: start and end of each horizontal piece."""
    runs, pieces = edges.across, np.array(loop)
    line = np.empty((len(loop), 2, 2), np.int64)
    line[..., 0] = runs.line[pieces, None]
    line[:, 0, 1], line[:, 1, 1] = runs.start[pieces], runs.stop[pieces]
    return line.reshape(-1, 2)


def _places(edges: _Edges, loops: Sequence[Sequence[int]]) -> Callable[[NDArray[np.int64]], tuple[int, int]]:
    """A function from a point on a vertical piece to its closed line and the line's point that comes next."""
    down, height = edges.down, edges.framed.shape[0]
    keys = down.line * height + np.minimum(down.start, down.stop)
    number, rank, before = (np.empty(len(edges.turn), np.int64) for _ in range(3))
    before[edges.turn] = np.arange(len(edges.turn))
    for index, loop in enumerate(loops):
        number[loop], rank[loop] = index, np.arange(len(loop))

    def place(point: NDArray[np.int64]) -> tuple[int, int]:
        piece = before[np.searchsorted(keys, point[1] * height + point[0], side="right") - 1]
        return int(number[piece]), 2 * int(rank[piece]) + 2

    return place


def _next_on_left(framed: NDArray[np.bool_], row: int, column: int) -> int:
    """The column in which the boundary is next met, from inside the region to the left along a row of corners."""
    inside = framed[row, : column + 1] & framed[row + 1, : column + 1]
    return int(np.flatnonzero(~inside)[-1])


def _inserted(line: Line, cuts: Sequence[_Cut]) -> Line:
    """The line with what is cut into it."""
    pieces, done = [], 0
    for before, _, points in sorted(cuts, key=lambda cut: cut[:2]):
        pieces += [line[done:before], points]
        done = before
    return np.concatenate([*pieces, line[done:]])


def _without_repeats(line: Line) -> Line:
    """The line without points that are where the one before them is."""
    kept: Line = line[(line != np.roll(line, 1, axis=0)).any(axis=1)]
    return kept
