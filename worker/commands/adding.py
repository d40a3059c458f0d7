"""`models import-monai` and `models add`: a bundle, or a plain ONNX file, as a package."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worker import edge


def import_monai(
    bundle: Annotated[Path, typer.Argument(help="Folder of a MONAI bundle: configs and models.")],
    out: Annotated[Path, typer.Option(help="New folder for the package.")],
    weights: Annotated[
        str | None, typer.Option(help="A file in the bundle's models folder. Default: model.pt, or model.ts.")
    ] = None,
) -> None:
    """Make a package of a MONAI bundle, which gives the bundle's own labels."""
    from engines.importing import monai_bundle

    package = monai_bundle.import_bundle(bundle, out, weights=weights)
    _tell(package.folder, package.manifest.name)


def add(
    file: Annotated[Path, typer.Argument(help="ONNX file of a network, in one piece.")],
    out: Annotated[Path, typer.Option(help="New folder for the package.")],
    task: Annotated[str | None, typer.Option(help="What it does. Default: guessed from its outputs.")] = None,
) -> None:
    """Make a package of a plain ONNX file, with a manifest to complete."""
    from engines.importing import plain_onnx

    added = plain_onnx.add(file, out, task=task)
    if added.guess:
        typer.echo(f"task: {added.task}, {added.guess}")
    _tell(added.package.folder, added.package.manifest.name)


def _tell(folder: Path, name: str) -> None:
    """What was made, and what its author must still fill in."""
    from engines.importing import package_writer

    typer.echo(f"{folder}: {name}")
    for line in package_writer.unfinished(folder):
        edge.errors.print(line, style="yellow", markup=False, soft_wrap=True)
