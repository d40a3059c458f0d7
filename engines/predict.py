"""One model's whole answer about one volume: preprocess, infer, postprocess, measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from engines import fusion, labels, measure, segment
from engines.answer import Answer, Case, Clock
from engines.errors import OutputError
from engines.findings import Findings
from engines.manifest_outputs import SegmentationOutput, Task
from engines.package import ModelPackage
from engines.runner import Runner, usable_cores
from engines.volume import Volume

#: Threads beyond this do not make pre- and postprocessing faster: memory is the limit.
_MOST_THREADS = 4

#: The share of the progress bar that ends with each stage.
_PREPROCESSED, _INFERRED = 0.05, 0.95

Progress = Callable[[float], None]

#: What answers each task.
_TASKS: Mapping[Task, Callable[[Case], Answer]] = {"segmentation": segment.answer}


def predict(
    package: ModelPackage,
    runner: Runner,
    volume: Volume,
    others: Mapping[str, Volume] = MappingProxyType({}),
    *,
    progress: Progress | None = None,
    threads: int | None = None,
    clock: Clock | None = None,
) -> Findings:
    """Answer about `volume` with the open network of `package`.

    `others` are the series of the manifest's further inputs, by role. The mask lies on the volume's own grid
    and the measurements are of its own values. `progress` is called with a growing fraction up to 1.
    `threads` bounds the work outside the network; None means as many as this process may use, four at most.
    `clock` adds the seconds of each stage to what it has; None starts anew.
    Raises VolumeError where a volume cannot be used, RunnerError where the runtime fails and
    OutputError where the network's answer cannot be.
    """
    report = progress or _ignore
    count = threads or min(_MOST_THREADS, usable_cores())
    manifest = package.manifest
    check_runner(package, runner)
    measure.check_units(manifest, volume)
    clock = clock or Clock()
    with clock.stage("preprocess"):
        seen = fusion.prepare(manifest, volume, others, threads=count)
    report(_PREPROCESSED)
    answer = _TASKS[manifest.task](
        Case(
            package=package,
            runner=runner,
            volume=volume,
            seen=seen,
            clock=clock,
            report=lambda done: report(_PREPROCESSED + (_INFERRED - _PREPROCESSED) * done),
            threads=count,
        )
    )
    found = _concluded(package, runner, volume, answer, clock=clock, threads=count)
    report(1.0)
    return found


def _concluded(
    package: ModelPackage, runner: Runner, volume: Volume, answer: Answer, *, clock: Clock, threads: int
) -> Findings:
    """The task's answer with what is measured, and what follows from that."""
    manifest = package.manifest
    mask = labels.blank(volume.geometry.shape) if answer.mask is None else answer.mask
    with clock.stage("measure"):
        measurements = (
            *answer.measurements,
            *measure.measure(manifest, volume, mask, threads=threads),
        )
        impossible = measure.impossible(manifest, volume.geometry)
        findings = (*answer.findings, *measure.conclude(manifest, measurements))
    return Findings(
        model=package.identity,
        geometry=volume.geometry,
        mask=mask,
        segments=package.segments,
        measurements=measurements,
        findings=findings,
        impossible=impossible,
        maps=answer.maps,
        boxes=answer.boxes,
        image=answer.image,
        engine=runner.description,
        seconds=clock.seconds,
    )


def check_runner(package: ModelPackage, runner: Runner) -> None:
    """Raise OutputError where the network's inputs and outputs are not those that the manifest names."""
    manifest, output = package.manifest, package.manifest.outputs[0]
    wanted = list(dict.fromkeys(entry.name for entry in manifest.inputs))
    names = [spec.name for spec in runner.inputs]
    if sorted(names) != sorted(wanted):
        only = " alone" if len(wanted) == 1 else ""
        named = ", ".join(f'"{name}"' for name in wanted)
        raise OutputError(f"the network has the inputs {names}; the manifest names {named}{only}")
    shapes = {spec.name: spec.shape for spec in runner.outputs}
    if output.name not in shapes:
        raise OutputError(f'the network has the outputs {sorted(shapes)}; the manifest names "{output.name}"')
    if isinstance(output, SegmentationOutput):
        _check_channels(output, shapes[output.name])


def _check_channels(output: SegmentationOutput, shape: tuple[int | None, ...]) -> None:
    """Raise OutputError where the output has not one channel for each class."""
    classes = segment.channels(output)
    if len(shape) not in (4, 5) or shape[1] not in (None, classes):
        needing = "labels need" if output.activation == "sigmoid" else "labels and the background need"
        raise OutputError(
            f'output "{output.name}" has shape {shape}; the manifest\'s {needing} '
            f"(1, {classes}, slices, rows, columns)"
        )


def _ignore(_: float) -> None:
    """Progress that nobody watches."""
