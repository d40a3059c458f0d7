"""The model packages of this installation, each loaded once per process and kept warm while there is room."""

from __future__ import annotations

import logging
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engines import lineage, loader
from engines import package as model_package
from engines.cascade import Stage
from engines.errors import EngineError, PackageError
from engines.loader import Engine
from engines.manifest import Manifest
from engines.package import ModelPackage
from engines.runner import Runner
from worker import criteria, machine, routing
from worker.errors import CriteriaError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Warm:
    """An open network."""

    runner: Runner
    #: By how much the process grew when it was opened; no less than its weights.
    size: int


class Shelf:
    """Every usable package of the configured folders; runners open on first use and stay open.

    Where they need more than `megabytes` together, those that were not used for longest are closed: never one
    that is in use. A package that is broken is in `problems`, and the others work.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        engine: Engine = "openvino",
        threads: int | None = None,
        megabytes: float | None = None,
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
        self._engine = engine
        self._threads = threads or os.cpu_count()
        self._most = None if megabytes is None else int(megabytes * 2**20)
        #: Those that were not used for longest first.
        self._warm: OrderedDict[str, _Warm] = OrderedDict()
        #: What each took when it was last opened, for those that were closed.
        self._sizes: dict[str, int] = {}
        self._in_use: set[str] = set()
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

    def runner(self, name: str) -> Runner:
        """The package's runner, opened on first use. Raises EngineError."""
        package = self.package(name)
        with self._lock:
            if self._working:
                self._in_use.add(name)
            if name not in self._warm:
                self._make_room(name, max(self._sizes.get(name, 0), package.weights.stat().st_size))
                self._open(package)
                self._make_room(name, 0)
            self._warm.move_to_end(name)
            return self._warm[name].runner

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
                    self._in_use.clear()
                    self._make_room(next(reversed(self._warm), ""), 0)

    @property
    def warm(self) -> tuple[str, ...]:
        """The models that are open, those that were not used for longest first."""
        with self._lock:
            return tuple(self._warm)

    @property
    def is_full(self) -> bool:
        """Whether the open models need all that they may."""
        with self._lock:
            return self._most is not None and self._size >= self._most

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
            for warm in self._warm.values():
                warm.runner.close()
            self._warm.clear()

    @property
    def _size(self) -> int:
        return sum(warm.size for warm in self._warm.values())

    def _open(self, package: ModelPackage) -> None:
        """Open a package's network, and note what it takes."""
        name, before = package.manifest.name, machine.resident_bytes()
        runner = loader.open_runner(package, engine=self._engine, threads=self._threads)
        # Memory that a closed model left to the process is used again without growing it.
        size = max(machine.resident_bytes() - before, package.weights.stat().st_size)
        self._sizes[name] = max(size, self._sizes.get(name, 0))
        self._warm[name] = _Warm(runner=runner, size=self._sizes[name])
        logger.info(
            "model %s %s is loaded on %s, %.0f MB",
            name,
            package.manifest.version,
            runner.description,
            size / 2**20,
        )

    def _make_room(self, name: str, needed: int) -> None:
        """Close idle models until there is room for `needed` bytes more, or `name` is all that is left."""
        while self._most is not None and self._size + needed > self._most:
            idle = next((each for each in self._warm if each not in self._in_use | {name}), None)
            if idle is None:
                return
            self._warm.pop(idle).runner.close()
            logger.info("model %s is closed: work.models_megabytes is all used", idle)


def find(folders: Sequence[Path], model: str) -> ModelPackage:
    """A package by its folder, or by its name among those in `folders`. Raises PackageError."""
    if (Path(model) / model_package.MANIFEST).exists():
        return model_package.open_package(Path(model))
    return Shelf(folders).package(model)


def holding(
    package: ModelPackage, beside: Sequence[Path], *, engine: Engine = "openvino", threads: int | None = None
) -> Shelf:
    """A shelf with this package and all that it needs, which is looked for in `beside` and next to it."""
    further = (*beside, package.folder.resolve().parent) if package.manifest.others else ()
    return Shelf((package.folder, *further), engine=engine, threads=threads)


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
