"""ONNX Runtime on a GPU: its CUDA and its TensorRT execution provider, for hosts that have onnxruntime-gpu.

ONNX Runtime itself goes on on the CPU where a provider cannot be started, and says so in a log line alone. Here that is
a DeviceError: who asked for a GPU decides what happens without one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as states

from engines import ort
from engines.errors import DeviceError, DeviceFull, DeviceLost, PlanError, RunnerError
from engines.manifest_gpu import Precision
from engines.ort_binding import Binding, is_fixed
from engines.runner import Runner, TensorSpec


@dataclass(frozen=True, kw_only=True)
class Provider:
    """One of ONNX Runtime's execution providers."""

    #: What the settings call it.
    engine: str
    name: str
    #: ONNX Runtime's name of the device that it computes on.
    device: str = "cuda"
    #: What it needs beside onnxruntime-gpu and the NVIDIA driver.
    needs: str = ""


CUDA = Provider(engine="onnxruntime-cuda", name="CUDAExecutionProvider")
TENSORRT = Provider(
    engine="onnxruntime-tensorrt", name="TensorrtExecutionProvider", needs=", and TensorRT 10"
)
PROVIDERS: Mapping[str, Provider] = {one.engine: one for one in (CUDA, TENSORRT)}

#: How the runtime, CUDA, cuDNN and cuBLAS say that the device's memory does not suffice.
_FULL = ("Failed to allocate memory", "out of memory", "ALLOC_FAILED", "Available memory of")

#: How they say that something failed there: "CUDA failure 700: an illegal memory access ... ; GPU=0 ; hostname=...".
_FAILURE = re.compile(r"\b(CUDA|CUDNN|CUDNN_FE|CUBLAS|CURAND|CUFFT) (?:failure|error) ?(\d*)[^;\n]*")

#: Those of CUDA's errors after which every call of the process fails (CUDA Runtime API, cudaError: it "must be
#: terminated and relaunched"), a device that has broken down, and the error that CUDA cannot tell.
_LAST = frozenset({214, 220, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 721, 999})


@dataclass(frozen=True, kw_only=True)
class Wish:
    """How a provider is to run a network."""

    provider: Provider
    #: What the graph computes in.
    precision: Precision
    threads: int
    #: The folder where TensorRT's engines and timings are kept; None keeps none.
    cache: Path | None = None
    #: The most device memory that the runtime takes for tensors; None leaves it all of it.
    megabytes: float | None = None
    #: Whether convolutions are computed with their channels last, which newer GPUs are faster with in half precision.
    channels_last: bool = False

    @property
    def where(self) -> str:
        """Backend, version, device and precision."""
        device = "CPU" if self.provider.device == "cpu" else "GPU"
        return f"{self.provider.engine} {onnxruntime.__version__} {device} {self.precision}"


class ProviderRunner(Runner):
    """A network open in ONNX Runtime on one of its execution providers."""

    def __init__(self, weights: bytes, wish: Wish, *, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Open the ONNX graph in `weights`, brought to the wished precision; `shapes` fixes the free axes of inputs.

        Where all of them are fixed it runs once on noughts: algorithms are chosen, engines built and a CUDA graph
        recorded before the first patient. Raises DeviceError, which says what to install, where the provider cannot
        be started; PlanError where the graph cannot be brought to half precision.
        """
        _require(wish.provider)
        opened = _opened(_converted(weights, wish.precision), wish, shapes)
        self._binding: Binding | None = opened.binding
        super().__init__(inputs=opened.inputs, outputs=opened.outputs, description=wish.where)

    def _infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        assert self._binding is not None
        try:
            return self._binding.run(feeds)
        except ort.ERRORS as error:
            found = meant(error, self.description)
            # It has run there, or its shapes were free: whatever is said now is for another engine to try.
            raise found if isinstance(found, DeviceError) else DeviceError(str(found)) from error

    def _close(self) -> None:
        # The session's memory is given back with it.
        self._binding = None


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """A session that has been shown to run."""

    binding: Binding
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def meant(error: Exception, where: str) -> RunnerError:
    """What the runtime raised, as one of ours: by its words, since it has no codes."""
    text = str(error)
    failure = _FAILURE.search(text)
    said = failure.group().strip() if failure else text
    if any(sign in text for sign in _FULL):
        return DeviceFull(f"{where}: the GPU's memory does not suffice: {said}")
    if failure is None:
        return RunnerError(f"{where}: {text}")
    if failure[1] == "CUDA" and failure[2] and int(failure[2]) in _LAST:
        return DeviceLost(f"{where}: the GPU is lost to this process: {said}")
    return DeviceError(f"{where}: {said}")


def compiler(engine: str) -> str:
    """The engine and its version. Raises DeviceError where this ONNX Runtime was built without its provider."""
    _require(PROVIDERS[engine])
    return f"{engine} {onnxruntime.__version__}"


def _require(provider: Provider) -> None:
    """Raise DeviceError where this ONNX Runtime was built without the provider."""
    if provider.name not in onnxruntime.get_available_providers():
        raise DeviceError(
            f"this ONNX Runtime has no {provider.name}: put onnxruntime-gpu in its place: pip uninstall onnxruntime, "
            "then pip install 'onnxruntime-gpu[cuda,cudnn]'"
        )
    # What it says there of a provider that cannot be started is said below.
    onnxruntime.set_default_logger_severity(4)
    _missing()


def _missing() -> list[str]:
    """Load CUDA's libraries, which pip puts where the loader does not look; the names of those that are not there."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        onnxruntime.preload_dlls()
    return re.findall(r"Failed to load (\S+):", said.getvalue())


def _converted(weights: bytes, precision: Precision) -> bytes:
    """The graph in this precision; float32 needs no library for it."""
    if precision == "float32":
        return weights
    try:
        from engines import half
    except ModuleNotFoundError as error:
        raise DeviceError(f"{error.name} is not installed: pip install 'secondread[gpu]'") from error
    return half.converted(weights, precision)


def _opened(graph: bytes, wish: Wish, shapes: Mapping[str, tuple[int, ...]]) -> _Opened:
    """The session at fixed addresses, its work recorded as a CUDA graph; without where that cannot be."""
    try:
        return _started(graph, wish, shapes, recorded=True)
    except (DeviceFull, DeviceLost, PlanError):
        raise
    except RunnerError:
        # A loop, an operator that only the CPU has, an output of any length, axes of one name and two lengths: nothing
        # that speaks against running it. What does comes again.
        return _started(graph, wish, shapes, recorded=False)


def _started(graph: bytes, wish: Wish, shapes: Mapping[str, tuple[int, ...]], *, recorded: bool) -> _Opened:
    """Open the session, and run it once where the shapes of its inputs are known."""
    try:
        session = onnxruntime.InferenceSession(
            graph,
            sess_options=ort.options(wish.threads),
            providers=providers(graph, wish, recorded=recorded),
            # Or it would go on on the CPU when the GPU fails, with a line on standard output.
            enable_fallback=0,
        )
        if session.get_providers()[0] != wish.provider.name:
            raise _not_started(wish.provider)
        inputs, outputs = ort.specs(session, shapes, named=recorded)
        if recorded and not all(map(is_fixed, (*inputs, *outputs))):
            raise RunnerError(f"{wish.where}: only a network of fixed shapes can be recorded")
        binding = Binding(session, outputs=outputs, device=wish.provider.device)
        if all(map(is_fixed, inputs)):
            binding.run({spec.name: np.zeros(_lengths(spec), spec.dtype) for spec in inputs})
    except ort.ERRORS as error:
        if "Please install TensorRT" in str(error):
            raise _not_started(wish.provider) from error
        if isinstance(error, states.NotImplemented) and wish.precision == "bfloat16":
            # As of 1.31 CUDA's provider has no MaxPool, Resize, ConvTranspose and InstanceNormalization of it.
            raise PlanError(f"{wish.where}: {error}: set gpu.precision: float16 in the manifest") from error
        raise meant(error, wish.where) from error
    return _Opened(binding=binding, inputs=inputs, outputs=outputs)


def _not_started(provider: Provider) -> DeviceError:
    """ONNX Runtime has the provider, and could not start it."""
    missing = _missing()
    lacks = f" ({', '.join(missing)} cannot be found)" if missing else ""
    cuda = onnxruntime.cuda_version or "as onnxruntime-gpu was built for"
    return DeviceError(
        f"ONNX Runtime cannot start its {provider.name} and would go on on the CPU{lacks}: it needs the NVIDIA driver, "
        f"CUDA {cuda} and cuDNN 9{provider.needs}: pip install 'onnxruntime-gpu[cuda,cudnn]', or put their folders "
        "into LD_LIBRARY_PATH"
    )


def providers(graph: bytes, wish: Wish, *, recorded: bool) -> list[tuple[str, dict[str, str]]]:
    """The provider with its options, and what takes the nodes that it has no kernels for."""
    if wish.provider.device == "cpu":
        return [(wish.provider.name, {})]
    cuda = (CUDA.name, _cuda_options(wish, recorded=recorded and wish.provider == CUDA))
    tensorrt = (TENSORRT.name, _tensorrt_options(graph, wish, recorded=recorded))
    return [cuda] if wish.provider == CUDA else [tensorrt, cuda]


def _cuda_options(wish: Wish, *, recorded: bool) -> dict[str, str]:
    options = {
        "device_id": "0",
        "cudnn_conv_algo_search": "EXHAUSTIVE",
        # Of a float32 number TF32 multiplies 10 bits of 23.
        "use_tf32": "0",
        "arena_extend_strategy": "kSameAsRequested",
        "enable_cuda_graph": str(int(recorded)),
        "prefer_nhwc": str(int(wish.channels_last)),
    }
    if wish.megabytes is not None:
        options["gpu_mem_limit"] = str(int(wish.megabytes * 2**20))
    return options


def _tensorrt_options(graph: bytes, wish: Wish, *, recorded: bool) -> dict[str, str]:
    options = {
        "device_id": "0",
        # TensorRT 10 takes half tensors of a graph only where half is allowed as such.
        "trt_fp16_enable": str(int(wish.precision == "float16")),
        "trt_bf16_enable": str(int(wish.precision == "bfloat16")),
        "trt_cuda_graph_enable": str(int(recorded)),
    }
    if wish.megabytes is not None:
        options["trt_max_workspace_size"] = str(int(wish.megabytes * 2**20))
    if wish.cache is not None:
        # The runtime names engines by the names in a graph, and would run a retrained network's old ones.
        engines = wish.cache / hashlib.sha256(graph).hexdigest()[:24]
        engines.mkdir(parents=True, exist_ok=True, mode=0o700)
        options |= {"trt_engine_cache_enable": "1", "trt_engine_cache_path": str(engines)}
        options |= {"trt_timing_cache_enable": "1", "trt_timing_cache_path": str(wish.cache)}
    return options


def _lengths(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(length or 0 for length in spec.shape)
