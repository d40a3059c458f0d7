"""The second stage of an nnU-Net cascade: it sees the labels of the first one's package beside the image."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engines import package
from engines.errors import PackageError
from engines.importing import nnunet_plans, package_writer
from engines.importing.nnunet_manifest import INPUT
from engines.importing.nnunet_plans import Classes, Plans
from engines.importing.package_writer import Flow, todo
from engines.package import ModelPackage


def first_stage(plans: Plans, folder: Path | None) -> ModelPackage | None:
    """The package in `folder`, where the plans are those of a second stage; None where they are of one stage.

    Raises PackageError where only one of the two is there, or the package is not usable.
    """
    previous = plans.previous_stage
    if previous is None and folder is not None:
        raise PackageError(
            f"--after {folder}: {plans.configuration} of {plans.folder} has no previous stage: leave it out"
        )
    if previous is not None and folder is None:
        raise PackageError(
            f"{plans.folder / 'plans.json'}: {plans.key('previous_stage')}: {previous}: this is a cascade's second "
            f"stage, which sees the labels of the first: import {previous}, and name its package with --after FOLDER"
        )
    return None if folder is None else package.open_package(folder)


def orientation(plans: Plans, first: ModelPackage | None) -> str | None:
    """How the training images' axes ran, as the first stage's package has it: both were trained on the same files."""
    if first is None or len(first.manifest.reference.orientation) != len(plans.transpose):
        return None
    own = first.manifest.reference.orientation
    return "".join(own[plans.transpose.index(axis)] for axis in range(len(plans.transpose)))


def entry(plans: Plans, classes: Classes, manifest: Mapping[str, Any], first: ModelPackage) -> dict[str, Any]:
    """The manifest's `after`. Raises PackageError where the package is not that of this model's first stage."""
    _refuse_strangers(manifest, first)
    keys = {label.index: label.key for label in first.manifest.labels}
    lacking = [number for number in classes.foreground if number not in keys]
    if lacking:
        raise PackageError(
            f"{plans.folder / 'dataset.json'}: regions_class_order: no region writes the labels {lacking}, of which "
            "the second stage sees channels: this is not supported"
        )
    content: dict[str, Any] = {"model": first.manifest.name}
    if package_writer.unfinished(first.folder):
        content |= todo(f"the digest anew, once model.yaml of {first.manifest.name} is filled in")
    content["digest"] = first.digest
    content["use"] = {
        "kind": "channels",
        "labels": [keys[number] for number in classes.foreground],
        "name": INPUT,
        "splines": Flow(nnunet_plans.splines(plans, "seg")),
        "nonzero": "filled",
    }
    return content


def _refuse_strangers(manifest: Mapping[str, Any], first: ModelPackage) -> None:
    """Raise PackageError where labels or name show that `first` is another model, or this one itself."""
    name = first.manifest.name
    if name == manifest["name"]:
        raise PackageError(
            f"--after {first.folder}: both packages would be called {name}: give this one a --name"
        )
    own = {label["index"]: label["key"] for label in manifest["outputs"][0]["labels"]}
    its = {label.index: label.key for label in first.manifest.labels}
    if own != its:
        raise PackageError(
            f"--after {first.folder}: {name} has the labels {_listed(its)}, and this model {_listed(own)}: the stages "
            "of a cascade have the same: name the package of its first stage"
        )
    roles = [each.get("role", each["name"]) for each in manifest["inputs"]]
    if [each.called for each in first.manifest.inputs] != roles:
        raise PackageError(
            f"--after {first.folder}: {name} has not the inputs {', '.join(roles)}, which both stages see: name the "
            "package of this model's first stage"
        )


def _listed(labels: Mapping[int, str]) -> str:
    """Labels by their numbers."""
    return ", ".join(f"{number} {key}" for number, key in sorted(labels.items())) or "none"
