"""TensorRT on a GPU: copies and compute overlap, and nothing is allocated or set up for a patch."""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import tensorrt as trt
from numpy.typing import NDArray
from pycuda import driver

from engines.build import COMPILER, Listener
from engines.cuda import Buffer, Device, Graph, OnDevice
from engines.errors import DeviceError, DeviceFull, InputMismatch, PlanError
from engines.manifest_gpu import Precision
from engines.runner import Runner, TensorSpec

#: How many patches are under way: while one computes, the next goes in and the last comes out.
LANES = 2


class TensorRTRunner(Runner):
    """A plan on a GPU."""

    leaves_on_device = True

    def __init__(self, plan: bytes, device: Device, *, precision: Precision, lanes: int = LANES) -> None:
        """Load the plan. Raises PlanError where it is not one of this GPU and TensorRT, DeviceError, DeviceFull."""
        self.device = device
        self._held = ExitStack()
        with device.current(), ExitStack() as undone:
            # The lanes add to it as they run, too.
            undone.push(self._held)
            before = driver.mem_get_info()[0]
            listener = Listener()
            self._engine = _engine(plan, listener)
            self._lanes = [_Lane(self._engine, listener, self._held) for _ in range(lanes)]
            self._network_bytes = max(before - driver.mem_get_info()[0], len(plan))
            undone.pop_all()
        self.device_bytes = self._network_bytes
        #: What the last patches took, in seconds by stage, and how many they were.
        self.seconds: dict[str, float] = dict.fromkeys(("stage", "copy in", "compute", "copy out"), 0.0)
        self.patches = 0
        lane = self._lanes[0]
        super().__init__(
            inputs=[lane.spec(name) for name in lane.inputs],
            outputs=[lane.spec(name) for name in lane.outputs],
            description=f"{COMPILER} {device.name} {precision}",
        )

    def _check(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Another shape than the plan's profile may still be one of the network's: another engine decides that."""
        try:
            super()._check(feeds)
        except InputMismatch as error:
            raise PlanError(
                f"{self.description}: the plan was compiled for another shape: {error}"
            ) from error

    def _infer_each(self, feeds: Iterable[Mapping[str, NDArray[Any]]]) -> Iterator[dict[str, NDArray[Any]]]:
        """While a patch computes, the next one is taken from `feeds` and sent."""
        under_way: deque[_Lane] = deque()
        lanes = itertools.cycle(self._lanes)
        try:
            for feed in feeds:
                lane = next(lanes)
                self._send(lane, feed)
                under_way.append(lane)
                if len(under_way) == len(self._lanes):
                    yield self._taken(under_way.popleft())
            while under_way:
                yield self._taken(under_way.popleft())
        finally:
            # Who stops in the middle leaves patches under way, whose memory is used again.
            if under_way:
                with self.device.current():
                    for lane in under_way:
                        lane.wait()

    def each_on_device(self, feeds: Iterable[Mapping[str, NDArray[Any]]], name: str) -> Iterator[OnDevice]:
        """As `infer_each`, but output `name` stays on the device, and is yielded before it is there: what is queued on
        its stream finds it, if it is before the next one is asked for.
        """
        under_way: deque[_Lane] = deque()
        lanes = itertools.cycle(self._lanes)
        try:
            for feed in feeds:
                lane = next(lanes)
                if len(under_way) == len(self._lanes):
                    self._wait(under_way.popleft())
                self._send(lane, self._checked(feed), fetch=False)
                under_way.append(lane)
                yield lane.left(name)
        finally:
            while under_way:
                self._wait(under_way.popleft())

    def note_labels(self, nbytes: int) -> None:
        """Count what a label map takes on the device beside the network: the next one will take it too."""
        self.device_bytes = max(self.device_bytes, self._network_bytes + nbytes)

    def _infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self._send(self._lanes[0], feeds)
        return self._taken(self._lanes[0])

    def _send(self, lane: _Lane, feeds: Mapping[str, NDArray[Any]], *, fetch: bool = True) -> None:
        """Have a lane begin; its answer is fetched unless it stays on the device."""
        with self.device.current():
            began = time.perf_counter()
            lane.put(feeds)
            self.seconds["stage"] += time.perf_counter() - began
            lane.start(fetch=fetch)

    def _taken(self, lane: _Lane) -> dict[str, NDArray[Any]]:
        """A lane's answer, once it is there."""
        self._wait(lane)
        return lane.answers()

    def _wait(self, lane: _Lane) -> None:
        """Until a lane is done."""
        with self.device.current():
            lane.wait()
            for stage, seconds in lane.seconds().items():
                self.seconds[stage] += seconds
        self.patches += 1

    def _close(self) -> None:
        try:
            with self.device.current():
                self._held.close()
                self._lanes.clear()
                del self._engine
        except DeviceError:
            # A lost device has given everything back already.
            self._held.pop_all()


class _Lane:
    """One patch's way: buffers for each input and output, a stream, and an execution context of its own."""

    def __init__(self, engine: trt.ICudaEngine, listener: Listener, held: ExitStack) -> None:
        """What it allocates is given back by `held`; `listener` hears TensorRT's errors."""
        self._context = _context(engine)
        self._listener = listener
        self._stream = driver.Stream()
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        modes = {name: engine.get_tensor_mode(name) for name in names}
        self.inputs = [name for name in names if modes[name] == trt.TensorIOMode.INPUT]
        self.outputs = [name for name in names if modes[name] == trt.TensorIOMode.OUTPUT]
        self._dtypes = {name: np.dtype(trt.nptype(engine.get_tensor_dtype(name))) for name in names}
        self._buffers: dict[str, Buffer] = {}
        self._growing: dict[str, _Growing] = {}
        for name in self.inputs:
            # (least, best, most) of the only profile: all the same.
            shape = tuple(engine.get_tensor_profile_shape(name, 0)[2])
            self._takes(f"{shape} for {name}", self._context.set_input_shape(name, shape))
            self._bind(name, shape, held)
        for name in self.outputs:
            self._bind_output(name, held)
        # Before, between and behind the three stages.
        self._events = [driver.Event() for _ in range(4)]
        self._held = held
        self._graph: Graph | None = None
        self._ran = False
        # Where TensorRT waits for a length in the middle, it is not.
        self._recordable = not self._growing

    def spec(self, name: str) -> TensorSpec:
        """What a runner declares."""
        shape: tuple[int | None, ...] = self._buffers[name].host.shape
        if name in self._growing:
            shape = self._growing[name].declared
        return TensorSpec(name=name, dtype=self._dtypes[name], shape=shape)

    def put(self, feeds: Mapping[str, NDArray[Any]]) -> None:
        """Copy a patch to where the device can fetch it by itself."""
        for name in self.inputs:
            np.copyto(self._buffers[name].host, feeds[name])

    def start(self, *, fetch: bool) -> None:
        """Queue everything: in, compute, and out where the answer is fetched. Raises DeviceError, pycuda's errors."""
        if self._ran and self._recordable:
            # TensorRT settles what it needs in its first run, which cannot be recorded.
            self._graph = Graph.record(self._stream, self._enqueue)
            if self._graph is not None:
                self._held.callback(self._graph.free)
            self._recordable = False
        self._events[0].record(self._stream)
        for name in self.inputs:
            self._buffers[name].to_device(self._stream)
        self._events[1].record(self._stream)
        if self._graph is not None:
            self._graph.launch(self._stream)
        else:
            self._compute()
        self._ran = True
        self._events[2].record(self._stream)
        for name in self.outputs if fetch else ():
            self._buffers[name].to_host(self._stream)
        self._events[3].record(self._stream)

    def _compute(self) -> None:
        if not self._enqueue():
            # Where the context is broken, this says so.
            self._stream.synchronize()
            raise DeviceError(f"TensorRT cannot run the plan: {self._listener.said}")

    def _enqueue(self) -> bool:
        return bool(self._context.execute_async_v3(self._stream.handle))

    def wait(self) -> None:
        """Until all that is queued is done."""
        self._stream.synchronize()

    def seconds(self) -> dict[str, float]:
        """What the last patch took, by stage."""
        pairs = zip(("copy in", "compute", "copy out"), itertools.pairwise(self._events), strict=True)
        return {stage: end.time_since(begin) / 1000 for stage, (begin, end) in pairs}

    def left(self, name: str) -> OnDevice:
        """Where an output will be once what is queued is done."""
        return OnDevice(address=self._buffers[name].address, stream=self._stream)

    def answers(self) -> dict[str, NDArray[Any]]:
        """The outputs, on the host; the lane's next patch overwrites them."""
        found = {name: self._buffers[name].host for name in self.outputs}
        for name, growing in self._growing.items():
            found[name] = found[name][: int(np.prod(growing.shape))].reshape(growing.shape)
        return found

    def _bind_output(self, name: str, held: ExitStack) -> None:
        """A buffer for an output; for one whose length depends on the values, the largest that it may have."""
        shape = tuple(self._context.get_tensor_shape(name))
        if all(length >= 0 for length in shape):
            self._bind(name, shape, held)
            return
        most = self._context.get_max_output_size(name) // self._dtypes[name].itemsize
        self._bind(name, (most,), held)
        declared = tuple(None if length < 0 else length for length in shape)
        self._growing[name] = _Growing(self._buffers[name], declared)
        self._takes(f"a list for {name}", self._context.set_output_allocator(name, self._growing[name]))

    def _bind(self, name: str, shape: tuple[int, ...], held: ExitStack) -> None:
        buffer = Buffer(shape, self._dtypes[name])
        held.callback(buffer.free)
        self._buffers[name] = buffer
        self._takes(f"memory for {name}", self._context.set_tensor_address(name, buffer.address))

    def _takes(self, what: str, done: bool) -> None:
        """Raise PlanError where TensorRT said no."""
        if not done:
            raise PlanError(f"the plan does not take {what}: {self._listener.said}")


class _Growing(trt.IOutputAllocator):
    """Tells how long an output became whose length depends on the values."""

    def __init__(self, room: Buffer, declared: tuple[int | None, ...]) -> None:
        trt.IOutputAllocator.__init__(self)
        self._address, self._room = room.address, room.nbytes
        self.declared = declared
        self.shape: tuple[int, ...] = ()

    def reallocate_output_async(
        self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
    ) -> int:
        """Called by TensorRT, which takes 0 for "no room" and fails: the largest was asked for beforehand."""
        return self._address if size <= self._room else 0

    def notify_shape(self, tensor_name: str, shape: trt.Dims) -> None:
        """Called by TensorRT, before execute_async_v3 comes back."""
        self.shape = tuple(shape)


def _engine(plan: bytes, listener: Listener) -> trt.ICudaEngine:
    """The plan, loaded. Raises PlanError, DeviceError, DeviceFull."""
    try:
        runtime = trt.Runtime(listener)
    except TypeError as error:
        raise listener.no_device() from error
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise listener.refusal("TensorRT does not take the plan: run `secondread engines build --again`")
    return engine


def _context(engine: trt.ICudaEngine) -> trt.IExecutionContext:
    """What runs a plan; it holds the memory between the layers."""
    context = engine.create_execution_context()
    if context is None:
        raise DeviceFull(
            "the GPU's memory does not suffice for what lies between the layers, "
            f"{engine.device_memory_size_v2 / 2**20:.0f} MB"
        )
    return context
