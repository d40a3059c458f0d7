"""TensorRT on a real GPU: the float32 reference's answers, overlapped, and nothing left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import gpu, loader, tiling
from engines import package as model_package
from engines.errors import DeviceFull
from engines.manifest_gpu import Precision
from engines.package import ModelPackage
from engines.plans import Plans
from engines.runner import Runner
from tests.engines import build as packages

pytestmark = pytest.mark.gpu

#: Largest difference from float32, as a fraction of the range.
_ALLOWED: dict[Precision, float] = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    network = packages.thresholds((-0.5, 0.5))
    return model_package.open_package(packages.write(tmp_path / "model", network))


def _open(package: ModelPackage, kept: Plans, precision: Precision) -> Runner:
    gpu.build(package, kept, precision=precision)
    return loader.open_runner(package, engine="tensorrt", kept=kept, precision=precision, unverified=True)


def _patches(runner: Runner, count: int) -> Iterator[dict[str, NDArray[Any]]]:
    rng = np.random.default_rng(0)
    (spec,) = runner.inputs
    for _ in range(count):
        yield {spec.name: rng.normal(0, 1, [length or 1 for length in spec.shape]).astype(spec.dtype)}


@pytest.mark.parametrize("precision", ["float32", "float16", "bfloat16"])
def test_a_whole_image_has_the_reference_s_logits(
    package: ModelPackage, kept: Plans, precision: Precision
) -> None:
    image = np.random.default_rng(1).normal(0, 1, (1, 30, 40, 33)).astype(np.float32)
    logits = {}
    for engine in ("tensorrt", "onnxruntime"):
        runner = (
            _open(package, kept, precision)
            if engine == "tensorrt"
            else loader.open_runner(package, engine="onnxruntime")
        )
        with runner:
            slabs = tiling.sweep(
                runner, {"image": image}, package.manifest.windows, output_name="logits", classes=3
            )
            logits[engine] = np.concatenate([slab.logits.copy() for slab in slabs], axis=1)
    span = float(np.ptp(logits["onnxruntime"]))
    assert np.abs(logits["tensorrt"] - logits["onnxruntime"]).max() <= _ALLOWED[precision] * span


def test_overlapped_answers_are_those_of_one_patch_at_a_time(package: ModelPackage, kept: Plans) -> None:
    with _open(package, kept, "float16") as runner:
        asked = list(_patches(runner, 20))
        alone = [runner.infer(feed)["logits"].copy() for feed in asked]
        # Behind the first patches it is a CUDA graph that runs
        for wanted, answer in zip(alone, runner.infer_each(iter(asked)), strict=True):
            assert np.array_equal(answer["logits"], wanted)


def test_what_is_closed_leaves_nothing_on_the_device(package: ModelPackage, kept: Plans) -> None:
    with _open(package, kept, "float16"):
        pass
    free = gpu.memory()[0]
    for _ in range(5):
        with _open(package, kept, "float16") as runner:
            runner.infer(next(_patches(runner, 1)))
    # Other processes may use the device too
    assert gpu.memory()[0] >= free - 64 * 2**20


def test_a_device_that_is_full_says_so_and_is_usable_after_that(package: ModelPackage, kept: Plans) -> None:
    from engines import cuda
    from engines.cuda import Buffer

    device = cuda.device()
    with pytest.raises(DeviceFull, match="does not suffice"), device.current():
        Buffer((device.memory()[1],), np.dtype(np.uint8))
    with _open(package, kept, "float16") as runner:
        assert np.isfinite(runner.infer(next(_patches(runner, 1)))["logits"]).all()
