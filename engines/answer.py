"""What a task is given, and what it answers: the seam between `predict` and one file for each task."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from engines.findings import Box, Finding, Map, Measurement
from engines.fusion import Seen
from engines.package import ModelPackage
from engines.runner import Runner
from engines.volume import Volume
from engines.window_sums import Slab


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    """One image before one open network."""

    package: ModelPackage
    runner: Runner
    #: The other networks of an ensemble, each of which sees what `runner` sees.
    members: tuple[Runner, ...] = ()
    #: The first input's series, as it came: what is answered lies on its grid.
    volume: Volume
    seen: Seen
    #: Inputs of the graph that are no image, by name.
    prompts: Mapping[str, NDArray[Any]]
    clock: Clock
    #: Called with a growing fraction of the inference.
    report: Callable[[float], None]
    threads: int


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What a task makes of a case; what it does not speak of stays empty."""

    #: Label map on the volume's grid; None where there are no labels.
    mask: NDArray[Any] | None = None
    maps: tuple[Map, ...] = ()
    boxes: tuple[Box, ...] = ()
    image: Volume | None = None
    #: What the network itself estimates.
    measurements: tuple[Measurement, ...] = ()
    #: What it states of itself, beside the manifest's rules.
    findings: tuple[Finding, ...] = ()


class Clock:
    """Adds up the seconds of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time the block."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - began

    def each(self, name: str, slabs: Iterator[Slab]) -> Iterator[Slab]:
        """Time what an iterator does to make its items, not what is done with them."""
        while True:
            with self.stage(name):
                slab = next(slabs, None)
            if slab is None:
                return
            yield slab
