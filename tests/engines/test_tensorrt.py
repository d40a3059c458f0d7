"""TensorRT on a pretended GPU: the network's own answers, in order, whatever is under way; and what goes wrong."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from engines import gpu, loader, tiling
from engines import package as model_package
from engines.errors import DeviceError, DeviceFull, DeviceLost, PlanError, RunnerError
from engines.package import ModelPackage
from engines.plans import Plans
from engines.runner import Runner
from tests.engines import build as packages
from tests.engines import nets
from tests.support.double import Machine


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return _package(tmp_path, packages.thresholds((-0.5, 0.5)))


@pytest.fixture
def kept(tmp_path: Path) -> Plans:
    return Plans(folder=tmp_path / "plans")


def _package(folder: Path, network: bytes, **changes: Any) -> ModelPackage:
    return model_package.open_package(packages.write(folder / "model", network, **changes))


def _open(package: ModelPackage, kept: Plans) -> Runner:
    gpu.build(package, kept, precision="float32")
    return loader.open_runner(package, engine="tensorrt", kept=kept, precision="float32", unverified=True)


def _patches(runner: Runner, count: int) -> Iterator[dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(0)
    (spec,) = runner.inputs
    shape = tuple(length or 1 for length in spec.shape)
    for _ in range(count):
        yield {spec.name: rng.normal(0, 1, shape).astype(spec.dtype)}


def test_it_says_what_it_runs_on(machine: Machine, package: ModelPackage, kept: Plans) -> None:
    assert str(gpu.target()) == "Pretended GPU (9.0), tensorrt 11.4.0.106"
    with _open(package, kept) as runner:
        assert runner.description == "tensorrt 11.4.0.106 Pretended GPU float32"
        assert runner.device_bytes > 0


@pytest.mark.parametrize("records", [True, False], ids=["with a CUDA graph", "without"])
@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_answers_come_in_order_and_are_the_network_s_own(
    machine: Machine, package: ModelPackage, kept: Plans, count: int, records: bool
) -> None:
    machine.change(records=records)
    with (
        _open(package, kept) as runner,
        loader.open_runner(package, engine="onnxruntime") as reference,
    ):
        asked = list(_patches(runner, count))
        for feed, answer in zip(asked, runner.infer_each(iter(asked)), strict=True):
            for name, array in answer.items():
                wanted = [
                    reference.infer({key: one[None] for key, one in whole.items()})[name][0]
                    for whole in _each(feed)
                ]
                assert np.array_equal(array, np.stack(wanted))
        assert {stage: seconds > 0 for stage, seconds in runner.seconds.items()} == dict.fromkeys(  # type: ignore[attr-defined]
            ("stage", "copy in", "compute", "copy out"), True
        )


def _each(feed: dict[str, NDArray[Any]]) -> Iterator[dict[str, NDArray[Any]]]:
    """The patches of a stack one by one."""
    for number in range(len(next(iter(feed.values())))):
        yield {name: array[number] for name, array in feed.items()}


def test_the_next_patch_is_sent_before_the_first_answer_is_taken(
    machine: Machine, package: ModelPackage, kept: Plans
) -> None:
    taken = 0

    def counted(feeds: Iterator[dict[str, NDArray[Any]]]) -> Iterator[dict[str, NDArray[Any]]]:
        nonlocal taken
        for feed in feeds:
            taken += 1
            yield feed

    with _open(package, kept) as runner:
        answers = runner.infer_each(counted(_patches(runner, 5)))
        next(answers)
        assert taken == 2
        # Who stops in the middle leaves it usable
        answers.close()  # type: ignore[attr-defined]
        for feed in _patches(runner, 1):
            assert np.isfinite(runner.infer(feed)["logits"]).all()


def test_a_whole_image_has_the_same_logits_as_on_the_reference(
    machine: Machine, package: ModelPackage, kept: Plans
) -> None:
    image = np.random.default_rng(1).normal(0, 1, (1, 30, 40, 33)).astype(np.float32)
    settings = package.manifest.windows
    slabs = {}
    for engine in ("tensorrt", "onnxruntime"):
        runner = (
            _open(package, kept)
            if engine == "tensorrt"
            else loader.open_runner(package, engine="onnxruntime")
        )
        with runner:
            found = tiling.sweep(runner, {"image": image}, settings, output_name="logits", classes=3)
            slabs[engine] = np.concatenate([slab.logits.copy() for slab in found], axis=1)
    assert np.array_equal(slabs["tensorrt"], slabs["onnxruntime"])


def test_outputs_whose_length_the_values_decide_come_at_their_length(
    machine: Machine, tmp_path: Path, kept: Plans
) -> None:
    found = helper.make_node("NonZero", ["positive"], ["found"])
    positive = helper.make_node("Greater", ["image", "zero"], ["positive"])
    graph = helper.make_graph(
        [positive, found],
        "points",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 16, 16])],
        [helper.make_tensor_value_info("found", TensorProto.INT64, [5, "number"])],
        [helper.make_tensor("zero", TensorProto.FLOAT, [], [2.5])],
    )
    network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    package = _package(tmp_path, network.SerializeToString())
    with _open(package, kept) as runner:
        assert runner.outputs[0].shape == (5, None)
        for feed in _patches(runner, 4):
            wanted = np.stack(np.nonzero(feed["image"] > 2.5))
            assert 0 < wanted.shape[1] < 4096
            assert np.array_equal(runner.infer(feed)["found"], wanted)
        (growing,) = runner._lanes[0]._growing.values()  # type: ignore[attr-defined]
        assert growing.reallocate_output_async("found", 0, 5 * 4096 * 8, 256, 0) != 0
        assert growing.reallocate_output_async("found", 0, 5 * 4096 * 8 + 1, 256, 0) == 0


def test_it_works_in_any_thread(machine: Machine, package: ModelPackage, kept: Plans) -> None:
    with _open(package, kept) as runner:
        (feed,) = _patches(runner, 1)
        wanted = runner.infer(feed)["logits"].copy()
        found: list[NDArray[Any]] = []
        threads = [
            threading.Thread(target=lambda: found.append(runner.infer(feed)["logits"].copy()))
            for _ in range(3)
        ]
        for thread in threads:
            thread.start()
            thread.join()
        assert len(found) == 3 and all(np.array_equal(one, wanted) for one in found)


def test_what_was_closed_gives_the_device_s_memory_back(
    machine: Machine, package: ModelPackage, kept: Plans
) -> None:
    free, total = gpu.memory()
    runner = _open(package, kept)
    assert gpu.memory()[0] == free - runner.device_bytes and total == 4096 * 2**20
    runner.close()
    assert gpu.memory()[0] == free


def test_what_was_recorded_is_given_back_too(machine: Machine, package: ModelPackage, kept: Plans) -> None:
    from cuda.bindings import driver as graphs

    free, _ = gpu.memory()
    with _open(package, kept) as runner:
        for _ in runner.infer_each(_patches(runner, 5)):
            pass
        assert len(graphs._graphs) == 2
    assert not graphs._graphs
    assert gpu.memory()[0] == free


def test_a_shape_that_the_plan_was_not_compiled_for_is_a_matter_of_the_plan(
    machine: Machine, package: ModelPackage, kept: Plans
) -> None:
    with _open(package, kept) as runner, pytest.raises(PlanError, match="compiled for another shape"):
        runner.infer({"image": np.zeros((1, 1, 8, 16, 15), np.float32)})


# What goes wrong -----------------------------------------------------------------------------------


def test_without_the_libraries_it_says_what_to_install() -> None:
    with pytest.raises(DeviceError, match=r"is not installed: .*pip install 'secondread\[gpu\]'"):
        gpu.target()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"devices": 0}, "no CUDA-capable device is detected.*nvidia-smi"),
        (
            {"driver": 12040},
            "the driver is for CUDA 12, pycuda was built for CUDA 13.*update the NVIDIA driver",
        ),
    ],
    ids=["no device", "old driver"],
)
def test_without_a_device_it_says_what_is_missing(machine: Machine, what: dict[str, Any], said: str) -> None:
    machine.change(**what)
    with pytest.raises(DeviceError, match=said):
        gpu.target()


def test_an_operator_that_the_parser_does_not_know_is_named_with_its_node(
    machine: Machine, package: ModelPackage, kept: Plans
) -> None:
    network = onnx.load_from_string(package.read_weights())
    operator = network.graph.node[0].op_type
    machine.change(refuses=[operator])
    with pytest.raises(
        PlanError, match=rf"cannot read the network: node 0.*\({operator}\): Plugin not found"
    ):
        gpu.build(package, kept, precision="float32")


def test_a_device_that_is_full_says_so_in_the_build_and_in_the_opening(
    machine: Machine, package: ModelPackage, kept: Plans
) -> None:
    machine.change(full_at_build=True)
    with pytest.raises(DeviceFull, match="OutOfMemory"):
        gpu.build(package, kept)
    machine.change(full_at_build=False)
    gpu.build(package, kept, precision="float32")
    machine.change(megabytes=1)
    with pytest.raises(DeviceFull, match="does not suffice"):
        _open(package, kept)
    machine.change(megabytes=4096)
    free = gpu.memory()[0]
    with _open(package, kept):
        pass
    assert gpu.memory()[0] == free


def test_a_lost_device_stays_lost_to_the_process(
    machine: Machine, package: ModelPackage, kept: Plans
) -> None:
    with _open(package, kept) as runner:
        machine.change(lost_after=3)
        with pytest.raises(
            DeviceLost, match=r"Pretended GPU is lost to this process: .*illegal memory access"
        ):
            for _ in runner.infer_each(_patches(runner, 9)):
                pass
        machine.change(lost_after=None)
        for attempt in (
            gpu.target,
            gpu.memory,
            lambda: _open(package, kept),
            lambda: runner.infer(next(_patches(runner, 1))),
        ):
            with pytest.raises(DeviceLost):
                attempt()


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ({"tensorrt": "10.13.3.9"}, "has no plan for .*tensorrt 10.13.3.9"),
        ({"gpu": "Another"}, "has no plan for Another"),
    ],
    ids=["another compiler", "another GPU"],
)
def test_a_plan_from_elsewhere_is_not_taken(
    tmp_path: Path, package: ModelPackage, kept: Plans, what: dict[str, Any], said: str
) -> None:
    from tests.support import double

    with double.installed(tmp_path) as first:
        record = gpu.build(package, kept)
        first.change(**what)
    with double.installed(tmp_path) as second:
        second.change(**what)
        with pytest.raises(PlanError, match=said):
            loader.open_runner(package, engine="tensorrt", kept=kept)
        # Nor where somebody copied it to where this machine looks
        (plan,) = kept.folder.glob("*.plan")
        forged = record.model_copy(update={"key": record.key.model_copy(update={"target": gpu.target()})})
        plan.rename(kept.folder / f"{forged.key.name}-{record.sha256[:24]}.plan")
        (kept.folder / f"{forged.key.name}.json").write_text(forged.model_dump_json())
        with pytest.raises(PlanError, match=r"TensorRT does not take the plan: run .* --again`"):
            loader.open_runner(package, engine="tensorrt", kept=kept, unverified=True)


def test_a_plan_that_the_gate_has_not_accepted_does_not_serve(
    machine: Machine, package: ModelPackage, kept: Plans
) -> None:
    gpu.build(package, kept)
    with pytest.raises(PlanError, match="not compared with the reference yet"):
        loader.open_runner(package, engine="tensorrt", kept=kept)


def test_the_compiler_s_progress_is_passed_on_and_its_measurements_are_kept(
    machine: Machine, package: ModelPackage, kept: Plans
) -> None:
    seen: list[tuple[str, float]] = []
    gpu.build(package, kept, progress=lambda phase, done: seen.append((phase, done)))
    assert [done for phase, done in seen if phase == "Computing profile 0"] == [0, 0.25, 0.5, 0.75, 1, 1]
    timing = kept.timing_cache(gpu.target())
    assert timing.read_bytes() == b"pretended timing cache 1"
    gpu.build(package, kept, again=True)
    assert timing.read_bytes() == b"pretended timing cache 2"


def test_a_graph_that_takes_one_patch_only_is_compiled_for_one(
    machine: Machine, tmp_path: Path, kept: Plans
) -> None:
    flat = helper.make_node("Reshape", ["image", "one"], ["flat"])
    network = nets.graph(
        [flat, helper.make_node("Concat", ["flat", "flat", "flat"], ["logits"], axis=1)],
        [nets.tensor("one", np.array([1, 1, 8, 16, 16], np.int64))],
        [nets.info("image", ["n", 1, 8, 16, 16])],
        [nets.info("logits", ["n", 3, 8, 16, 16])],
    )
    package = _package(tmp_path, network)
    assert gpu.batch(package.manifest) == 32
    with _open(package, kept) as runner:
        assert runner.inputs[0].shape == (1, 1, 8, 16, 16)


def test_a_child_process_does_not_use_what_its_parent_opened(machine: Machine) -> None:
    import os

    gpu.target()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            gpu.memory()
            said = b"nothing"
        except DeviceError as error:
            said = str(error).encode()
        os.write(writing, said)
        os._exit(0)
    os.waitpid(child, 0)
    assert b"before this process was forked" in os.read(reading, 1000)


def test_a_closed_runner_says_so(machine: Machine, package: ModelPackage, kept: Plans) -> None:
    runner = _open(package, kept)
    runner.close()
    with pytest.raises(RunnerError, match="closed"):
        list(runner.infer_each([{}]))
    with _open(package, kept) as again, pytest.raises(PlanError):
        again.infer({})
