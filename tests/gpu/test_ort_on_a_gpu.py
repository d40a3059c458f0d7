"""ONNX Runtime's providers on a real GPU, where there are one and onnxruntime-gpu: the float32 reference's answers."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import onnxruntime
import pytest

from engines import loader, ort_gpu
from engines import package as model_package
from engines.errors import DeviceError, DeviceFull, PlanError
from engines.manifest_gpu import Precision
from engines.package import ModelPackage
from engines.plans import Plans
from tests.engines import build as packages

pytestmark = pytest.mark.gpu

#: Largest difference from float32, as a fraction of the range.
_ALLOWED: dict[Precision, float] = {"float32": 1e-4, "float16": 0.02, "bfloat16": 0.1}
_SHIPPED = Path(__file__).resolve().parents[2] / "models" / "chest-ct"


@pytest.fixture(params=list(ort_gpu.PROVIDERS))
def engine(request: pytest.FixtureRequest) -> loader.Engine:
    """An engine whose provider starts here. What it lacks is the reason to skip, in CI too."""
    return _starting(request.param)


@pytest.fixture
def cuda() -> loader.Engine:
    """The one of CUDA alone."""
    return _starting("onnxruntime-cuda")


def _starting(found: loader.Engine) -> loader.Engine:
    wish = ort_gpu.Wish(provider=ort_gpu.PROVIDERS[found], precision="float32", threads=1)
    try:
        ort_gpu.ProviderRunner(packages.network(), wish, shapes={"image": (1, 1, 8, 16, 16)}).close()
    except DeviceError as error:
        pytest.skip(str(error))
    return found


@pytest.fixture
def package() -> ModelPackage:
    return model_package.open_package(_SHIPPED)


@pytest.mark.parametrize("precision", get_args(Precision))
def test_the_shipped_network_has_the_reference_s_logits(
    engine: loader.Engine, package: ModelPackage, tmp_path: Path, precision: Precision
) -> None:
    kept = Plans(folder=tmp_path)
    try:
        opened = loader.open_runner(
            package, engine=engine, kept=kept, precision=precision, threads=1, unverified=True
        )
    except PlanError as error:
        # CUDA's provider lacks some operators in bfloat16; then it says what to set instead.
        assert precision == "bfloat16" and "set gpu.precision: float16" in str(error)
        return
    with opened as runner:
        assert runner.description == f"{engine} {onnxruntime.__version__} GPU {precision}"
        batch = runner.inputs[0].shape[0] or 1
        patch = np.indices((48, 112, 112)).sum(0)[None, None] / 40
        image = np.repeat((0.5 + 0.5 * np.sin(patch)).astype(np.float32), batch, axis=0)
        # The first run was at opening; of a recorded graph the second is the first that is replayed
        answers = [runner.infer({"image": image})["logits"].copy() for _ in range(3)]
    with loader.open_runner(package, engine="onnxruntime") as reference:
        expected = reference.infer({"image": image[:1]})["logits"]
    for answer in answers:
        far = np.abs(answer - expected).max() / np.ptp(expected)
        assert far <= _ALLOWED[precision]


def test_other_images_have_other_answers(engine: loader.Engine, package: ModelPackage) -> None:
    # Given a graph that is replayed from fixed addresses
    with loader.open_runner(
        package, engine=engine, precision="float16", threads=1, unverified=True
    ) as runner:
        shape = tuple(length or 1 for length in runner.inputs[0].shape)
        dark, bright = (np.full(shape, value, np.float32) for value in (0, 1))
        first = runner.infer({"image": dark})["logits"].copy()
        second = runner.infer({"image": bright})["logits"].copy()
        assert np.abs(first - second).max() > 0.1
        np.testing.assert_array_equal(runner.infer({"image": dark})["logits"], first)


def test_an_arena_that_is_too_small_says_so_and_the_device_is_usable_after_that(
    cuda: loader.Engine, package: ModelPackage
) -> None:
    with pytest.raises(DeviceFull, match="does not suffice"):
        loader.open_runner(package, engine=cuda, precision="float32", megabytes=8, unverified=True)
    with loader.open_runner(package, engine=cuda, precision="float32", unverified=True) as runner:
        shape = tuple(length or 1 for length in runner.inputs[0].shape)
        assert np.isfinite(runner.infer({"image": np.zeros(shape, np.float32)})["logits"]).all()
