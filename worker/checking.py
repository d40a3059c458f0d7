"""Everything that is asked of a package before it may be routed: its own models, every engine, its example."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from engines.errors import EngineError
from engines.importing import package_writer
from engines.package import ModelPackage
from worker import golden, parity, shelf
from worker.golden import ExampleVerdict
from worker.parity import Verdict


@dataclass(frozen=True, kw_only=True)
class Checked:
    """What came of it."""

    #: None where a network cannot be run at all.
    verdict: Verdict | None = None
    examples: tuple[ExampleVerdict, ...] = ()
    #: In words, each naming the package or one of its files; empty where it is right.
    problems: tuple[str, ...] = ()


def check(package: ModelPackage, *, beside: Sequence[Path] = (), threads: int | None = None) -> Checked:
    """Check one package; the models that it needs are looked for in `beside` and next to it."""
    try:
        with closing(shelf.holding(package, beside)) as held:
            # Raises where a model that it needs is not there, or another.
            held.package(package.manifest.name)
        verdict = parity.compare(package)
        examples = golden.check(package, beside=beside, threads=threads)
    except EngineError as error:
        said = str(error)
        named = said if str(package.folder) in said else f"{package.folder}: {said}"
        return Checked(problems=(named, *package_writer.unfinished(package.folder)))
    return Checked(
        verdict=verdict, examples=tuple(examples), problems=tuple(_problems(package, verdict, examples))
    )


def _problems(package: ModelPackage, verdict: Verdict, examples: Sequence[ExampleVerdict]) -> list[str]:
    """What is wrong, in words."""
    name = package.manifest.name
    found = [
        f"{name}: its example, on {each.engine}: {difference}"
        for each in examples
        for difference in each.differences
    ]
    if not verdict.agrees:
        found.append(f"{name}: {verdict.engine} does not agree with the reference")
    return [*found, *package_writer.unfinished(package.folder)]
