"""An nnU-Net model in the words of `model.yaml`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from engines.importing import nnunet_plans, package_writer
from engines.importing.nnunet_files import Refusals
from engines.importing.nnunet_plans import Classes, Plans
from engines.importing.package_writer import Flow, todo

#: The names of the graph's input and output.
INPUT, OUTPUT = "image", "logits"

#: What is known of the modality by a channel's name.
_MODALITIES = {"ct": "CT", "cta": "CT", "cbct": "CT", "pet": "PT", "pt": "PT", "us": "US"}

#: Fraction of a patch shared with the next, of nnUNetPredictor's default step.
_OVERLAP = 0.5


@dataclass(frozen=True, kw_only=True)
class Choices:
    """What whoever imports a model decides."""

    name: str
    #: Directions of the (slice, row, column) axes of the training images as they were stored.
    orientation: str
    #: Axes of the patch that the model may be mirrored along.
    mirrored: tuple[int, ...]
    #: By label name: a code, or keys of a label.
    codes: Mapping[str, Mapping[str, Any]]


def channel_names(dataset: Mapping[str, Any]) -> list[str]:
    """Names of the image's channels, in order."""
    given = dataset.get("channel_names") or dataset.get("modality") or {"0": "image"}
    return [str(name) for _, name in sorted(given.items(), key=lambda item: int(item[0]))]


def manifest(plans: Plans, dataset: Mapping[str, Any], classes: Classes, choices: Choices) -> dict[str, Any]:
    """The manifest but for its weights. Raises PackageError: each normalisation that is not supported, by name."""
    content: dict[str, Any] = {"format": 1, "name": choices.name, "version": "1.0.0"}
    licence = dataset.get("licence") or dataset.get("license")
    content |= todo("the licence of the weights") if not licence else {}
    content["licence"] = str(licence or "unknown")
    content |= todo("who answers for the model")
    content["manufacturer"] = package_writer.long_text(str(dataset.get("reference", "")), "unknown")
    content |= todo("what it is meant for; this is printed in every report")
    content["intended_use"] = str(
        dataset.get("description") or f"nnU-Net {plans.dataset}, {plans.configuration}"
    )
    content |= {"research_only": True, "weights": {}, "task": "segmentation"}
    content["inputs"] = _inputs(plans, channel_names(dataset), choices)
    content["tiling"] = {
        "patch": list(plans.patch if len(plans.patch) == 3 else (1, *plans.patch)),
        "overlap": _OVERLAP,
        "weighting": "nnunet",
        "mirror_axes": [axis + 3 - len(plans.patch) for axis in choices.mirrored],
    }
    content["outputs"] = [_output(plans, classes, choices)]
    return content | {"results": ["seg"]}


def _inputs(plans: Plans, names: list[str], choices: Choices) -> list[dict[str, Any]]:
    """One for each channel of the image."""
    refusals = Refusals(file=plans.folder / "plans.json")
    for key in ("normalization_schemes", "use_mask_for_norm"):
        if len(plans.content[key]) != len(names):
            refusals.add(plans.key(key), plans.content[key], f"dataset.json has {len(names)} channels")
    refusals.settle()
    entries = [_input(plans, number, name, choices, refusals) for number, name in enumerate(names)]
    refusals.settle()
    if len(entries) > 1:
        for entry, name in zip(entries, names, strict=True):
            entry["role"] = package_writer.key_of(name)[:32]
    return entries


def _input(plans: Plans, number: int, name: str, choices: Choices, refusals: Refusals) -> dict[str, Any]:
    """One channel."""
    entry: dict[str, Any] = {"name": INPUT}
    entry |= todo(f"which series are {name}: a route's `when`, e.g. with SeriesDescription")
    scheme = plans.content["normalization_schemes"][number]
    modality = "CT" if scheme == "CTNormalization" else _MODALITIES.get(name.lower(), "MR")
    entry["series"] = Flow({"Modality": modality})
    if plans.orientation is None:
        entry |= todo("how the training images were stored: HPL like axial DICOM, HAR like a NIfTI in RAS")
    entry["orientation"] = "".join(choices.orientation[axis] for axis in plans.transpose)
    spacing = list(plans.content["spacing"])
    entry["spacing_mm"] = spacing if len(spacing) == 3 else [None, *spacing]
    entry["sampling"] = "nnunet"
    entry["splines"] = Flow(nnunet_plans.splines(plans, "data"))
    if number == 0:
        entry["steps"] = [Flow(kind="crop")]
    entry["intensity"] = Flow(_intensity(plans, number, refusals))
    return entry


def _intensity(plans: Plans, number: int, refusals: Refusals) -> dict[str, Any]:
    """How a channel's values are scaled."""
    scheme = plans.content["normalization_schemes"][number]
    masked = plans.content["use_mask_for_norm"][number]
    match scheme:
        case "CTNormalization":
            of = plans.intensities.get(str(number), {})
            bounds = {"low": "percentile_00_5", "high": "percentile_99_5", "mean": "mean", "std": "std"}
            lacking = [key for key in bounds.values() if not _finite(of.get(key))]
            if lacking:
                refusals.add(
                    "foreground_intensity_properties_per_channel",
                    lacking,
                    f"of channel {number} they are missing, or no finite numbers",
                )
                return {}
            values = {key: float(of[name]) for key, name in bounds.items()}
            return {"kind": "ct", **values, "std": max(values["std"], 1e-8)}
        case "ZScoreNormalization":
            return {"kind": "z-score", "nonzero": "filled"} if masked else {"kind": "z-score"}
        case "RescaleTo01Normalization":
            return {"kind": "min-max"}
        case "RGBTo01Normalization":
            return {"kind": "window", "low": 0, "high": 255}
        case "NoNormalization":
            return {"kind": "none"}
    refusals.add(plans.key(f"normalization_schemes[{number}]"), scheme, "this normalisation is not supported")
    return {}


def _finite(value: object) -> bool:
    """Whether it is a number that intensities can be compared with."""
    return isinstance(value, int | float) and abs(value) <= sys.float_info.max


def _output(plans: Plans, classes: Classes, choices: Choices) -> dict[str, Any]:
    """The segmentation."""
    output: dict[str, Any] = {
        "name": OUTPUT,
        "activation": "sigmoid" if classes.regions else "softmax",
        "interpolate": "logits",
        "splines": Flow(nnunet_plans.splines(plans, "probabilities")),
    }
    if nnunet_plans.keeps_halves(plans):
        output["precision"] = "float16"
    return output | {"labels": list(_labels(classes, choices.codes))}


def _labels(classes: Classes, codes: Mapping[str, Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The labels, with the codes that are given for them."""
    for entry, (_, name) in zip(package_writer.labels(classes.labels), classes.labels, strict=True):
        given = codes.get(name) or codes.get(entry["key"])
        if given is None:
            yield entry
            continue
        changes = {"type": given} if set(given) == {"value", "scheme", "meaning"} else given
        plain = {key: value for key, value in entry.items() if not key.startswith("__")}
        yield plain | {
            key: Flow(value) if isinstance(value, dict) else value for key, value in changes.items()
        }
