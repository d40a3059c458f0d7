"""`secondread models import-nnunet`: an nnU-Net v2 results folder becomes a package that gives nnU-Net's own labels."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from engines import manifest_inputs
from engines.errors import PackageError
from engines.importing import (
    checkpoints,
    nnunet_cascade,
    nnunet_files,
    nnunet_manifest,
    nnunet_plans,
    package_writer,
)
from engines.importing.nnunet_manifest import INPUT, OUTPUT, Choices
from engines.package import ModelPackage

#: What a results folder of one configuration holds.
_FILES = ("plans.json", "dataset.json", "fold_*")

#: So many folders are named to whoever gave another one.
_FEW = 3


def import_folder(
    folder: Path,
    out: Path,
    *,
    folds: Sequence[str] = (),
    checkpoint: str = "checkpoint_final.pth",
    name: str | None = None,
    orientation: str | None = None,
    mirroring: bool = True,
    codes: Path | None = None,
    after: Path | None = None,
) -> ModelPackage:
    """Write the model in `folder` as a package to the new folder `out`.

    `folds` are the numbers of those to average, or "all"; () is every fold that has the checkpoint.
    `orientation` says how the axes (slice, row, column) of the training images ran, HPL where nobody does.
    `codes` is a YAML file with the codes of labels. `after` is the package of a cascade's first stage, where the
    model is the second. Nothing that the folder holds is run.
    Raises PackageError: what is missing, and each key of the plans that no package can say, with its value.
    """
    _require_results(folder)
    if orientation is not None:
        _require_axes(orientation)
    dataset = nnunet_files.read(folder, "dataset.json")
    nnunet_files.read(folder, "plans.json")
    classes = nnunet_plans.classes(folder, dataset)
    given = _codes(codes, [label for _, label in classes.labels])
    states, first = _checkpoints(_paths(folder, folds, checkpoint))
    plans = nnunet_plans.plans(folder, str(first["init_args"].get("configuration")))
    before = nnunet_cascade.first_stage(plans, after)
    axes = mirrored(first, next(iter(states)), plans) if mirroring else ()
    choices = Choices(
        name=name or package_writer.slug(f"{plans.dataset}-{plans.configuration}", "nnunet"),
        orientation=orientation or plans.orientation or nnunet_cascade.orientation(plans, before) or "HPL",
        mirrored=axes,
        codes=given,
    )
    manifest = nnunet_manifest.manifest(plans, dataset, classes, choices)
    channels = len(manifest["inputs"])
    if before is not None:
        manifest["after"] = [nnunet_cascade.entry(plans, classes, manifest, before)]
        channels += len(classes.foreground)
    content = _exported(plans, states, channels=channels, classes=classes.channels)
    manifest["weights"] = package_writer.weights(content)
    return package_writer.write(out, content, manifest, _card(plans, first, list(states)), source=folder)


def _require_results(folder: Path) -> None:
    """Raise PackageError, with those that are near, where the folder is not the one of a trained configuration."""
    if folder.is_dir():
        lacking = [name for name in _FILES if not any(folder.glob(name))]
        problem = f"it holds no {' and no '.join(lacking)}" if lacking else ""
    else:
        problem = "this is no folder" if folder.exists() else "there is no such folder"
    if problem:
        near = ", or ".join(map(str, _near(folder)))
        example = near or "nnUNet_results/Dataset001_Name/nnUNetTrainer__nnUNetPlans__3d_fullres"
        raise PackageError(
            f"{folder}: {problem}: give the folder that holds {', '.join(_FILES)}: {'' if near else 'e.g. '}{example}"
        )


def _near(folder: Path) -> list[Path]:
    """Results folders that it lies in, or that lie in it: the first few."""
    above = [parent for parent in folder.parents[:2] if (parent / _FILES[0]).is_file()]
    within = sorted(found.parent for depth in ("*/", "*/*/") for found in folder.glob(depth + _FILES[0]))
    return (above or within)[:_FEW]


def _require_axes(orientation: str) -> None:
    """Raise PackageError unless it says of each axis where it ran to."""
    try:
        manifest_inputs.of_three_axes(orientation)
    except ValueError as error:
        raise PackageError(f"--orientation {orientation}: {error}, e.g. HPL") from None


def _paths(folder: Path, folds: Sequence[str], checkpoint: str) -> list[Path]:
    """The checkpoints that are asked for."""
    if folds:
        return [folder / f"fold_{fold}" / checkpoint for fold in folds]
    found = sorted(
        path for path in folder.glob(f"fold_*/{checkpoint}") if re.fullmatch(r"fold_\d+", path.parent.name)
    )
    found = found or sorted(folder.glob(f"fold_all/{checkpoint}"))
    if not found:
        raise PackageError(f"{folder}: no fold has {checkpoint}: name another one with --checkpoint")
    return found


def _network_files() -> tuple[Any, Any]:
    """The modules that need PyTorch, which is heavy: whoever does not import models does not pay for it."""
    try:
        from engines.importing import nnunet_network, onnx_export
    except ModuleNotFoundError as error:
        raise checkpoints.not_installed(error) from error
    return nnunet_network, onnx_export


def _checkpoints(paths: Sequence[Path]) -> tuple[dict[Path, Any], dict[str, Any]]:
    """The weights of each, and the first checkpoint without them."""
    network, _ = _network_files()
    contents = {path: network.checkpoint(path) for path in paths}
    configurations = {str(content["init_args"].get("configuration")) for content in contents.values()}
    if len(configurations) > 1:
        raise PackageError(
            f"{paths[0].parent.parent}: the folds are of several configurations: {configurations}"
        )
    first = next(iter(contents.values()))
    states = {path: content.pop("network_weights") for path, content in contents.items()}
    return states, first


def mirrored(first: Mapping[str, Any], file: Path, plans: nnunet_plans.Plans) -> tuple[int, ...]:
    """Axes that training mirrored along. Raises PackageError where the patch has no such axes."""
    axes = tuple(first.get("inference_allowed_mirroring_axes") or ())
    dimensions = len(plans.patch)
    if len({*axes} & {*range(dimensions)}) != len(axes):
        raise PackageError(
            f"{file}: inference_allowed_mirroring_axes: {list(axes)}: they must be axes of the patch, 0 to "
            f"{dimensions - 1}, each once: import without, with --no-mirroring, or copy the file again"
        )
    return axes


def _exported(plans: nnunet_plans.Plans, states: Mapping[Path, Any], *, channels: int, classes: int) -> bytes:
    """The ONNX file."""
    network_file, onnx_export = _network_files()
    network = network_file.network(plans, states, channels=channels, classes=classes)
    shape = (1, channels, *plans.patch)
    content, answer = onnx_export.export(
        network,
        {INPUT: shape},
        output_name=OUTPUT,
        where=str(plans.folder / "plans.json"),
        sized_by=plans.key("patch_size"),
    )
    if answer != (1, classes, *plans.patch):
        raise PackageError(
            f"{plans.folder}: the network makes {answer} of {shape}: this is no nnU-Net segmentation"
        )
    return bytes(content)


def _codes(path: Path | None, names: Sequence[str]) -> dict[str, Any]:
    """The codes that are given for labels, by name. Raises PackageError where they are of none."""
    if path is None:
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise PackageError(f"{path}: it cannot be read as YAML: {error}: correct it") from error
    if not isinstance(content, dict) or not all(isinstance(entry, dict) for entry in content.values()):
        raise PackageError(f"{path}: write a mapping, for each label e.g. liver: {{value, scheme, meaning}}")
    unknown = set(content) - {*names, *map(package_writer.key_of, names)}
    if unknown:
        raise PackageError(f"{path}: no label is called {sorted(unknown)}: there are {', '.join(names)}")
    return content


def _card(plans: nnunet_plans.Plans, first: Mapping[str, Any], paths: Sequence[Path]) -> str:
    """MODEL_CARD.md: what the folder says, and what only its author knows."""
    folds = ", ".join(path.parent.name.removeprefix("fold_") for path in paths)
    lines = [
        f"# {plans.dataset}, {plans.configuration}",
        "",
        f"Imported from nnU-Net v2: trainer {first['trainer_name']}, folds {folds} of {paths[0].name}.",
        "The label map is that of nnUNetPredictor with its defaults on the same image.",
        "",
        *("## Intended use", "", "TODO", "", "## Training data", "", "TODO", ""),
        *("## Evaluation", "", "TODO", "", "## Limits", "", "TODO"),
    ]
    return "\n".join(lines) + "\n"
