"""One model's whole answer about one volume: preprocess, infer, postprocess, measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from engines import (
    classify,
    detect,
    fit,
    fusion,
    labels,
    manifest_prompts,
    measure,
    regress,
    segment,
    translate,
)
from engines.answer import Answer, Case, Clock
from engines.findings import Findings
from engines.given import NOTHING, Given
from engines.manifest_outputs import Task
from engines.package import ModelPackage
from engines.runner import Runner, usable_cores
from engines.volume import Volume

#: Threads beyond this do not make pre- and postprocessing faster: memory is the limit.
_MOST_THREADS = 4

#: The share of the progress bar that ends with each stage.
_PREPROCESSED, _INFERRED = 0.05, 0.95

Progress = Callable[[float], None]

#: What answers each task.
_TASKS: Mapping[Task, Callable[[Case], Answer]] = {
    "segmentation": segment.answer,
    "classification": classify.answer,
    "regression": regress.answer,
    "detection": detect.answer,
    "image": translate.answer,
}


def predict(
    package: ModelPackage,
    runner: Runner,
    volume: Volume,
    others: Mapping[str, Volume] = MappingProxyType({}),
    *,
    given: Given = NOTHING,
    members: Sequence[Runner] = (),
    parameters: Mapping[str, Any] = MappingProxyType({}),
    progress: Progress | None = None,
    threads: int | None = None,
    clock: Clock | None = None,
) -> Findings:
    """Answer about `volume` with the open network of `package`.

    `others` are the series of the manifest's further inputs, by role; `given` is what earlier models found,
    and `members` are the open networks of the manifest's ensemble (`cascade` has both at hand). `parameters`
    take the place of the values of the manifest's prompts, by name. The mask lies on the volume's own grid and the
    measurements are of its own values. `progress` is called with a growing fraction up to 1. `threads` bounds the
    work outside the network; None means as many as this process may use, four at most. `clock` adds the seconds of
    each stage to what it has; None starts anew.
    Raises VolumeError where a volume cannot be used, RunnerError where the runtime fails, InputMismatch where
    a parameter or the network's input is not what the manifest says, and
    OutputError where the network's answer cannot be.
    """
    report = progress or ignore
    count = threads or min(_MOST_THREADS, usable_cores())
    manifest = package.manifest
    for each in (runner, *members):
        fit.check_runner(package, each)
    prompts = manifest_prompts.given(manifest.prompts, parameters)
    measure.check_units(manifest, volume)
    clock, part = clock or Clock(), given.cut(volume)
    others = given.cut_others(others, volume.geometry)
    with clock.stage("preprocess"):
        seen = fusion.prepare(manifest, part, others, labelled=given.labelled, threads=count)
        seen = given.beside(seen, part, manifest.reference, threads=count)
    report(_PREPROCESSED)
    answer = _TASKS[manifest.task](
        Case(
            package=package,
            runner=runner,
            members=tuple(members),
            volume=part,
            seen=seen,
            prompts=prompts,
            clock=clock,
            report=lambda done: report(_PREPROCESSED + (_INFERRED - _PREPROCESSED) * done),
            threads=count,
        )
    )
    answer = given.back(answer, volume.geometry)
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
        image_label=manifest.image_label,
        engine=runner.description,
        seconds=clock.seconds,
    )


def ignore(_: float) -> None:
    """Progress that nobody watches."""
