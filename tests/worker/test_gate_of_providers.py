"""ONNX Runtime's providers for GPUs pass the same gate before they serve; here on the CPU's provider and a stub driver."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from engines import adapter, gpu, loader, ort_gpu, plans
from engines import package as model_package
from engines.errors import DeviceError, PlanError
from engines.package import ModelPackage
from engines.plans import Plans
from tests.engines import build
from tests.support import contract, peers
from worker import gate

DRIVER = Path(contract.__file__).parent / "driver.c"

pytestmark = pytest.mark.skipif(peers.find("gcc") is None, reason="gcc is not on the PATH")


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ctypes.CDLL:
    """A driver whose one GPU does nothing."""
    library = tmp_path / "libcuda.so.1"
    subprocess.run(
        ["gcc", "-shared", "-fPIC", "-w", "-o", str(library), str(DRIVER), "-ldl"], check=True, timeout=60
    )
    monkeypatch.setattr(adapter, "LIBRARY", str(library))
    opened = ctypes.CDLL(str(library))
    ctypes.c_int.in_dll(opened, "devices").value = 1
    return opened


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> loader.Engine:
    """ "onnxruntime-cuda", of which only the provider's name and its device differ."""
    provider = ort_gpu.Provider(engine="onnxruntime-cuda", name="CPUExecutionProvider", device="cpu")
    monkeypatch.setattr(ort_gpu, "PROVIDERS", {"onnxruntime-cuda": provider})
    return "onnxruntime-cuda"


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    folder = build.write(tmp_path / "tiny", build.network(), gpu={"precision": "float32"})
    return model_package.open_package(folder)


@pytest.mark.usefixtures("driver")
def test_a_provider_serves_after_it_was_judged_on_this_gpu(
    package: ModelPackage, engine: loader.Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Plans(folder=tmp_path / "plans")
    target = gpu.target(engine)
    assert (target.gpu, target.compute_capability, target.engine) == ("No GPU at all", "9.0", engine)
    with pytest.raises(
        PlanError, match=r"tiny has no plan for No GPU at all .*secondread engines build tiny"
    ):
        loader.open_runner(package, engine=engine, kept=kept)
    record = gate.prepare(package, kept, engine=engine, threads=1)
    assert record.serves and record.verdict is not None
    assert record.verdict.engine.startswith("onnxruntime-cuda")
    loader.open_runner(package, engine=engine, kept=kept, threads=1).close()
    # What TensorRT's plan says of the same model is another matter
    assert kept.find(plans.key_for(package, target, "float16")) is None
    # Nor does it hold on another GPU
    monkeypatch.setattr(adapter, "first", lambda: ("Another GPU", "9.0"))
    with pytest.raises(PlanError, match="no plan for Another GPU"):
        loader.open_runner(package, engine=engine, kept=kept)


def test_a_machine_without_a_gpu_is_told_from_one_without_a_driver(
    driver: ctypes.CDLL, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert adapter.first() == ("No GPU at all", "9.0")
    ctypes.c_int.in_dll(driver, "devices").value = 0
    with pytest.raises(DeviceError, match=r"CUDA sees no GPU: cuInit answers 100: install or update"):
        adapter.first()
    monkeypatch.setattr(adapter, "LIBRARY", "libcuda-that-is-not-there.so.1")
    with pytest.raises(DeviceError, match=r"libcuda-that-is-not-there.so.1 cannot be loaded"):
        adapter.first()
