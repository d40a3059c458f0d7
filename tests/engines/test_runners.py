"""Every backend keeps the same promises, and they agree."""

from __future__ import annotations

import gc
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper
from onnxruntime.capi import onnxruntime_pybind11_state
from openvino import exceptions, frontend

from engines import loader, ort, ov, package
from engines.errors import InputMismatch, PackageError, RunnerError
from engines.runner import Runner
from engines.testing import ThresholdRunner
from tests.engines import build, nets

#: Those of the CPU; those of a GPU have tests of their own.
ENGINES = loader.ON_THE_CPU
PATCH = (1, 1, 8, 16, 16)


def _image(seed: int = 1) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=PATCH).astype(np.float32)


def _open(folder: Path, engine: loader.Engine, **changes: Any) -> Runner:
    return loader.open_runner(
        package.open_package(build.write(folder, build.network(**changes))), engine=engine, threads=1
    )


def test_backends_agree(tmp_path: Path) -> None:
    answers = []
    for engine in ENGINES:
        with _open(tmp_path / engine, engine) as runner:
            answers.append(runner.infer({"image": _image()})["logits"].copy())
    assert answers[0].shape == (1, 3, 8, 16, 16)
    assert answers[0].std() > 0.1
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-5)


def test_backends_agree_with_the_shipped_fake(tmp_path: Path) -> None:
    opened = package.open_package(build.write(tmp_path, build.thresholds((0.2, 0.7))))
    with ThresholdRunner((0.2, 0.7), patch=(8, 16, 16)) as fake:
        expected = fake.infer({"image": _image()})["logits"]
    for engine in ENGINES:
        with loader.open_runner(opened, engine=engine, threads=1) as runner:
            assert [spec.name for spec in runner.inputs] == [spec.name for spec in fake.inputs]
            answer = runner.infer({"image": _image()})["logits"]
            np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_runner_says_what_it_is(tmp_path: Path, engine: loader.Engine) -> None:
    with _open(tmp_path, engine) as runner:
        assert runner.description.startswith(engine)
        assert runner.description.endswith("CPU float32")
        (spec,) = runner.inputs
        assert (spec.name, spec.dtype, spec.shape) == ("image", np.dtype(np.float32), PATCH)
        assert runner.outputs[0].name == "logits"
        assert runner.outputs[0].shape[1] == 3


@pytest.mark.parametrize("engine", ENGINES)
def test_a_port_has_its_name_in_the_graph_whatever_it_is_merged_with(
    tmp_path: Path, engine: loader.Engine
) -> None:
    # Given outputs that are a constant, and another value, under names that sort before theirs
    nodes = [
        helper.make_node("Relu", ["image"], ["active"]),
        helper.make_node("Identity", ["active"], ["out"]),
        helper.make_node("Identity", ["class"], ["labels"]),
    ]
    space = ("n", 1, "d", "h", "w")
    network = nets.graph(
        nodes,
        [nets.tensor("class", np.array([1], np.float32))],
        [nets.info("image", space)],
        [nets.info("out", space), nets.info("labels", (1,))],
    )
    opened = package.open_package(build.write(tmp_path, network))
    with loader.open_runner(opened, engine=engine, threads=1) as runner:
        assert [spec.name for spec in runner.outputs] == ["out", "labels"]
        answer = runner.infer({"image": np.full((1, 1, 8, 16, 16), 2, np.float32)})
    assert answer["labels"].tolist() == [1] and (answer["out"] == 2).all()


def test_a_free_axis_that_nobody_fixes_stays_free() -> None:
    with ort.ONNXRuntimeRunner(build.network(), shapes={}, threads=1) as runner:
        assert runner.inputs[0].shape == (None, 1, None, None, None)
        assert runner.infer({"image": np.zeros((2, 1, 5, 6, 7), np.float32)})["logits"].shape == (
            2,
            3,
            5,
            6,
            7,
        )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("feeds", "complaint"),
    [
        ({"picture": np.zeros(PATCH, np.float32)}, r"expected inputs \['image'\], got \['picture'\]"),
        ({}, r"expected inputs \['image'\], got \[\]"),
        (
            {"image": np.zeros(PATCH, np.float32), "more": np.zeros(1)},
            r"got \['image', 'more'\]",
        ),
        ({"image": np.zeros(PATCH, np.float64)}, r"expected image: float32 .*got float64 .*dtype differs"),
        ({"image": np.zeros(PATCH[1:], np.float32)}, r"number of axes differs"),
        (
            {"image": np.zeros((1, 1, 8, 16, 17), np.float32)},
            r"got float32 \(1, 1, 8, 16, 17\): axis 4 differs",
        ),
    ],
)
def test_wrong_inputs_never_reach_the_runtime(
    tmp_path: Path, engine: loader.Engine, feeds: dict[str, NDArray[Any]], complaint: str
) -> None:
    with _open(tmp_path, engine) as runner, pytest.raises(InputMismatch, match=complaint):
        runner.infer(feeds)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_is_not_a_network_is_refused(tmp_path: Path, engine: loader.Engine) -> None:
    good = build.network()
    for name, weights in {"text": b"not a network", "empty": b"", "cut": good[: len(good) // 2]}.items():
        opened = package.open_package(build.write(tmp_path / name, weights))
        with pytest.raises(RunnerError, match="refuses the network") as refused:
            loader.open_runner(opened, engine=engine)
        # Then its file is named, and what to do
        assert str(refused.value).startswith(f"{opened.weights}: ")
        assert "export the network to ONNX again" in str(refused.value)


@pytest.mark.parametrize("engine", ENGINES)
def test_an_unknown_operation_is_refused_by_name(tmp_path: Path, engine: loader.Engine) -> None:
    with pytest.raises(RunnerError, match="Levitate"):
        _open(tmp_path, engine, op="Levitate")


@pytest.mark.parametrize("engine", ENGINES)
def test_weights_that_change_after_the_check_are_refused(tmp_path: Path, engine: loader.Engine) -> None:
    opened = package.open_package(build.write(tmp_path, build.network()))
    opened.weights.write_bytes(build.network(seed=5))
    with pytest.raises(PackageError, match=r"weights\.sha256"):
        loader.open_runner(opened, engine=engine)


def test_a_network_cannot_reach_for_other_files(tmp_path: Path) -> None:
    # Given a graph whose weights lie in a second file, which the digest does not cover
    model = onnx.load_from_string(build.network())
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="more.data", size_threshold=0)
    # When the package is opened, then it is refused (OpenVINO would read the file from the current folder)
    with pytest.raises(PackageError, match=r"model\.onnx: the network keeps tensors in further files"):
        package.open_package(build.write(tmp_path, path.read_bytes()))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_failure_inside_the_runtime_is_translated(tmp_path: Path, engine: loader.Engine) -> None:
    # Given a network whose reshape cannot work for the input it declares
    shape = helper.make_node("Constant", [], ["target"], value_ints=[1, 3, 5, 5, 5])
    weights = build.serialised(
        [shape, helper.make_node("Reshape", ["image", "target"], ["logits"])], [], classes=3
    )
    opened = package.open_package(build.write(tmp_path, weights))
    with pytest.raises(RunnerError), loader.open_runner(opened, engine=engine) as runner:
        runner.infer({"image": _image()})


def test_a_closed_runner_refuses_and_closing_twice_is_fine() -> None:
    runner = ThresholdRunner((0.5,))
    runner.close()
    runner.close()
    with pytest.raises(RunnerError, match="closed"):
        runner.infer({"image": np.zeros(PATCH, np.float32)})


@pytest.mark.parametrize("engine", ENGINES)
def test_a_leaked_runner_complains(tmp_path: Path, engine: loader.Engine) -> None:
    runner = _open(tmp_path, engine)
    with pytest.warns(ResourceWarning, match=f"{engine}.*never closed"):
        del runner
        gc.collect()


def test_every_exception_of_the_runtimes_is_translated() -> None:
    def raised_by(module: Any) -> set[type[Exception]]:
        found = (getattr(module, name) for name in dir(module))
        return {one for one in found if isinstance(one, type) and issubclass(one, Exception)}

    assert all(issubclass(error, ort.ERRORS) for error in raised_by(onnxruntime_pybind11_state))
    assert all(issubclass(error, ov.ERRORS) for error in raised_by(frontend) | raised_by(exceptions))


def test_a_runtime_is_imported_only_when_it_is_asked_for() -> None:
    program = (
        "import sys; from engines import loader, predict, testing; "
        "print([name for name in ('onnxruntime', 'openvino', 'onnx') if name in sys.modules])"
    )
    assert (
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


def test_openvino_cannot_report_to_its_maker() -> None:
    program = (
        "import sys, socket\n"
        "def refuse(*_): raise SystemExit('a connection was tried')\n"
        "socket.socket.connect = refuse\n"
        "from engines import ov\n"
        "from tests.engines import build\n"
        "ov.OpenVINORunner(build.network(), shapes={'image': (1, 1, 8, 8, 8)}, threads=1).close()\n"
        "print(sys.modules['openvino_telemetry'], sys.modules['openvino.tools.ovc.telemetry_utils'].tm.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "None openvino.tools.ovc.telemetry_stub\n"
