"""Commands about model packages: list and check."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel

from worker import edge
from worker.commands import importing
from worker.edge import ConfigOption, DataOption, JsonOption
from worker.errors import WorkerError

if TYPE_CHECKING:
    from engines.package import ModelPackage

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
    from worker import checking, golden, parity

    settings = edge.load(config, data)
    packages, problems = _chosen(settings.models, names)
    if record is not None:
        if len(packages) != 1 or not names:
            raise typer.BadParameter("--record makes the example of one package: name it")
        golden.record(packages[0], record, beside=settings.models, threads=settings.work.threads)
        edge.errors.print(f"recorded: {packages[0].folder / 'example'}", markup=False)
    found = [
        checking.check(package, beside=settings.models, threads=settings.work.threads) for package in packages
    ]
    verdicts = [one.verdict for one in found if one.verdict is not None]
    examples = [each for one in found for each in one.examples]
    if as_json:
        by_model = {one.model: [each for each in examples if each.model == one.model] for one in verdicts}
        edge.show([{**dict(one), "example": by_model[one.model]} for one in verdicts], as_json=True)
    else:
        if verdicts or not found:
            edge.show(verdicts, as_json=False, columns=tuple(parity.Verdict.model_fields))
        if examples:
            edge.show(examples, as_json=False, columns=tuple(golden.ExampleVerdict.model_fields))
        elif verdicts or not found:
            edge.console.print("no example; --record IMAGES makes one")
    for package in packages:
        importing.warn(package)
    problems += [problem for one in found for problem in one.problems]
    if problems:
        raise WorkerError("\n".join(problems))


def _chosen(folders: Sequence[Path], names: Sequence[str] | None) -> tuple[list[ModelPackage], list[str]]:
    """The packages that are meant, and what is wrong with those that cannot be opened."""
    from engines.errors import PackageError
    from worker import shelf

    if not names:
        every = shelf.Shelf(folders)
        return [*every.packages.values()], [str(problem) for problem in every.problems]
    packages, problems = [], []
    for name in names:
        try:
            packages.append(shelf.find(folders, name))
        except PackageError as error:
            problems.append(str(error))
    return packages, problems
