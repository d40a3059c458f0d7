"""`secondread models add`: a plain ONNX file becomes a package whose manifest its author completes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from engines import fit, package
from engines.errors import OutputError, PackageError, RunnerError
from engines.importing import package_writer
from engines.importing.package_writer import Flow, long_text, own_code, todo
from engines.manifest import Manifest
from engines.manifest_outputs import Task
from engines.ort import ONNXRuntimeRunner
from engines.package import ModelPackage
from engines.runner import TensorSpec

#: What a patch is where the graph takes any: (slices, rows, columns).
_PATCH = (64, 96, 96)

#: A classifier of more classes than this is rather a network that gives features.
_MOST_CLASSES = 1000


@dataclass(frozen=True, kw_only=True, eq=False)
class Added:
    """A package, and what was guessed for it."""

    package: ModelPackage
    task: str
    #: Why this task; "" where it was given.
    guess: str


@dataclass(frozen=True, kw_only=True)
class _Graph:
    """What the runtime says of the network."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    @property
    def planar(self) -> bool:
        """Whether it takes images of rows and columns alone."""
        return len(self.inputs[0].shape) == 4

    @property
    def space(self) -> tuple[int, int, int]:
        """Slices, rows and columns that it takes at once; those of `_PATCH` where it takes any."""
        lengths = self.inputs[0].shape[2:]
        whole = (1, *lengths) if self.planar else lengths
        slices, rows, columns = (length or usual for length, usual in zip(whole, _PATCH, strict=True))
        return slices, rows, columns

    @property
    def free(self) -> bool:
        """Whether it takes images of any shape."""
        return None in self.inputs[0].shape[2:]


def add(file: Path, out: Path, *, task: str | None = None) -> Added:
    """Write the network in `file` as a package to the new folder `out`; what it must still be told is marked there.

    Raises PackageError, and writes nothing, where the file is no ONNX network in one piece, not of a kind that
    packages hold, or does not answer as the task asks.
    """
    content = _content(file)
    graph = _read(file, content)
    guess = "" if task else _why(graph)
    chosen = task or _task(graph)
    if chosen not in get_args(Task):
        raise PackageError(f"--task {chosen}: there is no such task; there are {', '.join(get_args(Task))}")
    manifest = _manifest(file, graph, chosen, guess)
    manifest["weights"] = package_writer.weights(content)
    _require_fit(file, graph, package_writer.parsed(out, manifest), guess)
    card = f"# {file.stem}\n\nWhat it is, who made it, what it was trained and tested on.\n"
    return Added(package=package_writer.write(out, content, manifest, card), task=chosen, guess=guess)


def _content(file: Path) -> bytes:
    """The file's bytes."""
    try:
        content = file.read_bytes()
    except OSError as error:
        raise PackageError(f"{file}: {error.strerror}: name the ONNX file of a network") from error
    package.refuse_further_files(file, content)
    return content


def _read(file: Path, content: bytes) -> _Graph:
    """Inputs and outputs, as the reference runtime sees them."""
    try:
        with ONNXRuntimeRunner(content, shapes={}, threads=1) as runner:
            graph = _Graph(inputs=runner.inputs, outputs=runner.outputs)
    except RunnerError as error:
        raise PackageError(
            f"{file}: this is no network that can be run: {error}: export it to ONNX"
        ) from error
    if not graph.inputs or not graph.outputs:
        raise PackageError(f"{file}: the network has no inputs or no outputs: export it again")
    ranks = {len(spec.shape) for spec in graph.inputs}
    if len(ranks) > 1 or not ranks <= {4, 5}:
        shapes = "; ".join(map(str, graph.inputs))
        raise PackageError(
            f"{file}: inputs of (number, channels, slices, rows, columns), or without slices, are supported; "
            f"it has {shapes}"
        )
    return graph


def _require_fit(file: Path, graph: _Graph, manifest: Manifest, guess: str) -> None:
    """Raise PackageError where no manifest of this task would fit the network."""
    try:
        fit.check_graph(manifest, graph.inputs, graph.outputs)
    except (OutputError, RunnerError) as error:
        others = ", ".join(task for task in get_args(Task) if task != manifest.task)
        chosen = f"the task {manifest.task}, {guess}" if guess else f"--task {manifest.task}"
        raise PackageError(
            f"{file}: the network does not fit {chosen}: {error}: give the --task that it does ({others}), or export "
            "it with such an output"
        ) from error


def _task(graph: _Graph) -> str:
    """The task that the outputs look like."""
    first, *others = graph.outputs
    boxes = [spec for spec in graph.outputs if spec.shape[-1:] in ((4,), (6,))]
    if others and boxes:
        return "detection"
    if len(first.shape) == len(graph.inputs[0].shape):
        return "image" if _length(first, 1) == 1 else "segmentation"
    return "regression" if _length(first, -1) == 1 else "classification"


def _why(graph: _Graph) -> str:
    """What the guess rests on."""
    return f"guessed from the outputs {'; '.join(map(str, graph.outputs))}"


def _manifest(file: Path, graph: _Graph, task: str, guess: str) -> dict[str, Any]:
    """The template, in the order in which it is read."""
    manifest: dict[str, Any] = {
        "format": 1,
        "name": package_writer.slug(file.stem, "model"),
        "version": "0.1.0",
    }
    manifest |= todo("the licence of the weights") | {"licence": "unknown"}
    manifest |= todo("who made it") | {"manufacturer": "unknown"}
    manifest |= todo("what it is meant for; this is printed in every report") | {"intended_use": "unknown"}
    manifest |= {"research_only": True, "weights": {}}
    if guess:
        manifest |= todo(f"whether it is this task: {guess}")
    manifest |= {"task": task, "inputs": list(_inputs(graph, task))}
    if task in ("segmentation", "image"):
        if graph.free:
            manifest |= todo("the patch that it was trained on, along (slice, row, column)")
        manifest["tiling"] = {"patch": list(graph.space), "overlap": 0.5, "weighting": "gaussian"}
    manifest["outputs"] = [_OUTPUTS[task](graph)]
    return manifest


def _inputs(graph: _Graph, task: str) -> Iterator[dict[str, Any]]:
    """One for each channel of each of the graph's inputs."""
    for spec in graph.inputs:
        channels = spec.shape[1] or 1
        for channel in range(channels):
            entry: dict[str, Any] = {"name": spec.name}
            if channels > 1:
                entry["role"] = f"{package_writer.key_of(spec.name)[:20]}_{channel + 1}"
            entry |= todo(
                f"which series is channel {channel + 1} of {channels}, in the language of a route's when"
            )
            entry["series"] = Flow()
            yield entry | _grid(graph, task) | _intensity()


def _grid(graph: _Graph, task: str) -> dict[str, Any]:
    """Orientation and spacing, or the one size of every image."""
    entry: dict[str, Any] = {}
    if graph.planar:
        entry |= todo("planar: true is of single images; a network of a stack's slices goes without it") | {
            "planar": True
        }
    else:
        entry |= todo("where the axes of its training images ran to, slices, rows, columns") | {
            "orientation": "HPL"
        }
    size = list(graph.space)[graph.planar :]
    if task in ("segmentation", "image"):
        entry |= todo("the spacing that it was trained on, mm; null is as acquired") | {"spacing_mm": None}
    else:
        what = "whole images are brought to this size; of windows write spacing_mm, and tiling"
        entry |= todo(what) | {"size": size}
    return entry


def _intensity() -> dict[str, Any]:
    """The intensity step."""
    what = "how its training images' intensities were scaled: window, ct, z-score, percentile, min-max, linear or none"
    return todo(what) | {"intensity": Flow(kind="window", low=-1000, high=1000)}


def _segmentation(graph: _Graph) -> dict[str, Any]:
    """A segmentation's output."""
    spec = graph.outputs[0]
    count = _length(spec, 1) or 2
    output: dict[str, Any] = {"name": spec.name} | todo(
        "softmax, sigmoid, or none where the network does it itself"
    )
    first = 0 if count == 1 else 1
    output["activation"] = "softmax" if count > 1 else "sigmoid"
    names = [(number + (1 - first), f"label {number}") for number in range(first, count)]
    return output | todo("what its channels mean") | {"labels": package_writer.labels(names)}


def _classes(count: int | None) -> list[dict[str, Any]]:
    """Classes that are still to be named."""
    return [
        {
            "index": index,
            "key": f"class_{index}",
            **todo(f"what channel {index} stands for, and its code"),
            "label": f"class {index}",
            "code": own_code(index, f"class {index}"),
        }
        for index in range(min(count or 1, _MOST_CLASSES))
    ]


def _classification(graph: _Graph) -> dict[str, Any]:
    """A classification's output."""
    spec = graph.outputs[0]
    output: dict[str, Any] = {"name": spec.name} | todo("softmax, sigmoid (multi-label), or none")
    return output | {"activation": "softmax", "classes": _classes(_length(spec, -1))}


def _regression(graph: _Graph) -> dict[str, Any]:
    """A regression's output."""
    spec = graph.outputs[0]
    values = [
        {
            "index": index,
            "key": f"value_{index}",
            **todo(f"what value {index} is, and its unit"),
            "name": own_code(index, f"value {index}"),
            "unit": package_writer.code("1", "no units", "UCUM"),
        }
        for index in range(_length(spec, -1) or 1)
    ]
    return {"name": spec.name, "values": values}


def _detection(graph: _Graph) -> dict[str, Any]:
    """A detection's output: boxes are what has 4 or 6 numbers, and class numbers what has whole ones."""
    boxes = _first(graph.outputs, lambda spec: spec.shape[-1:] in ((4,), (6,))) or graph.outputs[0]
    rest = [spec for spec in graph.outputs if spec is not boxes]
    numbers = _first(rest, lambda spec: spec.dtype.kind in "iu")
    scores = _first(rest, lambda spec: spec is not numbers)
    output: dict[str, Any] = {"boxes": boxes.name} | todo("how boxes are written: box_format, axis_order")
    output |= {"box_format": "corners", "axis_order": "xyz", "scores": scores.name if scores else boxes.name}
    if numbers is not None:
        output["class_numbers"] = numbers.name
    count = _length(scores, -1) if scores is not None and numbers is None and len(scores.shape) > 1 else 1
    return (
        output
        | todo("none where scores are probabilities already")
        | {"activation": "none", "classes": _classes(count)}
    )


def _length(spec: TensorSpec, axis: int) -> int | None:
    """The length of one of its axes; None where nobody knows it, or it has no such axis."""
    return spec.shape[axis] if -len(spec.shape) <= axis < len(spec.shape) else None


def _first(specs: Sequence[TensorSpec], wanted: Any) -> TensorSpec | None:
    """The first that is wanted."""
    return next((spec for spec in specs if wanted(spec)), None)


def _image(graph: _Graph) -> dict[str, Any]:
    """An image-to-image network's output."""
    spec = graph.outputs[0]
    return {"name": spec.name} | {
        "image": todo("what the derived image is") | {"label": long_text(spec.name, "image")}
    }


_OUTPUTS = {
    "segmentation": _segmentation,
    "classification": _classification,
    "regression": _regression,
    "detection": _detection,
    "image": _image,
}
