"""Whether an open network is the one that a manifest describes: names, channels and shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from engines.errors import InputMismatch, OutputError
from engines.manifest import Manifest
from engines.manifest_outputs import (
    Class,
    ClassificationOutput,
    DetectionOutput,
    ImageOutput,
    Output,
    RegressionOutput,
    SegmentationOutput,
    Value,
)
from engines.package import MANIFEST, ModelPackage
from engines.runner import Runner, TensorSpec, of_rank

_Shape = tuple[int | None, ...]


def shapes(manifest: Manifest, *, batch: int = 1) -> dict[str, tuple[int, ...]]:
    """The shape of each image input of the graph: `batch` windows of all its channels."""
    windows = manifest.windows
    deep = windows.patch[0] + 2 * windows.context
    return {name: (batch, count, deep, *windows.patch[1:]) for name, count in manifest.channels.items()}


def channels(output: SegmentationOutput) -> int:
    """How many channels the network's output has: regions have no background."""
    return len(output.labels) + (output.activation != "sigmoid")


def check_runner(package: ModelPackage, runner: Runner) -> None:
    """Raise OutputError or InputMismatch, with the package's file, where the network is not what the manifest says."""
    try:
        check_graph(package.manifest, runner.inputs, runner.outputs)
    except (InputMismatch, OutputError) as error:
        raise type(error)(
            f"{package.folder / MANIFEST}: {error}: correct the manifest, or export the network again"
        ) from error


def check_graph(manifest: Manifest, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]) -> None:
    """Raise OutputError where a graph's inputs and outputs are not those that the manifest names, and InputMismatch
    where an image of the manifest does not fit its input.
    """
    wanted, output = shapes(manifest), manifest.outputs[0]
    _check_names(inputs, [*wanted, *(prompt.name for prompt in manifest.prompts)])
    for spec in inputs:
        if spec.name in wanted:
            _check_input(spec, wanted[spec.name], flat=manifest.windows.patch[0] == 1)
    found = {spec.name: spec.shape for spec in outputs}
    for name in names(output):
        if name not in found:
            raise OutputError(f'the network has the outputs {sorted(found)}; the manifest names "{name}"')
    # Of some graphs nobody knows before they have answered.
    if all(found[name] for name in names(output)):
        _check_output(manifest, found)


def names(output: Output) -> tuple[str, ...]:
    """The outputs of the graph that the manifest's output is made of."""
    if isinstance(output, DetectionOutput):
        further = (output.class_numbers,) if output.class_numbers is not None else ()
        return (output.boxes, output.scores, *further)
    return (output.name,)


def _check_names(inputs: Sequence[TensorSpec], wanted: list[str]) -> None:
    """Raise OutputError where the inputs are not the manifest's."""
    found = [spec.name for spec in inputs]
    if sorted(found) != sorted(wanted):
        only = " alone" if len(wanted) == 1 else ""
        named = ", ".join(f'"{name}"' for name in wanted)
        raise OutputError(f"the network has the inputs {found}; the manifest names {named}{only}")


def _check_input(spec: TensorSpec, wanted: tuple[int, ...], *, flat: bool) -> None:
    """Raise InputMismatch where windows of the `wanted` shape do not fit the input; those of one slice, `flat`,
    also fit a network without slices.
    """
    given = of_rank(wanted, len(spec.shape)) if flat else wanted
    fits = len(given) == len(spec.shape) and all(
        length in (None, own) for length, own in zip(spec.shape[1:], given[1:], strict=True)
    )
    if not fits:
        raise InputMismatch(
            f"the network's input is {spec}; the manifest's inputs and patch make "
            f"(n, {', '.join(map(str, given[1:]))})"
        )


def _check_output(manifest: Manifest, found: Mapping[str, _Shape]) -> None:
    """Raise OutputError where an output cannot hold what the manifest says of it."""
    output = manifest.outputs[0]
    match output:
        case SegmentationOutput():
            _check_labels(output, found[output.name])
        case ClassificationOutput():
            _check_row(output.name, "classes", output.classes, found[output.name])
        case RegressionOutput():
            _check_row(output.name, "values", output.values, found[output.name])
        case DetectionOutput():
            _check_boxes(output, found, flat=manifest.windows.patch[0] == 1)
        case ImageOutput():
            shape = found[output.name]
            if len(shape) not in (4, 5) or shape[1] not in (None, 1):
                raise OutputError(
                    f'output "{output.name}" has shape {shape}; an image needs (1, 1, slices, rows, columns)'
                )


def _check_labels(output: SegmentationOutput, shape: _Shape) -> None:
    """One channel for each class."""
    classes = channels(output)
    if len(shape) not in (4, 5) or shape[1] not in (None, classes):
        needing = "labels need" if output.activation == "sigmoid" else "labels and the background need"
        raise OutputError(
            f'output "{output.name}" has shape {shape}; the manifest\'s {needing} '
            f"(1, {classes}, slices, rows, columns)"
        )


def _check_row(name: str, what: str, entries: tuple[Class, ...] | tuple[Value, ...], shape: _Shape) -> None:
    """A number for each entry."""
    if len(shape) != 2:
        raise OutputError(f'output "{name}" has shape {shape}; the manifest\'s {what} need (1, {what})')
    for key in _beyond(entries, shape[1]):
        raise OutputError(
            f'outputs[0].{what}: {key} is beyond the {shape[1]} numbers of output "{name}", {shape}'
        )


def _check_boxes(output: DetectionOutput, found: Mapping[str, _Shape], *, flat: bool) -> None:
    """Boxes of the patch's dimensions, and for each a score and a class, or a score for each class."""
    boxes, scores = found[output.boxes], found[output.scores]
    numbers = 4 if flat else 6
    if len(boxes) not in (2, 3) or boxes[-1] not in (None, numbers):
        raise OutputError(
            f'output "{output.boxes}" has shape {boxes}; boxes of a patch of '
            f"{'one slice' if flat else 'slices'} need (boxes, {numbers})"
        )
    further = 0 if output.class_numbers is not None else 1
    for name in [output.scores, output.class_numbers]:
        shape = found[name] if name is not None else scores
        if len(shape) != len(boxes) - 1 + further:
            layout = "(boxes, classes)" if further else "(boxes,)"
            raise OutputError(
                f'output "{name or output.scores}" has shape {shape}; beside boxes {boxes} it needs {layout}'
            )
    for key in _beyond(output.classes, scores[-1]) if further else ():
        raise OutputError(
            f'outputs[0].classes: {key} is beyond the {scores[-1]} classes of output "{output.scores}"'
        )


def _beyond(entries: tuple[Class, ...] | tuple[Value, ...], length: int | None) -> Iterator[str]:
    """The entries whose index an output of this length does not have."""
    if length is not None:
        yield from (f"{entry.key} ({entry.index})" for entry in entries if entry.index >= length)
