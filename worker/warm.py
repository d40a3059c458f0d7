"""The open networks of one process, kept while there is room for them."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from engines.package import ModelPackage
from engines.runner import Runner
from worker import machine

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Network:
    """An open network."""

    package: ModelPackage
    runner: Runner
    #: By how much the process grew when it was opened; no less than its weights.
    size: int
    #: As the runner calls itself.
    description: str
    #: Bytes of the GPU's memory that it was to take; None on the CPU.
    admitted: int | None

    @property
    def on_device(self) -> bool:
        """Whether it is on the GPU."""
        return self.admitted is not None

    @property
    def device_size(self) -> int:
        """Bytes of the GPU's memory that it takes: more than when it was opened, once it has made labels there."""
        return max(self.runner.device_bytes, self.admitted) if self.admitted is not None else 0


class Warm:
    """Open networks by model, those that were not used for longest first.

    Where they need more than `megabytes` together, those that were not used for longest are closed: never one that
    is in use. Not for several threads.
    """

    def __init__(self, megabytes: float | None = None) -> None:
        self._most = None if megabytes is None else int(megabytes * 2**20)
        self._open: OrderedDict[str, Network] = OrderedDict()
        #: What each took when it was last opened, for those that were closed.
        self._sizes: dict[str, int] = {}
        #: Models that the jobs at work asked for.
        self.in_use: set[str] = set()

    def get(self, name: str) -> Network | None:
        """The model's network, where it is open."""
        return self._open.get(name)

    def used(self, name: str) -> Network:
        """The model's network, which is used now. Raises KeyError where it is not open."""
        self._open.move_to_end(name)
        return self._open[name]

    def open(
        self, package: ModelPackage, open_runner: Callable[[], Runner], *, on_device: int | None = None
    ) -> None:
        """Open a package's network, close what there is no room for beside it, and keep it.

        `on_device`: bytes of the GPU's memory that it needs there; its runtime may know better. Another one of the
        same package, which it takes the place of, is closed. Raises what `open_runner` raises.
        """
        name, least = package.manifest.name, package.weights.stat().st_size
        if name not in self._open:
            self.make_room(name, max(self._sizes.get(name, 0), least))
        before = machine.resident_bytes()
        runner = open_runner()
        # Memory that a closed model left to the process is used again without growing it.
        size = max(machine.resident_bytes() - before, least)
        self._sizes[name] = max(size, self._sizes.get(name, 0))
        if name in self._open:
            self.close(name, f"it runs on {runner.description} now")
        self._open[name] = Network(
            package=package,
            runner=runner,
            size=self._sizes[name],
            description=runner.description,
            admitted=on_device,
        )
        logger.info(
            "model %s %s is loaded on %s, %.0f MB",
            name,
            package.manifest.version,
            runner.description,
            size / 2**20,
        )
        self.make_room(name, 0)

    def make_room(self, name: str, needed: int) -> None:
        """Close idle models until there is room for `needed` bytes more, or `name` is all that is left."""
        while self._most is not None and self.size + needed > self._most:
            idle = next((each for each in self._open if each not in self.in_use | {name}), None)
            if idle is None:
                return
            self.close(idle, "work.models_megabytes is all used")

    def close(self, name: str, why: str) -> None:
        """Close one."""
        self._open.pop(name).runner.close()
        logger.info("model %s is closed: %s", name, why)

    def close_all(self) -> None:
        """Close every one."""
        for network in self._open.values():
            network.runner.close()
        self._open.clear()

    @property
    def names(self) -> tuple[str, ...]:
        """The models that are open, those that were not used for longest first."""
        return tuple(self._open)

    @property
    def on_device(self) -> tuple[str, ...]:
        """Those of them that are on a GPU."""
        return tuple(name for name, network in self._open.items() if network.on_device)

    @property
    def size(self) -> int:
        """Bytes of this process' memory that they take."""
        return sum(network.size for network in self._open.values())

    @property
    def device_size(self) -> int:
        """Bytes of the GPU's memory that they take."""
        return sum(network.device_size for network in self._open.values())

    @property
    def is_full(self) -> bool:
        """Whether they need all that they may."""
        return self._most is not None and self.size >= self._most
