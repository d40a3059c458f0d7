"""The model packages of this installation, each loaded at most once per process and kept warm."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from engines import lineage, loader
from engines import package as model_package
from engines.cascade import Stage
from engines.errors import EngineError, PackageError
from engines.package import ModelPackage
from engines.runner import Runner
from worker import criteria, routing
from worker.errors import CriteriaError

logger = logging.getLogger(__name__)


class Shelf:
    """Every usable package of the configured folders; runners open on first use and stay open.

    A package that is broken is in `problems`, and the others work.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        *,
        engine: Literal["openvino", "onnxruntime"] = "openvino",
        threads: int | None = None,
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
        self._runners: dict[str, Runner] = {}
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

    def runner(self, name: str) -> Runner:
        """The package's runner, opened on first use. Raises EngineError."""
        package = self.package(name)
        with self._lock:
            if name not in self._runners:
                opened = loader.open_runner(package, engine=self._engine, threads=self._threads)
                logger.info("model %s %s is loaded on %s", name, package.manifest.version, opened.description)
                self._runners[name] = opened
            return self._runners[name]

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
            for runner in self._runners.values():
                runner.close()
            self._runners.clear()


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
