"""Does a package give the answer of its own example, on every engine; and how an example is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from pydantic import BaseModel

from engines import cascade, example, golden, loader
from engines.answer import Clock
from engines.cascade import Stage
from engines.errors import EngineError
from engines.example import Example, Expected
from engines.findings import Findings
from engines.loader import Engine
from engines.package import ModelPackage
from engines.volume import Volume
from worker import criteria, folder, inference, shelf
from worker.errors import WorkerError
from worker.series_files import Files


class ExampleVerdict(BaseModel):
    """One engine's answer about a package's example."""

    model: str
    engine: str
    #: Of the label that overlaps least; None where there are none.
    dice: float | None
    #: Each in words.
    differences: tuple[str, ...]
    agrees: bool


def check(
    package: ModelPackage, *, beside: Sequence[Path] = (), threads: int | None = None
) -> list[ExampleVerdict]:
    """Answer about the package's example on every engine; empty where it has none.

    The models that it needs are looked for in `beside`. Raises EngineError.
    """
    case = example.read(package.folder, package.manifest)
    if case is None:
        return []
    return [_verdict(package, case, engine, beside=beside, threads=threads) for engine in loader.ON_THE_CPU]


def _verdict(
    package: ModelPackage, case: Example, engine: Engine, *, beside: Sequence[Path], threads: int | None
) -> ExampleVerdict:
    """One engine."""
    name = package.manifest.name
    try:
        found = answer(package, case.volumes, engine=engine, beside=beside, threads=threads)
    except EngineError as error:
        return ExampleVerdict(model=name, engine=engine, dice=None, differences=(str(error),), agrees=False)
    compared = golden.compare(case, found)
    return ExampleVerdict(
        model=name,
        engine=found.engine,
        dice=compared.dice,
        differences=compared.differences,
        agrees=not compared.differences,
    )


def answer(
    package: ModelPackage,
    volumes: Mapping[str, Volume],
    *,
    engine: Engine,
    beside: Sequence[Path],
    threads: int | None,
) -> Findings:
    """The package's answer about volumes by role. Raises EngineError."""
    with closing(shelf.holding(package, beside, engine=engine, threads=threads)) as opened:
        return about(opened.stage(package.manifest.name), volumes, threads=threads)


def about(
    stage: Stage, volumes: Mapping[str, Volume], *, threads: int | None, clock: Clock | None = None
) -> Findings:
    """The answer of an open model, and of those before it, about volumes by role. Raises EngineError."""
    first, *others = (entry.called for entry in stage.package.manifest.inputs)
    rest = {role: volumes[role] for role in others}
    return cascade.predict_all(stage, volumes[first], rest, threads=threads, clock=clock)


def expecting(
    package: ModelPackage, volumes: Mapping[str, Volume], found: Findings, terms: Expected
) -> Example:
    """The example whose answer is `found`, with the tolerances of `terms`."""
    return Example(
        volumes=volumes,
        expected=golden.expected_of(found, terms),
        mask=found.mask if package.manifest.labels else None,
        image=found.image.array if found.image is not None else None,
    )


def record(
    package: ModelPackage, source: Path, *, beside: Sequence[Path] = (), threads: int | None = None
) -> Example:
    """Write the package's example: `source` and what the reference engine answers about it.

    `source` is an input.npz, or a folder of DICOM files of which the model takes one series. Tolerances that an
    earlier example had are kept. Raises WorkerError, SeriesError or EngineError.
    """
    volumes = _volumes(package, source)
    found = answer(package, volumes, engine="onnxruntime", beside=beside, threads=threads)
    kept = example.read(package.folder, package.manifest)
    made = expecting(package, volumes, found, kept.expected if kept is not None else Expected())
    example.write(package.folder, made)
    return made


def _volumes(package: ModelPackage, source: Path) -> Mapping[str, Volume]:
    """What `source` holds, by role."""
    if source.suffix == ".npz":
        return example.read_input(source, package.manifest)
    if len(package.manifest.inputs) > 1:
        raise WorkerError(
            f"{package.manifest.name} looks at several series: give an input.npz, see docs/models.md"
        )
    volume = inference.read_files(the_series(package, source), package.manifest.reference).volume
    return {package.manifest.reference.called: volume}


def the_series(package: ModelPackage, source: Path) -> Files:
    """The files of the one series under `source` that the model takes. Raises WorkerError."""
    wanted = criteria.parse(package.manifest.reference.series)
    traces = [(found, wanted.evaluate(found.view.attributes)) for found in folder.read(source).series]
    taken = [found for found, trace in traces if trace.verdict]
    if len(taken) != 1:
        said = "; ".join(criteria.in_words(trace) for _, trace in traces if not trace.verdict)
        raise WorkerError(
            f"{source}: {package.manifest.name} takes {len(taken)} of the series there, and one is needed: "
            f"{said or 'give a folder that holds one'}"
        )
    return taken[0].files
