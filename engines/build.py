"""ONNX -> a TensorRT plan, strongly typed: what the graph is in is what it computes in (TensorRT 10 and 11)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import tensorrt as trt

from engines.errors import DeviceError, DeviceFull, PlanError
from engines.runner import of_rank
from engines.whole_file import write_whole

#: `(phase, done)`: what the compiler is at, and how much of it is done, 0 to 1.
Progress = Callable[[str, float], None]

COMPILER = f"tensorrt {trt.__version__}"

#: How the compiler says that the device's memory does not suffice.
_FULL = ("out of memory", "insufficient memory", "OutOfMemory", "cudaErrorMemoryAllocation")


class Listener(trt.ILogger):
    """Keeps what TensorRT says of errors: its calls only answer None."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.errors: list[str] = []

    def log(self, severity: trt.ILogger.Severity, msg: str) -> None:
        """Called by TensorRT, from any of its threads."""
        if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
            self.errors.append(" ".join(msg.split()))

    @property
    def said(self) -> str:
        """What it said last, for the end of a sentence."""
        return "; ".join(self.errors[-3:]) or "it does not say why"

    def no_device(self) -> DeviceError:
        """The error to raise where a constructor of TensorRT's gives none.

        Where the driver refuses it answers with a null pointer, which pybind11 makes a TypeError of.
        """
        return DeviceError(f"TensorRT cannot use the GPU: {self.said}: update the NVIDIA driver")

    def refusal(self, what: str) -> DeviceFull | PlanError:
        """The error to raise where TensorRT could not do `what`."""
        if any(sign in error for error in self.errors for sign in _FULL):
            return DeviceFull(f"{what}: the GPU's memory does not suffice: {self.said}")
        return PlanError(f"{what}: {self.said}")


class _Monitor(trt.IProgressMonitor):
    """TensorRT's own account of its phases, which lie in each other, as one that goes on."""

    def __init__(self, progress: Progress) -> None:
        trt.IProgressMonitor.__init__(self)
        self._progress = progress
        self._steps: dict[str, int] = {}

    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        """Called by TensorRT."""
        self._steps[phase_name] = max(1, num_steps)
        self._progress(phase_name, 0.0)

    def step_complete(self, phase_name: str, step: int) -> bool:
        """Called by TensorRT; False would have it stop."""
        self._progress(phase_name, min(1.0, (step + 1) / self._steps.get(phase_name, 1)))
        return True

    def phase_finish(self, phase_name: str) -> None:
        """Called by TensorRT."""
        self._progress(phase_name, 1.0)


def build(
    weights: bytes,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    timing: Path,
    workspace: int,
    progress: Progress | None = None,
) -> bytes:
    """Compile the ONNX graph in `weights` for the GPU of this thread's context.

    `shapes` are those of its image inputs, by name, which free axes take; `workspace` is how many bytes of the device
    a layer may take to work in. What was measured is kept in `timing`, for the next build.
    Raises PlanError with the compiler's own words, operator and node; DeviceFull, DeviceError.
    """
    listener = Listener()
    builder = _builder(listener)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, listener)
    if not parser.parse(weights):
        raise PlanError(f"TensorRT cannot read the network: {_unread(parser) or listener.said}")
    config = builder.create_builder_config()
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, workspace)
    # Sums of float32 products that were rounded to 10 bits are no float32.
    config.clear_flag(trt.BuilderFlag.TF32)
    if config.add_optimization_profile(_profile(builder, network, shapes)) < 0:
        raise PlanError(f"TensorRT does not take the shapes {dict(shapes)}: {listener.said}")
    cache = config.create_timing_cache(timing.read_bytes() if timing.exists() else b"")
    if cache is not None:
        config.set_timing_cache(cache, ignore_mismatch=False)
    monitor = _Monitor(progress or _ignore)
    config.progress_monitor = monitor
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise listener.refusal("TensorRT cannot compile the network")
    _keep(config, timing)
    return bytes(plan)


def _builder(listener: Listener) -> trt.Builder:
    """Raises DeviceError."""
    try:
        return trt.Builder(listener)
    except TypeError as error:
        raise listener.no_device() from error


def _profile(
    builder: trt.Builder, network: trt.INetworkDefinition, shapes: Mapping[str, tuple[int, ...]]
) -> trt.IOptimizationProfile:
    """One shape for each input: the manifest's tiling knows no other, and what is fixed is fastest."""
    profile = builder.create_optimization_profile()
    for index in range(network.num_inputs):
        tensor = network.get_input(index)
        declared = tuple(tensor.shape)
        # An input that is no image, a prompt, has one row of numbers.
        given = of_rank(shapes[tensor.name], len(declared)) if tensor.name in shapes else (1,) * len(declared)
        if len(given) != len(declared):
            raise PlanError(
                f"the network's input {tensor.name} has {len(declared)} axes, its windows {len(given)}"
            )
        shape = tuple(
            wanted if length < 0 else length for length, wanted in zip(declared, given, strict=True)
        )
        profile.set_shape(tensor.name, shape, shape, shape)
    return profile


def _unread(parser: trt.OnnxParser) -> str:
    """The parser's complaints, with node and operator."""
    complaints = []
    for index in range(min(parser.num_errors, 3)):
        error = parser.get_error(index)
        name = f' "{error.node_name()}"' if error.node_name() else ""
        where = f"node {error.node()}{name} ({error.node_operator()}): " if error.node() >= 0 else ""
        complaints.append(f"{where}{' '.join(error.desc().split())}")
    return "; ".join(complaints)


def _keep(config: trt.IBuilderConfig, timing: Path) -> None:
    """Keep what the compiler measured; of builders that end at once the last one's stays."""
    cache = config.get_timing_cache()
    measured = cache.serialize() if cache is not None else None
    if measured is not None:
        write_whole(timing, bytes(measured))


def workspace(free: int) -> int:
    """Of so many free bytes, how many a layer may take to work in: a power of two, at most a half."""
    return 1 << max(20, int(math.log2(max(free, 1))) - 1)


def _ignore(_phase: str, _done: float) -> None:
    """Progress that nobody watches."""
