"""A plain ONNX file becomes a package that opens at once and says what it must still be told."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper

from engines import loader
from engines.errors import PackageError
from engines.importing import package_writer, plain_onnx
from tests.engines import build


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "Some Network v2.onnx"
    path.write_bytes(content)
    return path


def _graph(inputs: list[list[object]], outputs: list[list[object]]) -> bytes:
    """A network of these shapes; each output is made of the first input's mean."""
    made = [
        helper.make_tensor_value_info(f"in{n}", TensorProto.FLOAT, shape) for n, shape in enumerate(inputs)
    ]
    nodes = [helper.make_node("ReduceMean", ["in0"], ["mean"], keepdims=0)]
    tensors, given = [], []
    for number, shape in enumerate(outputs):
        name = f"out{number}"
        whole = [length if isinstance(length, int) else 1 for length in shape]
        tensors.append(numpy_helper.from_array(np.ones(whole, np.float32), f"ones{number}"))
        nodes.append(helper.make_node("Mul", ["mean", f"ones{number}"], [name]))
        given.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    graph = helper.make_graph(nodes, "some", made, given, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


@pytest.mark.parametrize(
    ("inputs", "outputs", "task"),
    [
        ([[1, 1, 16, 32, 32]], [[1, 3, 16, 32, 32]], "segmentation"),
        ([[1, 1, 32, 32]], [[1, 2, 32, 32]], "segmentation"),
        ([[1, 1, 16, 32, 32]], [[1, 1, 16, 32, 32]], "image"),
        ([[1, 1, 64, 64]], [[1, 14]], "classification"),
        ([[1, 2, 8, 16, 16]], [[1, 1]], "regression"),
        ([[1, 1, 64, 64]], [[10, 4], [10, 3]], "detection"),
        ([[1, 1, 8, 8, 8], [1, 1, 8, 8, 8]], [[1, 2, 8, 8, 8]], "segmentation"),
    ],
)
def test_the_task_is_guessed_from_the_outputs_and_said_so(
    tmp_path: Path, inputs: list[list[object]], outputs: list[list[object]], task: str
) -> None:
    # When a network is added
    added = plain_onnx.add(_file(tmp_path, _graph(inputs, outputs)), tmp_path / "out")
    # Then the package opens on both backends, with a channel for each input
    assert added.task == added.package.manifest.task == task
    assert "out0" in added.guess
    assert len(added.package.manifest.inputs) == sum(shape[1] for shape in inputs)
    assert added.package.manifest.name == "some-network-v2"
    for engine in ("openvino", "onnxruntime"):
        with loader.open_runner(added.package, engine=engine, threads=1) as runner:
            assert runner.inputs[0].shape == tuple(inputs[0])
    # And the manifest says where it was guessed
    assert "whether it is this task: guessed" in (tmp_path / "out" / "model.yaml").read_text()


def test_what_is_left_to_fill_in_is_marked_in_the_manifest_and_listed(tmp_path: Path) -> None:
    plain_onnx.add(_file(tmp_path, build.network()), tmp_path / "out")
    text = (tmp_path / "out" / "model.yaml").read_text()
    left = package_writer.unfinished(tmp_path / "out")
    assert len(left) == text.count(package_writer.TODO) >= 8
    for what in ("licence", "intended_use", "series", "spacing_mm", "intensity", "activation", "patch"):
        lines = text.splitlines()
        [line] = [number for number, line in enumerate(lines) if line.strip(" -").startswith(f"{what}:")]
        assert lines[line - 1].strip().startswith(package_writer.TODO) or what == "patch", what
    # And once it is filled in, nothing is left
    done = "\n".join(line for line in text.splitlines() if package_writer.TODO not in line)
    (tmp_path / "out" / "model.yaml").write_text(done)
    assert package_writer.unfinished(tmp_path / "out") == []
    assert yaml.safe_load(done) == yaml.safe_load(text)


def test_a_given_task_is_taken_and_an_unknown_one_refused(tmp_path: Path) -> None:
    file = _file(tmp_path, _graph([[1, 1, 64, 64]], [[1, 2]]))
    added = plain_onnx.add(file, tmp_path / "out", task="regression")
    assert (added.task, added.guess) == ("regression", "")
    with pytest.raises(PackageError, match="--task poetry: there is no such task; there are segmentation"):
        plain_onnx.add(file, tmp_path / "other", task="poetry")
    with pytest.raises(PackageError, match="there is something already: name a new folder"):
        plain_onnx.add(file, tmp_path / "out")


@pytest.mark.parametrize(
    ("outputs", "task", "said"),
    [
        (
            [[1, 2]],
            "segmentation",
            "the manifest's labels and the background need (1, 2, slices, rows, columns)",
        ),
        ([[1, 2]], "image", "an image needs (1, 1, slices, rows, columns)"),
        ([[1, 3, 64, 64]], "classification", "the manifest's classes need (1, classes)"),
        ([[1, 3, 64, 64]], "regression", "the manifest's values need (1, values)"),
        ([[1, 2]], "detection", "boxes of a patch of one slice need (boxes, 4)"),
        (
            [[7]],
            "segmentation",
            "the manifest's labels and the background need (1, 2, slices, rows, columns)",
        ),
    ],
)
def test_a_task_that_the_network_cannot_do_is_refused_and_nothing_written(
    tmp_path: Path, outputs: list[list[object]], task: str, said: str
) -> None:
    file = _file(tmp_path, _graph([[1, 1, 64, 64]], outputs))
    with pytest.raises(PackageError) as refused:
        plain_onnx.add(file, tmp_path / "out", task=task)
    assert f"{file}: the network does not fit --task {task}: " in str(refused.value)
    assert said in str(refused.value) and "give the --task that it does" in str(refused.value)
    assert not (tmp_path / "out").exists()


def test_a_network_that_fits_no_task_is_refused_too(tmp_path: Path) -> None:
    file = _file(tmp_path, _graph([[1, 1, 64, 64]], [[1, 5, 7]]))
    with pytest.raises(
        PackageError, match="does not fit the task classification, guessed from the outputs out0"
    ):
        plain_onnx.add(file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_no_network_in_one_piece_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"none\.onnx: No such file"):
        plain_onnx.add(tmp_path / "none.onnx", tmp_path / "out")
    with pytest.raises(PackageError, match="this is no network that can be run"):
        plain_onnx.add(_file(tmp_path, b"\x80\x04 a pickle"), tmp_path / "out")
    model = onnx.load_from_string(build.network())
    onnx.save_model(
        model, tmp_path / "apart.onnx", save_as_external_data=True, location="apart.bin", size_threshold=0
    )
    with pytest.raises(PackageError, match="keeps tensors in further files"):
        plain_onnx.add(tmp_path / "apart.onnx", tmp_path / "out")
    with pytest.raises(
        PackageError, match=r"inputs of .number, channels, slices, rows, columns.* it has in0"
    ):
        plain_onnx.add(_file(tmp_path, _graph([[1, 20]], [[1, 2]])), tmp_path / "out")
    assert not (tmp_path / "out").exists()
