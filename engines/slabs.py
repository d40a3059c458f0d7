"""A volume in pieces of a few slices, and threads that work through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from numpy.typing import NDArray

#: Slices that one thread works on at a time.
SLAB = 8


def spread(work: Callable[[int], None], starts: Iterable[int], *, threads: int) -> None:
    """Call `work` for each start on `threads` threads; the first error is raised here."""
    if threads <= 1:
        for start in starts:
            work(start)
        return
    with ThreadPoolExecutor(max_workers=threads, thread_name_prefix="engine") as pool:
        for _ in pool.map(work, starts):
            pass


def spread_with_halo(
    work: Callable[[NDArray[Any]], NDArray[Any]],
    array: NDArray[Any],
    made: NDArray[Any],
    *,
    halo: int,
    threads: int,
) -> None:
    """Fill `made` with what `work` makes of `array`, whose result for a slice depends on `halo` more on each side.

    `work` is called with pieces, and what it makes of their outer slices is dropped: the answer is that for the
    whole array, whatever the threads.
    """
    step = max(SLAB, 2 * halo)

    def fill(start: int) -> None:
        first, end = max(0, start - halo), min(len(array), start + step)
        part = work(array[first : end + halo])
        made[start:end] = part[start - first : end - first]

    spread(fill, range(0, len(array), step), threads=threads)
