"""`models import-nnunet`: other people's models as packages."""

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
    )
    typer.echo(f"{package.folder}: {package.manifest.name}, {len(package.manifest.labels)} labels")
    warn(package)


def warn(package: ModelPackage) -> None:
    """Print what the package's author must still fill in, codes that only stand for others among it."""
    from engines.importing import package_writer

    for line in package_writer.unfinished(package.folder):
        edge.errors.print(line, style="yellow", markup=False, soft_wrap=True)
    for label in package.manifest.labels:
        if label.type.scheme == "99SECONDREAD":
            edge.errors.print(
                f"{package.folder}: outputs[0].labels.{label.key}.type: {label.type.value} is a placeholder: "
                "give the code that others know",
                style="yellow",
                markup=False,
                soft_wrap=True,
            )
