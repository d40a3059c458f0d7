"""Seconds per stage of a job."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager


class Stopwatch:
    """Adds up the seconds of named stages."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block as part of `stage`, also where it raises."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add({stage: time.monotonic() - started})

    def add(self, seconds: Mapping[str, float]) -> None:
        """Add what was timed elsewhere."""
        for stage, value in seconds.items():
            self.seconds[stage] = round(self.seconds.get(stage, 0.0) + value, 4)
