"""Models of clips: which moments they see, and what they answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines import clips, loader, package, predict
from engines.errors import PackageError, VolumeError
from engines.findings import Findings
from engines.manifest_inputs import Frames
from engines.volume import Geometry, Scale, Volume
from tests.engines import build

LENGTH, SIZE = 4, (8, 6)


@pytest.mark.parametrize(
    ("count", "frames", "expected"),
    [
        (8, {"length": 4}, (1, 3, 5, 7)),
        (4, {"length": 4}, (0, 1, 2, 3)),
        (2, {"length": 4}, (0, 0, 1, 1)),
        (1, {"length": 3}, (0, 0, 0)),
        (9, {"length": 1}, (4,)),
        (20, {"length": 4, "every": 2}, (6, 8, 10, 12)),
        (7, {"length": 4, "every": 2}, (0, 2, 4, 6)),
    ],
)
def test_the_moments_that_are_seen(count: int, frames: dict[str, int], expected: tuple[int, ...]) -> None:
    assert clips.chosen(count, Frames.model_validate(frames)) == expected


def test_a_clip_that_is_too_short_for_its_step_is_refused() -> None:
    with pytest.raises(VolumeError, match="the clip has 6 frames; the model needs 7, of which it looks at 4"):
        clips.chosen(6, Frames(length=4, every=2))


def weighing(depth: int = LENGTH, rows: int = SIZE[0], columns: int = SIZE[1]) -> bytes:
    """A network whose one value is the sum over the frames of (frame's number + 1) x (frame's mean)."""
    weights = np.arange(1, depth + 1, dtype=np.float32).reshape(1, 1, depth, 1, 1)
    nodes = [
        helper.make_node("ReduceMean", ["image"], ["means"], axes=[3, 4], keepdims=1),
        helper.make_node("Mul", ["means", "w"], ["weighed"]),
        helper.make_node("ReduceSum", ["weighed", "axes"], ["value"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "clip",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, depth, rows, columns])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, ["n", 1])],
        [
            numpy_helper.from_array(weights, "w"),
            numpy_helper.from_array(np.array([2, 3, 4], np.int64), "axes"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def changes_of(**changes: Any) -> dict[str, Any]:
    window = {"kind": "window", "low": 0, "high": 100}
    entry = {"planar": True, "frames": {"length": LENGTH}, "size": list(SIZE), "intensity": window}
    one = build.code("1", "no units", "UCUM")
    return {
        "task": "regression",
        "inputs": [build.entry(**entry | changes.pop("entry", {}))],
        "tiling": None,
        "outputs": [
            {
                "name": "value",
                "values": [{"key": "weight", "index": 0, "name": build.code("1", "Weight"), "unit": one}],
            }
        ],
        "results": ["sr"],
    } | changes


def _clip(frames: NDArray[Any]) -> Volume:
    affine = np.zeros((4, 4))
    affine[[0, 1, 2, 3], [2, 1, 0, 3]] = 1
    middle = frames[[len(frames) // 2]]
    geometry = Geometry(shape=middle.shape, affine=affine, in_patient=False, scale=Scale.NONE)
    return Volume(array=middle, geometry=geometry, frames=frames)


def _answer(folder: Path, volume: Volume, engine: loader.Engine = "onnxruntime", **changes: Any) -> Findings:
    opened = package.open_package(build.write(folder, weighing(), **changes_of(**changes)))
    with loader.open_runner(opened, engine=engine, threads=1) as runner:
        return predict.predict(opened, runner, volume)


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("size", [SIZE, (16, 24)])
def test_the_network_sees_every_frame_in_its_turn(
    tmp_path: Path, engine: loader.Engine, size: tuple[int, int]
) -> None:
    # Given a clip whose frames are each brighter than the last, of the model's size or larger
    frames = np.random.default_rng(0).integers(0, 60, (LENGTH, *size)).astype(np.int16)
    frames += np.array([0, 10, 20, 30], np.int16)[:, None, None]
    found = _answer(tmp_path, _clip(frames), engine)
    # Then its answer is of their order: nothing was averaged along time
    expected = float((np.arange(1, LENGTH + 1) * frames.mean(axis=(1, 2)) / 100).sum())
    assert [(one.key, one.value) for one in found.measurements] == [
        ("weight", pytest.approx(expected, rel=1e-4))
    ]
    assert found.geometry.shape == (1, *size)


def test_an_image_without_frames_is_refused(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 60, (LENGTH, *SIZE)).astype(np.int16)
    with pytest.raises(VolumeError, match="the image has no frames; the model looks at clips"):
        _answer(tmp_path, replace(_clip(frames), frames=None))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"tiling": {"patch": [4, 8, 6]}}, "tiling: remove it; a clip is seen whole"),
        ({"entry": {"planar": False, "size": [4, 8, 6]}}, "frames says nothing where planar is false"),
        ({"entry": {"frames": {"length": 0}}}, "inputs[0].frames.length"),
    ],
)
def test_a_manifest_that_wants_of_a_clip_what_it_cannot_give_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(PackageError) as caught:
        package.open_package(build.write(tmp_path, weighing(), **changes_of(**changes)))
    assert said in str(caught.value)


def test_a_clip_is_not_segmented(tmp_path: Path) -> None:
    outputs = [{"name": "value", "labels": [build.label(1, "label1")]}]
    with pytest.raises(PackageError) as caught:
        package.open_package(
            build.write(
                tmp_path,
                weighing(),
                **changes_of(task="segmentation", outputs=outputs, tiling={"patch": [1, 8, 6]}),
            )
        )
    assert "clips are classified, or values estimated of them" in str(caught.value)
