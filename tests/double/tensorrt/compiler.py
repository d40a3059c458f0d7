"""Builder and parser."""

from __future__ import annotations

import time
from enum import IntEnum
from typing import Any

import onnx
from onnx import shape_inference
from pycuda import condition, driver

from tensorrt.execution import ran
from tensorrt.vocabulary import Header, IHostMemory, ILogger, IProgressMonitor

_STEPS = 4


class NetworkDefinitionCreationFlag(IntEnum):
    STRONGLY_TYPED = 1
    PREFER_AOT_PYTHON_PLUGINS = 2
    PREFER_JIT_PYTHON_PLUGINS = 3


class MemoryPoolType(IntEnum):
    WORKSPACE = 0


class BuilderFlag(IntEnum):
    TF32 = 7


class ITensor:
    def __init__(self, info: Any) -> None:
        self.name: str = info.name
        axes = info.type.tensor_type.shape.dim
        #: -1 where it is free.
        self.shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in axes)


class INetworkDefinition:
    def __init__(self) -> None:
        self.graph = b""
        self._inputs: list[ITensor] = []

    def _take(self, model: Any) -> None:
        """What the parser read."""
        self.graph = model.SerializeToString()
        constant = {tensor.name for tensor in model.graph.initializer}
        self._inputs = [ITensor(info) for info in model.graph.input if info.name not in constant]

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]


class IOptimizationProfile:
    def __init__(self) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}

    def set_shape(
        self,
        input: str,
        min: tuple[int, ...],
        opt: tuple[int, ...],
        max: tuple[int, ...],
    ) -> None:
        assert min == opt == max, "the double knows profiles of one shape only"
        self.shapes[input] = tuple(max)


class ITimingCache:
    def __init__(self, builds: int) -> None:
        self._builds = builds

    def serialize(self) -> IHostMemory:
        return IHostMemory(f"pretended timing cache {self._builds + 1}".encode())


class IBuilderConfig:
    def __init__(self) -> None:
        self.progress_monitor: IProgressMonitor | None = None
        self.profile: IOptimizationProfile | None = None
        self._flags = {BuilderFlag.TF32}
        self._cache: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        driver._reserve(pool_size)

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self.profile = profile
        return 0

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache | None:
        said = bytes(serialized_timing_cache).decode().rpartition(" ")[2]
        return ITimingCache(int(said or 0))

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class Builder:
    def __init__(self, logger: ILogger) -> None:
        if driver._why_broken():
            logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 700")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        assert flags == 1 << NetworkDefinitionCreationFlag.STRONGLY_TYPED
        return INetworkDefinition()

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(
        self, network: INetworkDefinition, config: IBuilderConfig
    ) -> IHostMemory | None:
        profile = config.profile.shapes if config.profile else {}
        for number in range(network.num_inputs):
            tensor = network.get_input(number)
            if -1 in tensor.shape and tensor.name not in profile:
                self._log(f"Network has dynamic or shape inputs, but no profile gives {tensor.name}")
                return None
        if condition.get("full_at_build"):
            self._log("[virtualMemoryBuffer.cpp::resizePhysical::154] Error Code 2: OutOfMemory")
            return None
        try:
            ran(network.graph, profile)
        except Exception as error:  # noqa: BLE001
            self._log(f"Error Code 4: Internal Error ({str(error).splitlines()[0]})")
            return None
        _go_through_phases(config.progress_monitor)
        return Header(
            version=condition.get("tensorrt"),
            gpu=condition.get("gpu"),
            compute_capability=condition.get("compute_capability"),
            shapes={name: list(shape) for name, shape in profile.items()},
        ).packed(network.graph)

    def _log(self, text: str) -> None:
        self._logger.log(ILogger.Severity.ERROR, text)


def _go_through_phases(monitor: IProgressMonitor | None) -> None:
    if monitor is not None:
        monitor.phase_start("Building Engine", None, 1)
        monitor.phase_start("Computing profile 0", "Building Engine", _STEPS)
    for step in range(_STEPS):
        time.sleep(condition.get("seconds_of_build") / _STEPS)
        if monitor is not None:
            monitor.step_complete("Computing profile 0", step)
    if monitor is not None:
        monitor.phase_finish("Computing profile 0")
        monitor.phase_finish("Building Engine")


class ParserError:
    def __init__(self, *, text: str, number: int, node: Any) -> None:
        self._text, self._number, self._node = text, number, node

    def desc(self) -> str:
        return self._text

    def node(self) -> int:
        return self._number

    def node_name(self) -> str:
        return str(self._node.name) if self._node is not None else ""

    def node_operator(self) -> str:
        return str(self._node.op_type) if self._node is not None else ""


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        self._network = network
        self._errors: list[ParserError] = []

    def parse(self, model: bytes) -> bool:
        try:
            read = onnx.load_from_string(bytes(model))
            # A strongly typed network takes no edge whose ends are of different types.
            shape_inference.infer_shapes(read, check_type=True, strict_mode=True)
        except Exception as error:  # noqa: BLE001
            text = f"ModelImporter.cpp: {str(error).splitlines()[0]}"
            self._errors.append(ParserError(text=text, number=-1, node=None))
            return False
        for number, node in enumerate(read.graph.node):
            if node.op_type in condition.get("refuses"):
                text = (
                    f"Plugin not found, are the plugin name, version, and namespace correct?\n{node.op_type}"
                )
                self._errors.append(ParserError(text=text, number=number, node=node))
        if self._errors:
            return False
        self._network._take(read)
        return True

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]
