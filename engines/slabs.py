"""A volume in pieces of a few slices, and threads that work through them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

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
