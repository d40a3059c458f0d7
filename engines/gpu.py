"""The GPU of this process: what it is, what is free on it, and the plans that are compiled for it.

TensorRT and pycuda are imported here, when they are first needed: a machine without them runs everything else.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from engines import adapter, fit, manifest_prompts, plans
from engines.errors import DeviceError, PlanError
from engines.manifest import Manifest
from engines.manifest_gpu import Precision
from engines.package import ModelPackage
from engines.plans import Plans, Record, Target
from engines.runner import Runner

if TYPE_CHECKING:
    from engines.cuda import Device

#: Voxels of windows that go into one call, and the most windows: fewer leave a large GPU idle between its kernels.
_VOXELS, _MOST_WINDOWS = 2**21, 32

#: Where a module has another name than what is installed.
_PACKAGES = {"cuda": "cuda-bindings"}

_INSTALL = "install it beside the NVIDIA driver: pip install 'secondread[gpu]'"


def target(engine: str = "tensorrt") -> Target:
    """Where plans of this process run. Raises DeviceError, which says what is missing."""
    if engine != "tensorrt":
        compiler = _module("engines.ort_gpu").compiler(engine)
        name, capability = adapter.first()
        return Target(gpu=name, compute_capability=capability, compiler=compiler)
    found, compiler = _device(), _module("engines.build").COMPILER
    return Target(gpu=found.name, compute_capability=found.compute_capability, compiler=compiler)


def memory() -> tuple[int, int]:
    """Bytes that are free on the device, and that it has. Raises DeviceError."""
    return _device().memory()


def build(
    package: ModelPackage,
    kept: Plans,
    *,
    engine: str = "tensorrt",
    precision: Precision | None = None,
    again: bool = False,
    progress: Callable[[str, float], None] | None = None,
) -> Record:
    """Compile the package's network for this GPU, in its manifest's precision where no other is asked for.

    Of processes that ask at once one compiles, and the others have what it made. A plan that is there is kept, unless
    it is built `again`. What ONNX Runtime is asked for is its plan: it compiles as it opens a network.
    Raises PackageError, PlanError in the compiler's words, DeviceError, DeviceFull.
    """
    key = plans.key_for(package, target(engine), precision)
    if engine != "tensorrt":
        return kept.build_once(package, key, lambda: key.model_dump_json().encode(), again=again)
    return kept.build_once(package, key, lambda: _compiled(package, kept, key, progress), again=again)


def open_runner(
    package: ModelPackage, kept: Plans, *, precision: Precision | None = None, unverified: bool = False
) -> Runner:
    """The package's network on the plan that is kept for this GPU.

    Raises PlanError where there is none, where it is damaged, or where the parity gate did not accept it, unless it
    may be `unverified`; DeviceError.
    """
    key = plans.key_for(package, target(), precision)
    plan = served(package, kept, key, unverified=unverified)
    runner: Runner = _module("engines.trt").TensorRTRunner(plan, _device(), precision=key.precision)
    return runner


def served(package: ModelPackage, kept: Plans, key: plans.Key, *, unverified: bool = False) -> bytes:
    """The plan that is kept. Raises PlanError as `open_runner` does."""
    record = kept.find(key)
    if record is None:
        again = plans.REBUILD.format(model=package.manifest.name)
        raise PlanError(f"{package.manifest.name} has no plan for {key.target} in {key.precision}: {again}")
    plan = kept.read(record)
    if not (record.serves or unverified):
        raise PlanError(f"the plan of {package.manifest.name}: {record.state}")
    return plan


def _compiled(
    package: ModelPackage, kept: Plans, key: plans.Key, progress: Callable[[str, float], None] | None
) -> bytes:
    """The compiler's bytes."""
    compiler, device = _module("engines.build"), _device()
    weights: bytes = _module("engines.half").converted(package.read_weights(), key.precision)

    def compiled(batch: int) -> bytes:
        with device.current():
            plan: bytes = compiler.build(
                weights,
                shapes=shapes(package.manifest, batch),
                timing=kept.timing_cache(key.target),
                workspace=compiler.workspace(device.memory()[0]),
                progress=progress,
            )
            return plan

    most = batch(package.manifest)
    try:
        return compiled(most)
    except PlanError:
        # Graphs are exported whose free first axis cannot be another than 1.
        if most == 1:
            raise
    return compiled(1)


def shapes(manifest: Manifest, batch: int) -> Mapping[str, tuple[int, ...]]:
    """The shapes that a plan is compiled for, by input name: windows, and the manifest's own prompts."""
    prompts: Mapping[str, Any] = manifest_prompts.given(manifest.prompts, {})
    return {**fit.shapes(manifest, batch=batch), **{name: array.shape for name, array in prompts.items()}}


def batch(manifest: Manifest) -> int:
    """How many windows go into one call; what is given with each call, or answered with a list, goes alone."""
    if manifest.reference.planar or manifest.prompts or manifest.task == "detection":
        return 1
    return max(1, min(_MOST_WINDOWS, _VOXELS // math.prod(manifest.windows.patch)))


def _device() -> Device:
    found: Device = _module("engines.cuda").device()
    return found


def _module(name: str) -> ModuleType:
    """One of the modules that need the GPU's libraries. Raises DeviceError where they are not there."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = _PACKAGES.get(error.name or "", error.name)
        raise DeviceError(f"the Python package {package} is not installed: {_INSTALL}") from error
    except ImportError as error:
        # pycuda is there, and the driver's libcuda.so.1 is not, or lacks what pycuda was built for.
        raise DeviceError(f"the GPU's libraries cannot be loaded ({error}): {adapter.DRIVER}") from error
