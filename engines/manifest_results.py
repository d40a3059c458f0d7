"""Which kinds of results a task can make, and which it makes where the manifest says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from engines.manifest_entries import ResultKind
from engines.manifest_outputs import Task

#: What every answer has: a report, on paper too, and a selection that ties the objects of a run together.
_SAID: tuple[ResultKind, ...] = ("sr", "pdf", "key-objects")
#: What is drawn on single slices.
_DRAWN: tuple[ResultKind, ...] = ("key-images", "sr-display", "presentation-state")
_VOXELS: tuple[ResultKind, ...] = ("seg", "labelmap", "rtstruct", "parametric-map", "fractional")

#: By task, those that it can make.
POSSIBLE: Mapping[Task, tuple[ResultKind, ...]] = {
    "segmentation": (*_SAID, *_DRAWN, *_VOXELS),
    "detection": (*_SAID, *_DRAWN),
    # Of a single image there is a picture, with the classes or the values beside it.
    "classification": (*_SAID, "key-images"),
    "regression": (*_SAID, "key-images"),
    "image": (*_SAID, "image-series"),
}

#: By task, those that are made unless the manifest says otherwise.
USUAL: Mapping[Task, tuple[ResultKind, ...]] = {
    "segmentation": ("seg", "sr"),
    "detection": ("sr", "sr-display", "key-images"),
    "classification": ("sr",),
    "regression": ("sr",),
    "image": ("image-series",),
}


def with_usual(given: Any) -> Any:
    """A manifest as read, with the results that its task usually makes where it names none."""
    if isinstance(given, dict) and "results" not in given and given.get("task") in USUAL:
        return {**given, "results": USUAL[given["task"]]}
    return given


def refusal(task: Task, results: tuple[ResultKind, ...], *, planar: bool) -> str:
    """Why a task cannot make all of these; "" where it can."""
    possible = POSSIBLE[task]
    wrong = [kind for kind in results if kind not in possible]
    if wrong:
        return (
            f"results: a model of the task {task} makes no {', '.join(wrong)}; "
            f"it can make {', '.join(possible)}"
        )
    if "key-images" in results and task in ("classification", "regression") and not planar:
        return f"results: no slice of a volume stands out for the task {task}: leave key-images out"
    return ""
