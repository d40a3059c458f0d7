"""What a network is shown: batches across slices, slices around, several channels, and prompts with each call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from engines import loader, package, predict
from engines.errors import RunnerError
from engines.runner import Runner, TensorSpec
from engines.testing import FixedRunner
from engines.windows import Network, Window
from tests.engines import build, nets
from worker import parity

SLICES = {"patch": [1, 16, 16], "overlap": 0}


def _package(folder: Path, network: bytes = b"", **changes: Any) -> package.ModelPackage:
    settings = {
        "task": "classification",
        "outputs": [{"name": "out", "activation": "sigmoid", "classes": [nets.one_class("a")]}],
        "tiling": SLICES,
        "results": ["sr"],
    }
    return package.open_package(build.write(folder, network, **(settings | changes)))


def _predicted(opened: package.ModelPackage, runner: FixedRunner, shape: tuple[int, int, int]) -> None:
    array = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    with runner:
        predict.predict(opened, runner, build.volume(array - 500))


def test_slices_of_a_stack_go_to_the_network_several_at_once(tmp_path: Path) -> None:
    opened = _package(tmp_path)
    runner = FixedRunner(opened, {"out": np.zeros((4, 1), np.float32)}, batch=4)
    _predicted(opened, runner, (10, 16, 16))
    # Ten slices in three calls, the last one filled up with nothing
    stacks = [feeds["image"] for feeds in runner.seen]
    assert [stack.shape for stack in stacks] == [(4, 1, 1, 16, 16)] * 3
    assert not stacks[-1][2:].any() and stacks[-1][:2].any()
    means = np.concatenate(stacks)[:6].mean(axis=(1, 2, 3, 4))
    assert (np.diff(means) > 0).all()


def test_windows_of_several_layers_share_a_call_in_their_order(tmp_path: Path) -> None:
    opened = _package(tmp_path, tiling={"patch": [2, 16, 16], "overlap": 0, "mirror_axes": [2]})
    runner = FixedRunner(opened, {"out": np.zeros((3, 1), np.float32)}, batch=3)
    _predicted(opened, runner, (4, 16, 16))
    stack = np.concatenate([feeds["image"] for feeds in runner.seen])
    np.testing.assert_array_equal(stack[1], stack[0][..., ::-1])
    np.testing.assert_array_equal(stack[3], stack[2][..., ::-1])
    assert stack[2].mean() > stack[0].mean() and len(runner.seen) == 2


def test_the_slices_around_one_are_its_channels(tmp_path: Path) -> None:
    opened = _package(tmp_path, tiling=SLICES | {"context": 1})
    runner = FixedRunner(opened, {"out": np.zeros((1, 1), np.float32)})
    _predicted(opened, runner, (3, 16, 16))
    middle = [feeds["image"][0, 0, :, 0, 0].tolist() for feeds in runner.seen]
    low, between, high = middle[1]
    assert low < between < high
    assert middle == [[low, low, between], [low, between, high], [between, high, high]]


def test_prompts_come_with_every_call(tmp_path: Path) -> None:
    prompts = [{"name": "classes", "dtype": "int64", "values": [3, 5]}, {"name": "scale", "values": 0.5}]
    opened = _package(tmp_path, prompts=prompts)
    runner = FixedRunner(opened, {"out": np.zeros((1, 1), np.float32)})
    _predicted(opened, runner, (3, 16, 16))
    assert len(runner.seen) == 3
    for feeds in runner.seen:
        assert feeds["classes"].dtype == np.int64 and feeds["classes"].tolist() == [3, 5]
        assert feeds["scale"].shape == () and feeds["scale"] == 0.5


def test_what_is_skipped_is_looked_for_in_every_input() -> None:
    arrays = {"a": np.zeros((1, 4, 8, 8), np.float32), "b": np.zeros((2, 4, 8, 8), np.float32)}
    arrays["b"][1, 2, 3, 7] = 1
    network = Network(runner=_Both(), patch=(1, 8, 4), skip_at_most=0)
    windows = [Window(corner=(index, 0, column)) for index in range(4) for column in (0, 4)]
    seen: list[float] = []
    with network.runner:
        kept = [
            one
            for answers in network.answers(arrays, windows, progress=seen.append)
            for one in answers.windows
        ]
    assert kept == [Window(corner=(2, 0, 4))]
    assert seen == [0.75, 1.0]


class _Both(FixedRunner):
    """Two inputs of any shape."""

    def __init__(self) -> None:
        self._outputs, self.seen = {}, []
        free = (None, None, None, None, None)
        specs = [TensorSpec(name=name, dtype=np.dtype(np.float32), shape=free) for name in ("a", "b")]
        Runner.__init__(self, inputs=specs, outputs=[], description="both")


def _with_token() -> bytes:
    """A classifier whose export has a class token for one image only."""
    tensors = [
        nets.tensor("token", np.zeros((1, 1), np.float32)),
        nets.tensor("w", np.full((257, 1), 0.01, np.float32)),
    ]
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], axis=1),
        helper.make_node("Concat", ["token", "flat"], ["tokens"], axis=1),
        helper.make_node("MatMul", ["tokens", "w"], ["out"]),
    ]
    return nets.graph(nodes, tensors, [nets.info("image", nets.SPACE[4])], [nets.info("out", ("n", 1))])


def test_stacks_are_opened_for_several_slices_where_the_graph_takes_them(tmp_path: Path) -> None:
    def batch(folder: str, network: bytes, **changes: Any) -> int | None:
        with loader.open_runner(_package(tmp_path / folder, network, **changes)) as runner:
            return runner.inputs[0].shape[0]

    free = nets.pooled((1.0,), (0.0,), rank=4)
    assert batch("stack", free) == 8
    assert batch("large", free, tiling={"patch": [1, 256, 256]}) == 2
    assert batch("huge", free, tiling={"patch": [1, 1024, 1024]}) == 1
    assert batch("planar", free, inputs=[build.entry(planar=True)]) == 1
    assert batch("deep", nets.pooled((1.0,), (0.0,)), tiling={"patch": [4, 16, 16]}) == 1
    # A graph that says it takes any number, and does not
    assert batch("bad", _with_token()) == 1
    with pytest.raises(RunnerError, match="refuses the network"):
        batch("text", b"no network")


@pytest.mark.parametrize(
    ("network", "changes"),
    [
        (nets.pooled((1.0, 2.0), (0.0, 0.5), rank=4), {}),
        (
            nets.affine(0.5, 0.1),
            {
                "task": "image",
                "outputs": [{"name": "out", "image": {"label": "x"}}],
                "tiling": {"patch": [4, 8, 8], "skip_at_most": 9},
            },
        ),
        (
            nets.bright_spots(0.9, (1, 1)),
            {
                "task": "detection",
                "outputs": [
                    {
                        "boxes": "boxes",
                        "scores": "scores",
                        "class_numbers": "labels",
                        "classes": [nets.one_class("a")],
                    }
                ],
            },
        ),
        (
            nets.prompted(),
            {
                "task": "image",
                "outputs": [{"name": "out", "image": {"label": "x"}}],
                "tiling": {"patch": [4, 8, 8]},
                "prompts": [{"name": "points", "values": [[[1, 2]]]}],
            },
        ),
        (
            build.network(),
            {"task": "segmentation", "outputs": build.manifest()["outputs"], "tiling": {"patch": [4, 8, 8]}},
        ),
    ],
)
def test_engines_are_compared_whatever_the_task(
    network: bytes, changes: dict[str, Any], tmp_path: Path
) -> None:
    verdict = parity.compare(_package(tmp_path, network, **changes))
    assert verdict.agrees and verdict.agreement == 1.0
    assert verdict.largest_difference < 1e-4 and verdict.speed_up > 0
