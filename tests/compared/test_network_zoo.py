"""Networks of the kinds that people bring: exported, added as packages, and the same on both backends as in PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from engines import loader
from engines.importing import plain_onnx
from tests.support import peers

pytestmark = pytest.mark.peer("monai")

#: What each is added as.
TASKS = {
    "segresnet": "segmentation",
    "segresnet-ds": "segmentation",
    "dynunet": "segmentation",
    "unetr": "segmentation",
    "swin-unetr": "segmentation",
    "unetr-plus-plus": "segmentation",
    "vista3d": "segmentation",
    "densenet-chest-xray": "classification",
    "retinanet": "detection",
    "image-to-image": "image",
}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ONNX files and PyTorch's own answers."""
    folder = tmp_path_factory.mktemp("zoo")
    peers.import_python("-m", "tests.support.network_zoo", str(folder))
    return folder


@pytest.mark.parametrize("name", list(TASKS))
def test_both_backends_give_pytorchs_answer(zoo: Path, tmp_path: Path, name: str) -> None:
    # Given a network that was exported, added as a package
    added = plain_onnx.add(zoo / f"{name}.onnx", tmp_path / "package")
    assert added.task == TASKS[name]
    expected = dict(np.load(zoo / f"{name}.npz"))
    image = expected.pop("image")
    for engine in ("openvino", "onnxruntime"):
        # When a backend runs it
        with loader.open_runner(added.package, engine=engine, threads=2) as runner:
            answers = runner.infer({"image": image})
            # Then each output is PyTorch's
            for output, values in expected.items():
                scale = np.abs(values).max()
                np.testing.assert_allclose(answers[output] / scale, values / scale, atol=1e-3, err_msg=engine)
            assert set(expected) == set(answers) or TASKS[name] == "segmentation"
