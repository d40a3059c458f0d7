"""`models import-nnunet`, `import-monai` and `add`: other people's models as packages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker import edge

if TYPE_CHECKING:
    from engines.package import ModelPackage


def import_nnunet(
    folder: Annotated[
        Path, typer.Argument(help="nnU-Net v2 results folder: plans.json, dataset.json, fold_*.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the package.")],
    folds: Annotated[
        str, typer.Option(help='Folds to average, e.g. "0,1,2", or "all". Default: every one.')
    ] = "",
    checkpoint: Annotated[
        str, typer.Option(help="The checkpoint's file in each fold.")
    ] = "checkpoint_final.pth",
    name: Annotated[str | None, typer.Option(help="The package's name. Default: the dataset's.")] = None,
    orientation: Annotated[
        str | None, typer.Option(help="How the training images' slices, rows and columns ran. Default: HPL.")
    ] = None,
    mirroring: Annotated[bool, typer.Option(help="Infer mirrored too, as nnU-Net does by default.")] = True,
    codes: Annotated[Path | None, typer.Option(help="YAML with the codes of labels, by name.")] = None,
    after: Annotated[
        Path | None, typer.Option(help="Of a cascade's second stage: the package folder of the first.")
    ] = None,
) -> None:
    """Make a package of an nnU-Net v2 results folder, which gives nnU-Net's own labels."""
    from engines.importing import nnunet_folder

    package = nnunet_folder.import_folder(
        folder,
        out,
        folds=[fold.strip() for fold in folds.split(",") if fold.strip()],
        checkpoint=checkpoint,
        name=name,
        orientation=orientation,
        mirroring=mirroring,
        codes=codes,
        after=after,
    )
    _tell(package)


def import_monai(
    bundle: Annotated[Path, typer.Argument(help="Folder of a MONAI bundle: configs and models.")],
    out: Annotated[Path, typer.Option(help="New folder for the package.")],
    weights: Annotated[
        str | None, typer.Option(help="A file in the bundle's models folder. Default: model.pt, or model.ts.")
    ] = None,
) -> None:
    """Make a package of a MONAI bundle, which gives the bundle's own labels."""
    from engines.importing import monai_bundle

    _tell(monai_bundle.import_bundle(bundle, out, weights=weights))


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
    _tell(added.package)


def _tell(package: ModelPackage) -> None:
    """What was made, and what its author must still fill in."""
    from engines.importing import package_writer

    typer.echo(f"{package.folder}: {package.manifest.name}")
    for line in package_writer.unfinished(package.folder):
        edge.errors.print(line, style="yellow", markup=False, soft_wrap=True)
    warn(package)


def warn(package: ModelPackage) -> None:
    """Say which of the package's codes only stand for others."""
    from engines.importing import package_writer

    for placeholder in package_writer.placeholders(package.manifest):
        edge.errors.print(
            f"{package.folder}: {placeholder} is a placeholder: give the code that others know",
            style="yellow",
            markup=False,
            soft_wrap=True,
        )
