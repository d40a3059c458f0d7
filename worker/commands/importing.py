"""`models import-nnunet`: other people's models as packages."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from worker import edge


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
    from engines.importing import nnunet_folder, package_writer

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
    for line in package_writer.unfinished(package.folder):
        edge.errors.print(line, style="yellow", markup=False, soft_wrap=True)
