"""Commands about model packages: list and check."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel

from worker import edge
from worker.commands import importing
from worker.edge import ConfigOption, DataOption, JsonOption
from worker.errors import WorkerError

app = typer.Typer(no_args_is_help=True)
app.command("import-monai")(importing.import_monai)
app.command("add")(importing.add)
app.command("import-nnunet")(importing.import_nnunet)


class ModelLine(BaseModel):
    """A package in a list."""

    name: str
    version: str
    task: str
    research_only: bool
    digest: str
    #: Other models that its answers are made with.
    needs: tuple[str, ...] = ()
    folder: Path
    problem: str = ""


@app.command("list")
def list_models(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """List the packages, and what is wrong with those that cannot be used."""
    from worker.shelf import Shelf

    settings = edge.load(config, data)
    shelf = Shelf(settings.models)
    lines = [
        ModelLine(
            name=package.manifest.name,
            version=package.manifest.version,
            task=package.manifest.task,
            research_only=package.manifest.research_only,
            digest=package.digest,
            needs=tuple(dict.fromkeys(other.model for other in package.manifest.others)),
            folder=package.folder,
        )
        for package in shelf.packages.values()
    ]
    edge.show(
        lines,
        as_json=as_json,
        columns=("name", "version", "task", "research_only", "digest", "needs", "folder"),
    )
    for problem in shelf.problems:
        edge.errors.print(str(problem), style="red", markup=False, soft_wrap=True)
    if shelf.problems:
        raise typer.Exit(edge.FAILED)


@app.command("check")
def check(
    names: Annotated[
        list[str] | None, typer.Argument(help="Packages by name, or their folders. Default: all.")
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="First make the one package's example of this: DICOM files, or an input.npz."),
    ] = None,
    config: ConfigOption = None,
    data: DataOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check packages: digests, every engine against the reference engine, and each against the example."""
    from engines.importing import package_writer
    from worker import golden, parity, shelf

    settings = edge.load(config, data)
    every = shelf.Shelf(settings.models)
    packages = [shelf.find(settings.models, name) for name in names] if names else [*every.packages.values()]
    if record is not None:
        if len(packages) != 1 or not names:
            raise typer.BadParameter("--record makes the example of one package: name it")
        golden.record(packages[0], record, beside=settings.models, threads=settings.work.threads)
    for package in packages:
        with closing(shelf.holding(package, settings.models)) as held:
            # Raises where a model that it needs is not there.
            held.package(package.manifest.name)
    verdicts = [parity.compare(package) for package in packages]
    examples = [
        verdict
        for package in packages
        for verdict in golden.check(package, beside=settings.models, threads=settings.work.threads)
    ]
    if as_json:
        by_model = {one.model: [each for each in examples if each.model == one.model] for one in verdicts}
        edge.show([{**dict(one), "example": by_model[one.model]} for one in verdicts], as_json=True)
    else:
        edge.show(verdicts, as_json=False, columns=tuple(parity.Verdict.model_fields))
        edge.show(examples, as_json=False, columns=tuple(golden.ExampleVerdict.model_fields))
    for package in packages:
        importing.warn(package)
    problems = [str(problem) for problem in every.problems] if not names else []
    problems += [
        f"{verdict.model}: its example, on {verdict.engine}: {difference}"
        for verdict in examples
        for difference in verdict.differences
    ]
    problems += [
        f"{verdict.model}: {verdict.engine} does not agree with the reference"
        for verdict in verdicts
        if not verdict.agrees
    ]
    problems += [line for package in packages for line in package_writer.unfinished(package.folder)]
    if problems:
        raise WorkerError("\n".join(problems))
