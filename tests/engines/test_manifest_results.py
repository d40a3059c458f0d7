"""What a model may list as its results: what its task can make, and no more."""

from __future__ import annotations

from typing import Any, get_args

import pytest
from pydantic import ValidationError

from engines.manifest import Manifest
from engines.manifest_entries import ResultKind
from engines.manifest_outputs import Task
from engines.manifest_results import POSSIBLE, USUAL
from tests.engines import build

_CLASS = {"index": 0, "key": "nodule", "label": "Nodule", "code": build.code("27925004", "Nodule")}
_VALUE = {"index": 0, "key": "age", "name": build.code("246456000", "Age"), "unit": build.ML}

#: What the outputs of each task look like.
OUTPUTS: dict[str, dict[str, Any]] = {
    "segmentation": {"name": "logits", "labels": [build.label(1, "label1")]},
    "classification": {"name": "logits", "classes": [_CLASS]},
    "regression": {"name": "logits", "values": [_VALUE]},
    "detection": {"boxes": "boxes", "scores": "scores", "classes": [_CLASS]},
    "image": {"name": "image", "image": {"label": "denoised"}},
}


def manifest(task: str, **changes: Any) -> Manifest:
    return Manifest.model_validate(build.manifest(task=task, outputs=[OUTPUTS[task]], **changes))


def test_there_is_a_row_for_every_task_and_a_task_for_every_kind() -> None:
    assert POSSIBLE.keys() == USUAL.keys() == set(get_args(Task)) == OUTPUTS.keys()
    assert {kind for kinds in POSSIBLE.values() for kind in kinds} == set(get_args(ResultKind))


@pytest.mark.parametrize("task", OUTPUTS)
def test_a_manifest_that_lists_nothing_makes_what_is_usual(task: str) -> None:
    assert manifest(task).results == USUAL[task]  # type: ignore[index]
    assert set(USUAL[task]) <= set(POSSIBLE[task])  # type: ignore[index]


def test_what_is_listed_stands() -> None:
    assert manifest("image", results=["sr"]).results == ("sr",)
    assert manifest("detection", results=[]).results == ()


@pytest.mark.parametrize(
    ("task", "kind"),
    [
        ("classification", "seg"),
        ("regression", "rtstruct"),
        ("detection", "labelmap"),
        ("segmentation", "image-series"),
        ("image", "key-images"),
    ],
)
def test_what_a_task_cannot_make_is_an_error_that_names_it(task: str, kind: str) -> None:
    with pytest.raises(
        ValidationError, match=f"results: a model of the task {task} makes no {kind}; it can make"
    ):
        manifest(task, results=["sr", kind])


def test_a_classifier_of_volumes_has_no_slice_to_show() -> None:
    with pytest.raises(ValidationError, match="no slice of a volume stands out"):
        manifest("classification", results=["key-images"])
    planar = build.entry(planar=True, size=[64, 64])
    assert manifest("classification", results=["key-images"], inputs=[planar], tiling=None).results == (
        "key-images",
    )


def test_words_may_name_classes() -> None:
    words = {"zh": {"findings": {"nodule": "结节"}}}
    assert manifest("detection", words=words).words["zh"].findings == {"nodule": "结节"}
