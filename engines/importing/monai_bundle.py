"""`secondread models import-monai`: a MONAI bundle becomes a package that gives the bundle's own labels."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engines.errors import PackageError
from engines.importing import (
    checkpoints,
    monai_answer,
    monai_chain,
    monai_metadata,
    monai_preprocessing,
    package_writer,
)
from engines.importing.monai_answer import Answered
from engines.importing.monai_config import INFERENCE, BundleConfig
from engines.importing.monai_metadata import Metadata
from engines.importing.monai_preprocessing import Seen
from engines.importing.package_writer import todo
from engines.package import ModelPackage

#: The names of the graph's input and output.
_INPUT, _OUTPUT = "image", "pred"


def import_bundle(folder: Path, out: Path, *, weights: str | None = None) -> ModelPackage:
    """Write the bundle in `folder` as a package to the new folder `out`.

    `weights` names a file of its models folder; null: model.pt, or model.ts. Nothing that the bundle holds is run.
    Raises PackageError: what is missing, and of what no package can say every transform by its key and name.
    """
    config = _inference(folder)
    metadata = monai_metadata.read(_read(folder, "metadata.json"))
    unsupported = monai_chain.Unsupported(file=config.name)
    seen = monai_preprocessing.seen([*monai_chain.steps(config, "preprocessing")], unsupported)
    answered = monai_answer.answered([*monai_chain.steps(config, "postprocessing")], unsupported)
    if not config.has("inferer"):
        unsupported.add("inferer", "it is missing: add a SlidingWindowInferer")
        unsupported.settle()
    tiling = monai_answer.window(monai_chain.step(config, "inferer"), seen.size, unsupported)
    if (
        len(metadata.channels) > 1
        and not seen.channel_wise
        and (seen.intensity or {}).get("kind") != "linear"
    ):
        unsupported.add(
            "preprocessing", "intensities of several channels are scaled together: set channel_wise"
        )
    unsupported.settle()
    assert tiling is not None
    sized_by = "inferer::roi_size" if seen.size is None else "spatial_size of Resize"
    content, channels = _network(
        config, folder, metadata, tiling["patch"], sized_by=sized_by, weights=weights
    )
    manifest = _manifest(folder, metadata, seen, answered, tiling)
    manifest["weights"] = package_writer.weights(content)
    manifest["outputs"] = [_output(metadata, answered, channels, config.name)]
    return package_writer.write(out, content, manifest, _card(folder, metadata), source=folder)


def _inference(folder: Path) -> BundleConfig:
    """The configuration that the bundle infers with."""
    for name in INFERENCE:
        if (folder / "configs" / name).is_file():
            return _read(folder, name)
    raise PackageError(f"{folder / 'configs'}: there is no {INFERENCE[0]}: give the folder of a MONAI bundle")


def _read(folder: Path, name: str) -> BundleConfig:
    """One file of the bundle's configurations."""
    path = folder / "configs" / name
    if not path.is_file():
        raise PackageError(f"{folder / 'configs'}: there is no {name}: give the folder of a MONAI bundle")
    return BundleConfig.read(path)


def _network(
    config: BundleConfig,
    folder: Path,
    metadata: Metadata,
    patch: list[int],
    *,
    sized_by: str,
    weights: str | None,
) -> tuple[bytes, int]:
    """The ONNX file, and how many channels its output has; the key `sized_by` asks for the patch."""
    # Imported here: PyTorch is heavy, and a bundle that cannot be imported does not need it.
    try:
        from engines.importing import monai_network, onnx_export
    except ModuleNotFoundError as error:
        raise checkpoints.not_installed(error) from error
    network = monai_network.network(config, folder, weights=weights)
    shape = (1, len(metadata.channels), *patch)
    content, answer = onnx_export.export(
        network, {_INPUT: shape}, output_name=_OUTPUT, where=config.name, sized_by=sized_by
    )
    if len(answer) != 5 or answer[2:] != tuple(patch):
        raise PackageError(
            f"{config.name}: network_def: of an input of {shape} it makes {answer}: "
            "only networks that give a value for each voxel are imported"
        )
    return content, answer[1]


def _manifest(
    folder: Path, metadata: Metadata, seen: Seen, answered: Answered, tiling: dict[str, Any]
) -> dict[str, Any]:
    """The manifest but for weights and output, in the order in which it is read."""
    manifest: dict[str, Any] = {
        "format": 1,
        "name": package_writer.slug(folder.resolve().name, "monai-bundle"),
        "version": metadata.version,
    }
    if metadata.licence is None:
        manifest |= todo("the licence of the weights: see the bundle's LICENSE file")
    manifest["licence"] = metadata.licence or "unknown"
    manifest["manufacturer"] = package_writer.long_text(metadata.authors, "MONAI bundle")
    manifest |= todo("check what it is meant for; this is printed in every report")
    manifest["intended_use"] = metadata.intended_use or metadata.description or metadata.title or "unknown"
    manifest |= {"research_only": True, "weights": {}, "task": "segmentation"}
    manifest["inputs"] = list(_inputs(metadata, seen))
    return manifest | {"tiling": tiling, "outputs": [], "results": ["seg"]}


def _inputs(metadata: Metadata, seen: Seen) -> Iterator[dict[str, Any]]:
    """One for each channel of the image."""
    for number, name in enumerate(metadata.channels):
        entry: dict[str, Any] = {"name": _INPUT}
        if len(metadata.channels) > 1:
            entry["role"] = package_writer.key_of(name)[:32]
            entry |= todo(f"what tells the series of {name} from the others, e.g. SeriesDescription")
        elif metadata.modality is None:
            entry |= todo("which series it takes, e.g. {Modality: CT}")
        entry["series"] = package_writer.Flow({"Modality": metadata.modality} if metadata.modality else {})
        if seen.orientation is None:
            entry |= todo("the bundle takes axes as they are stored; LPH is that of axial DICOM images")
        entry["orientation"] = seen.orientation or "LPH"
        if seen.spacing_mm is not None:
            entry["spacing_mm"] = list(seen.spacing_mm)
        if seen.size is not None:
            entry["size"] = list(seen.size)
        if seen.crop is not None and number == 0:
            # The crop of the first is that of all.
            entry["steps"] = [package_writer.Flow(seen.crop)]
        entry["sampling"] = seen.sampling
        yield {
            **entry,
            "intensity": package_writer.Flow(seen.intensity or {"kind": "none"}),
            "scaled": seen.scaled,
        }


def _output(metadata: Metadata, answered: Answered, channels: int, file: str) -> dict[str, Any]:
    """The segmentation; where the bundle names no classes they have numbers."""
    regions = answered.activation == "sigmoid"
    first = 0 if regions else 1
    classes = dict(metadata.classes)
    if regions and channels == 1 and 1 in classes:
        # Of one channel the background is sometimes named too.
        classes[0] = classes[1]
    names = [
        (channel + 1 - first, classes.get(channel, f"label {channel + 1 - first}"))
        for channel in range(first, channels)
    ]
    if not names:
        raise PackageError(
            f"{file}: network_def: it has one output channel and no sigmoid: nothing can be told apart"
        )
    kept = answered.largest
    entries = package_writer.labels(names)
    for entry in entries:
        if kept is not None and (not kept or entry["index"] in kept):
            entry |= {"keep_largest": True, "connected_by": answered.connected_by}
    output: dict[str, Any] = {
        "name": _OUTPUT,
        "activation": "sigmoid" if regions else "softmax",
        "interpolate": answered.interpolate,
    }
    if regions and len(names) > 1:
        output |= todo("where regions overlap the last listed one wins: put the innermost last")
    return output | {"labels": entries}


def _card(folder: Path, metadata: Metadata) -> str:
    """MODEL_CARD.md: what the bundle says of itself."""
    lines = [
        f"# {metadata.title or folder.resolve().name}",
        "",
        f"Imported from the MONAI bundle {folder.resolve().name}, ",
    ]
    lines[-1] += f"version {metadata.version}."
    for title, said in (
        ("Description", metadata.description),
        ("Intended use", metadata.intended_use),
        ("Authors", metadata.authors),
        ("Licence", metadata.licence or ""),
    ):
        if said:
            lines += ["", f"## {title}", "", said]
    return "\n".join(lines) + "\n"
