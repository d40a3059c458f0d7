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
        return replace(answered, findings=replace(answered.findings, engine=ran_on(stage)))


def ran_on(stage: Stage) -> str:
    """What a stage ran on, in words; of the models that it needs, those that took the GPU's place."""
    others = {each.package.manifest.name: each.runner.description for each in stage.whole[:-1]}
    for each in stage.whole:
        names = [member.model for member in each.package.manifest.ensemble]
        others |= dict(zip(names, (runner.description for runner in each.members), strict=True))
    told = [f"{name} on {description}" for name, description in others.items() if IN_PLACE in description]
    return BESIDE.join([stage.runner.description, *told])
