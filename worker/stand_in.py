"""A model's answer whatever the GPU does: where it fails in the middle, another engine answers in its place."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from engines.cascade import Stage
from engines.errors import DeviceError, PlanError
from worker import inference
from worker.inference import Answered, Read, read_files
from worker.series_files import Files
from worker.shelf import Shelf
from worker.stopwatch import Stopwatch
from worker.views import IN_PLACE

#: Between what a model ran on and what those did that it needs.
BESIDE = "; "

logger = logging.getLogger(__name__)


def answer(
    shelf: Shelf,
    model: str,
    files: Mapping[str, Files],
    watch: Stopwatch,
    *,
    parameters: Mapping[str, Any],
    read: Read = read_files,
    progress: Callable[[str, float], None] | None = None,
) -> Answered:
    """`inference.answer` of a model on the shelf at work, begun again where the GPU fails in the middle.

    Its engine says whose place it took, and why: its own, and those of the models that it needs. Raises SeriesError
    and EngineError: DeviceLost where the GPU is lost and nothing takes its place.
    """
    while True:
        with watch("load"):
            stage = shelf.stage(model)
        try:
            answered = inference.answer(
                stage, files, watch, read=read, parameters=parameters, progress=progress
            )
        except (DeviceError, PlanError) as error:
            # Whatever else is raised is the model's on every engine, or the CPU's.
            if not shelf.give_way(error):
                raise
            logger.warning("model %s is asked again: the GPU failed: %s", model, error)
            continue
        findings = replace(answered.findings, engine=ran_on(stage))
        return replace(answered, findings=findings, engine=ran_on(stage, reasons=False))


def ran_on(stage: Stage, *, reasons: bool = True) -> str:
    """What a stage ran on, in words; of the models that it needs, those that took the GPU's place.

    The reasons say what an admin is to do, and are not for those who read the results.
    """
    say = str if reasons else _without_reason
    others = {each.package.manifest.name: each.runner.description for each in stage.whole[:-1]}
    for each in stage.whole:
        names = [member.model for member in each.package.manifest.ensemble]
        others |= dict(zip(names, (runner.description for runner in each.members), strict=True))
    told = [f"{name} on {say(each)}" for name, each in others.items() if IN_PLACE in each]
    return BESIDE.join([say(stage.runner.description), *told])


def _without_reason(description: str) -> str:
    """A runner's description, which names no more than the engine whose place it took."""
    own, place, rest = description.partition(IN_PLACE)
    return own + place + rest.partition(": ")[0]
