"""Runtime, engine and execution context."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from pycuda import condition, driver

from tensorrt.execution import axes, kinds, opened, ran
from tensorrt.vocabulary import DataType, Header, ILogger, IOutputAllocator, TensorIOMode, of_numpy, unpacked

#: Operators whose answer is as long as its values have it.
_OF_ANY_LENGTH = {"NonZero", "NonMaxSuppression", "Unique", "Compress"}
#: The longest that such an axis becomes here.
_LONGEST = 4096


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        if driver._why_broken():
            logger.log(ILogger.Severity.ERROR, "CUDA initialization failure with error: 700")
            raise TypeError("pybind11::init(): factory function returned nullptr")
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        try:
            header, graph = unpacked(bytes(serialized_engine))
        except ValueError as error:
            self._refuse(str(error))
            return None
        if header.version != condition.get("tensorrt"):
            self._refuse(f"Version tag does not match, {condition.get('tensorrt')} reads no {header.version}")
            return None
        if (header.gpu, header.compute_capability) != (
            condition.get("gpu"),
            condition.get("compute_capability"),
        ):
            self._refuse("Target GPU SM does not match that of the plan")
            return None
        return ICudaEngine(header, graph)

    def _refuse(self, why: str) -> None:
        text = f"IRuntime::deserializeCudaEngine: Error Code 1: Serialization ({why})"
        self._logger.log(ILogger.Severity.ERROR, text)


class ICudaEngine:
    def __init__(self, header: Header, graph: bytes) -> None:
        self._session = opened(graph)
        model = onnx.load_from_string(graph)
        self._inputs, self._outputs = kinds(model.graph)
        declared = axes(model.graph)
        self.shapes = {name: tuple(header.shapes.get(name, declared[name])) for name in self._inputs}
        of_any_length = any(node.op_type in _OF_ANY_LENGTH for node in model.graph.node)
        found = {} if of_any_length else ran(graph, self.shapes)
        #: Of the outputs; -1 where only the values tell.
        self.answered = {
            name: found[name].shape if name in found else declared[name] for name in self._outputs
        }

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    @property
    def device_memory_size_v2(self) -> int:
        return 2**20

    def get_tensor_name(self, index: int) -> str:
        return [*self._inputs, *self._outputs][index]

    def get_tensor_mode(self, name: str) -> TensorIOMode:
        return TensorIOMode.INPUT if name in self._inputs else TensorIOMode.OUTPUT

    def get_tensor_dtype(self, name: str) -> DataType:
        return of_numpy((self._inputs | self._outputs)[name])

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert name in self._inputs and profile_index == 0
        return [self.shapes[name]] * 3

    def create_execution_context(self) -> IExecutionContext | None:
        try:
            scratch = driver.mem_alloc(self.device_memory_size_v2)
        except driver.MemoryError:
            return None
        return IExecutionContext(self, scratch)

    def _kind(self, name: str) -> np.dtype[Any]:
        """Of an input or output."""
        return (self._inputs | self._outputs)[name]

    def _run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """What ONNX Runtime answers, and what is pretended to be wrong with it."""
        names = list(self._outputs)
        answers = self._session.run(names, dict(feeds))
        bias = condition.get("bias")
        return {
            name: answer + answer.dtype.type(bias) if answer.dtype.kind == "f" else answer
            for name, answer in zip(names, answers, strict=True)
        }


class IExecutionContext:
    def __init__(self, engine: ICudaEngine, scratch: driver.DeviceAllocation) -> None:
        self._engine = engine
        self._scratch = scratch
        self._addresses: dict[str, int] = {}
        self._allocators: dict[str, IOutputAllocator] = {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        return tuple(shape) == self._engine.shapes[name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return {**self._engine.shapes, **self._engine.answered}[name]

    def get_max_output_size(self, name: str) -> int:
        axes = [_LONGEST if axis < 0 else axis for axis in self.get_tensor_shape(name)]
        return int(np.prod(axes)) * self._engine._kind(name).itemsize

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return memory % 256 == 0

    def set_output_allocator(self, name: str, output_allocator: IOutputAllocator) -> bool:
        self._allocators[name] = output_allocator
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if any(not self._addresses.get(name) for name in self._engine.shapes | self._engine.answered):
            return False
        stream = driver._stream_of(stream_handle)
        stream._put(self._work)
        if self._allocators and stream.recording is None:
            # It waits for the lengths.
            stream._drain()
        return not driver._why_broken()

    def _work(self) -> None:
        if not driver._launched():
            return
        feeds = {name: self._at(name, self._engine.shapes[name]).copy() for name in self._engine.shapes}
        for name, answer in self._engine._run(feeds).items():
            if name in self._allocators:
                stream = 0
                self._addresses[name] = self._allocators[name].reallocate_output_async(
                    name, self._addresses[name], answer.nbytes, 256, stream
                )
                self._allocators[name].notify_shape(name, answer.shape)
            self._at(name, answer.shape)[...] = answer

    def _at(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        """A tensor's memory on the device."""
        kind = self._engine._kind(name)
        size = int(np.prod(shape)) * kind.itemsize
        return driver._on_device(self._addresses[name], size).view(kind).reshape(shape)
