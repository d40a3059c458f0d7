"""The model packages of this installation, each loaded once per process and kept warm while there is room."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from engines import lineage
from engines import package as model_package
from engines.cascade import Stage
from engines.errors import EngineError, PackageError, RunnerError
from engines.loader import Engine
from engines.manifest import Manifest
from engines.package import ModelPackage
from engines.runner import Runner
from worker import criteria, routing
from worker.device import Device
from worker.errors import CriteriaError
from worker.placing import Placing
from worker.settings import Settings
from worker.warm import Warm


class Shelf:
    """Every usable package of the configured folders; runners open on first use and stay open.

    Where they need more than `megabytes` together, those that were not used for longest are closed: never one
    that is in use. They run on `device` where there is one and it takes them, else on `engine`; None: nothing takes
    its place. A package that is broken is in `problems`, and the others work.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        engine: Engine | None = "openvino",
        threads: int | None = None,
        megabytes: float | None = None,
        device: Device | None = None,
    ) -> None:
        packages, problems = model_package.discover(folders)
        packages, self._lacking = lineage.complete(packages)
        self.problems: list[EngineError | CriteriaError] = [*problems, *self._lacking.values()]
        self.packages: dict[str, ModelPackage] = {}
        self.rules: dict[str, routing.ModelRule] = {}
        for package in packages:
            try:
                self.rules[package.manifest.name] = _rule(package)
                self.packages[package.manifest.name] = package
            except CriteriaError as error:
                self.problems.append(error)
        self._warm = Warm(megabytes)
        self._placing = Placing(self._warm, engine=engine, threads=threads or os.cpu_count(), device=device)
        self._working = 0
        self._lock = threading.Lock()

    def package(self, name: str) -> ModelPackage:
        """The package with this name. Raises PackageError where there is none, or not all that it needs."""
        if name in self._lacking:
            raise self._lacking[name]
        try:
            return self.packages[name]
        except KeyError:
            known = ", ".join(sorted(self.packages)) or "none"
            raise PackageError(f"there is no usable model {name!r}; usable models: {known}") from None

    @property
    def manifests(self) -> dict[str, Manifest]:
        """Those of the usable packages, by name."""
        return {name: package.manifest for name, package in self.packages.items()}

    def routed(self, settings: Settings) -> list[ModelPackage]:
        """The usable packages that routes name, each after those that it needs."""
        found: dict[str, ModelPackage] = {}
        for name in sorted({name for route in settings.routes for name in route.run} & set(self.packages)):
            self._with_needed(self.packages[name], found)
        return [*found.values()]

    def _with_needed(self, package: ModelPackage, found: dict[str, ModelPackage]) -> None:
        for other in package.manifest.others:
            self._with_needed(self.packages[other.model], found)
        found.setdefault(package.manifest.name, package)

    def runner(self, name: str) -> Runner:
        """The package's runner, opened on first use. Raises EngineError."""
        package = self.package(name)
        with self._lock:
            if self._warm.get(name) is None or name not in self._warm.in_use:
                if self._working:
                    self._warm.in_use.add(name)
                self._placing.place(package)
            return self._warm.used(name).runner

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """What is asked for inside the block stays open to its end, and is closed then where there is no room."""
        with self._lock:
            self._working += 1
        try:
            yield
        finally:
            with self._lock:
                self._working -= 1
                if not self._working:
                    self._warm.in_use.clear()
                    self._placing.end_job()
                    self._warm.make_room(next(reversed(self._warm.names), ""), 0)

    def give_way(self, error: RunnerError) -> bool:
        """The GPU failed the job in hand: what it has there leaves it; whether another attempt is worth it.

        Its stage is to be asked for again.
        """
        with self._lock:
            return self._placing.give_way(error)

    @property
    def device_is_lost(self) -> bool:
        """Whether nothing more can be done on the GPU in this process."""
        device = self._placing.device
        return device is not None and bool(device.lost)

    @property
    def warm(self) -> tuple[str, ...]:
        """The models that are open, those that were not used for longest first."""
        with self._lock:
            return self._warm.names

    @property
    def is_full(self) -> bool:
        """Whether the open models need all that they may."""
        with self._lock:
            return self._warm.is_full

    def stage(self, name: str) -> Stage:
        """The package with its runner and those of the models that it needs; models share what is open.

        Raises EngineError.
        """
        package = self.package(name)
        return Stage(
            package=package,
            runner=self.runner(name),
            earlier={entry.model: self.stage(entry.model) for entry in package.manifest.after},
            members=tuple(self.runner(member.model) for member in package.manifest.ensemble),
        )

    def close(self) -> None:
        """Close every open runner."""
        with self._lock:
            self._warm.close_all()


def find(folders: Sequence[Path], model: str) -> ModelPackage:
    """A package by its folder, or by its name among those in `folders`. Raises PackageError."""
    if (Path(model) / model_package.MANIFEST).exists():
        return model_package.open_package(Path(model))
    return Shelf(folders).package(model)


def holding(
    package: ModelPackage,
    beside: Sequence[Path],
    *,
    engine: Engine | None = "openvino",
    threads: int | None = None,
    device: Device | None = None,
) -> Shelf:
    """A shelf with this package and all that it needs, which is looked for in `beside` and next to it."""
    further = (*beside, package.folder.resolve().parent) if package.manifest.others else ()
    return Shelf((package.folder, *further), engine=engine, threads=threads, device=device)


def input_rules(package: ModelPackage) -> tuple[routing.InputRule, ...]:
    """Which series the package's inputs take. Raises CriteriaError."""
    rules = []
    for position, entry in enumerate(package.manifest.inputs):
        place = f"{package.folder / 'model.yaml'}: inputs[{position}]"
        rules.append(
            routing.InputRule(
                role=entry.called,
                series=criteria.parse(entry.series, f"{place}.series"),
                prefer=tuple(
                    criteria.parse(wish, f"{place}.prefer[{number}]")
                    for number, wish in enumerate(entry.prefer)
                ),
            )
        )
    return tuple(rules)


def _rule(package: ModelPackage) -> routing.ModelRule:
    """What routing must know of a package. Raises CriteriaError."""
    manifest = package.manifest
    return routing.ModelRule(
        name=manifest.name,
        version=manifest.version,
        digest=package.digest,
        inputs=input_rules(package),
        results=manifest.results,
    )
