"""Opens a package's network on the backend that is asked for."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

from engines import fit, gpu, plans
from engines.errors import DeviceError, PlanError, RunnerError
from engines.manifest import Manifest
from engines.manifest_gpu import Precision
from engines.package import ModelPackage
from engines.plans import Plans
from engines.runner import Runner, usable_cores

#: The backends that can run a package, the default first.
Engine = Literal["openvino", "onnxruntime", "tensorrt", "onnxruntime-cuda", "onnxruntime-tensorrt"]
#: Those of them that need no GPU: the one that serves by default, and the reference.
ON_THE_CPU: tuple[Engine, ...] = ("openvino", "onnxruntime")

#: Pixels of slices that go into one call, and the most slices. A call of one slice of 28 x 28 costs 2.4 times its
#: share of a call of eight, of 128 x 128 a third more; of 256 x 256 nothing is gained any more.
_PIXELS, _MOST_SLICES = 2**17, 8


def open_runner(
    package: ModelPackage,
    *,
    engine: Engine = "openvino",
    threads: int | None = None,
    kept: Plans | None = None,
    precision: Precision | None = None,
    unverified: bool = False,
    megabytes: float | None = None,
) -> Runner:
    """Open the package's network; close it, or use it as a context manager.

    The network's input is fixed to the manifest's patch: a static shape is what CPU backends are fastest and
    leanest with. `threads` is how many CPU threads inference may use; None means all that this process may
    run on. "tensorrt" runs on the plan that is in `kept`: in the `precision` of the manifest where no other is asked
    for, and accepted by the parity gate unless it may be `unverified`. So must "onnxruntime-cuda" and
    "onnxruntime-tensorrt" be, in that precision, in `megabytes` of device memory at most; the latter keeps its engines
    in `kept`.
    Raises PackageError where the weights changed since the package was opened, RunnerError, with their file, where
    the runtime refuses the network; PlanError, DeviceError.
    """
    if engine == "tensorrt":
        if kept is None:
            raise PlanError(f"{package.manifest.name}: no folder of plans was given")
        return gpu.open_runner(package, kept, precision=precision, unverified=unverified)
    weights = package.read_weights()
    threads = threads or usable_cores()
    try:
        if engine == "openvino" or engine == "onnxruntime":
            return _opened(package.manifest, weights, engine=engine, threads=threads)
        wanted = precision or package.manifest.gpu.precision
        if not unverified:
            _demand_verdict(package, engine, kept, wanted)
        cache = kept.folder / engine if kept else None
        return _on_provider(
            package.manifest,
            weights,
            engine,
            precision=wanted,
            threads=threads,
            cache=cache,
            megabytes=megabytes,
        )
    except DeviceError:
        raise
    except PlanError as error:
        raise PlanError(f"{package.weights}: {error}") from error
    except RunnerError as error:
        raise RunnerError(
            f"{package.weights}: {error}: export the network to ONNX again, of operations that the runtime has"
        ) from error


def _demand_verdict(package: ModelPackage, engine: Engine, kept: Plans | None, precision: Precision) -> None:
    """Raise PlanError where the parity gate has not accepted the package on this GPU's provider; DeviceError."""
    if kept is None:
        raise PlanError(f"{package.manifest.name}: no folder of plans was given")
    gpu.served(package, kept, plans.key_for(package, gpu.target(engine), precision))


def _opened(manifest: Manifest, weights: bytes, *, engine: Engine, threads: int) -> Runner:
    """The network on this backend of the CPU."""
    # Imported here: a process that runs one backend, or none, does not pay for the others.
    if engine == "openvino":
        from engines import ov

        batch = _batch(manifest)
        try:
            return ov.OpenVINORunner(weights, shapes=fit.shapes(manifest, batch=batch), threads=threads)
        except RunnerError:
            # Graphs are exported whose free first axis cannot be another than 1.
            if batch == 1:
                raise
        return ov.OpenVINORunner(weights, shapes=fit.shapes(manifest), threads=threads)
    from engines import ort

    return ort.ONNXRuntimeRunner(weights, shapes=fit.shapes(manifest), threads=threads)


def _on_provider(
    manifest: Manifest,
    weights: bytes,
    engine: str,
    *,
    precision: Precision,
    threads: int,
    cache: Path | None,
    megabytes: float | None,
) -> Runner:
    """The network on one of ONNX Runtime's execution providers for GPUs."""
    from engines import ort_gpu

    wish = ort_gpu.Wish(
        provider=ort_gpu.PROVIDERS[engine],
        precision=precision,
        threads=threads,
        cache=cache,
        megabytes=megabytes,
    )
    batch = gpu.batch(manifest)
    try:
        return ort_gpu.ProviderRunner(weights, wish, shapes=gpu.shapes(manifest, batch))
    except (DeviceError, PlanError):
        raise
    except RunnerError:
        # Graphs are exported whose free first axis cannot be another than 1.
        if batch == 1:
            raise
    return ort_gpu.ProviderRunner(weights, wish, shapes=gpu.shapes(manifest, 1))


def _batch(manifest: Manifest) -> int:
    """How many slices of a stack go into one call."""
    windows = manifest.windows
    alone = manifest.reference.planar or manifest.prompts or manifest.task == "detection"
    if windows.patch[0] != 1 or alone:
        return 1
    return max(1, min(_MOST_SLICES, _PIXELS // math.prod(windows.patch)))
