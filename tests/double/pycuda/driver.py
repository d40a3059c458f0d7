"""The driver API as pycuda has it, on the CPU."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pycuda import condition, kernels

_VERSION = (13, 0, 0)


class Error(Exception):
    """As pycuda's: the base of all."""


class MemoryError(Error):
    """CUDA_ERROR_OUT_OF_MEMORY."""


class LogicError(Error):
    """Everything else."""


class LaunchError(Error):
    """A kernel that failed."""


class RuntimeError(Error):
    """No device, and the like."""


#: Bytes between pretended addresses, and around what is allocated; a sanitiser wants none.
_APART, _GUARD = 2**40, 0 if kernels.OPTIONS in os.environ else 4096
_ILLEGAL = "an illegal memory access was encountered"
_here = threading.local()
_numbers = itertools.count(1)
_process = 0
_broken = ""
_launches = 0
_memory: dict[int, NDArray[np.uint8]] = {}
_pinned: list[tuple[int, int]] = []
_streams: dict[int, Stream] = {}


def get_version() -> tuple[int, int, int]:
    return _VERSION


def get_driver_version() -> int:
    return int(condition.get("driver"))


def init(flags: int = 0) -> None:
    global _process
    if get_driver_version() // 1000 < _VERSION[0]:
        raise RuntimeError("cuInit failed: CUDA driver version is insufficient for CUDA runtime version")
    if not condition.get("devices"):
        raise RuntimeError("cuInit failed: no CUDA-capable device is detected")
    if not _process:
        _process = os.getpid()


def _why_broken() -> str:
    """Why nothing works any more."""
    return _broken


def _called(name: str, *, context: bool = True) -> None:
    """Refuse what a driver refuses."""
    if _process != os.getpid():
        raise LogicError(f"{name} failed: initialization error")
    if _broken:
        raise LogicError(f"{name} failed: {_broken}")
    if context and not _stack():
        raise LogicError(f"{name} failed: invalid device context")


def _stack() -> list[Context]:
    if not hasattr(_here, "stack"):
        _here.stack = []
    stack: list[Context] = _here.stack
    return stack


class Context:
    def push(self) -> None:
        _called("cuCtxPushCurrent", context=False)
        _stack().append(self)

    @staticmethod
    def pop() -> None:
        if not _stack():
            raise LogicError("context::pop failed: invalid device context - cannot pop non-current context")
        _stack().pop()

    @staticmethod
    def synchronize() -> None:
        _called("cuCtxSynchronize")
        for stream in list(_streams.values()):
            stream._drain()
        _called("cuCtxSynchronize")


class Device:
    def __init__(self, number: int, /) -> None:
        _called("cuDeviceGet", context=False)
        if number >= condition.get("devices"):
            raise LogicError("cuDeviceGet failed: invalid device ordinal")

    @staticmethod
    def count() -> int:
        _called("cuDeviceGetCount", context=False)
        return int(condition.get("devices"))

    def name(self) -> str:
        return str(condition.get("gpu"))

    def compute_capability(self) -> tuple[int, int]:
        major, minor = condition.get("compute_capability")
        return major, minor

    def retain_primary_context(self) -> Context:
        _called("cuDevicePrimaryCtxRetain", context=False)
        return Context()


def mem_get_info() -> tuple[int, int]:
    _called("cuMemGetInfo")
    total = int(condition.get("megabytes") * 2**20)
    return max(0, total - sum(map(len, _memory.values()))), total


class DeviceAllocation:
    def __init__(self, address: int) -> None:
        self._address = address

    def __int__(self) -> int:
        return self._address

    __index__ = __int__

    def free(self) -> None:
        _called("cuMemFree")
        if self._address not in _memory:
            raise LogicError("device_allocation::free failed: invalid device context")
        # cuMemFree waits for what is under way.
        for stream in list(_streams.values()):
            stream._drain()
        del _memory[self._address]

    def __del__(self) -> None:
        _memory.pop(self._address, None)


def mem_alloc(bytes: int, /) -> DeviceAllocation:
    _called("cuMemAlloc")
    if bytes <= 0:
        raise LogicError("cuMemAlloc failed: invalid argument")
    _reserve(bytes)
    # 256 bytes apart, as CUDA aligns them; never at 0.
    address = next(_numbers) * _APART
    _memory[address] = np.full(bytes + 2 * _GUARD, 0xFF, np.uint8)[_GUARD : _GUARD + bytes]
    return DeviceAllocation(address)


def _reserve(size: int) -> None:
    """Raise MemoryError where so many bytes are not free."""
    if size > mem_get_info()[0]:
        raise MemoryError("cuMemAlloc failed: out of memory")


def _on_device(address: int, size: int) -> NDArray[np.uint8]:
    """So many bytes of the pretended device's memory; what is not there breaks the context, as on a real one."""
    global _broken
    begin = address % _APART
    found = _memory.get(address - begin)
    if found is None or begin + size > len(found):
        _broken = _ILLEGAL
        return np.zeros(size, np.uint8)
    return found[begin : begin + size]


def pagelocked_empty(shape: Any, dtype: Any, order: str = "C", mem_flags: int = 0) -> NDArray[Any]:
    _called("cuMemHostAlloc")
    array = np.empty(shape, dtype, order="C" if order == "C" else "F")
    array.view(np.uint8)[...] = 0xFF
    start = array.__array_interface__["data"][0]
    _pinned.append((start, start + array.nbytes))
    return array


def _is_pinned(array: NDArray[Any]) -> bool:
    start = array.__array_interface__["data"][0]
    return any(low <= start and start + array.nbytes <= high for low, high in _pinned)


class Stream:
    def __init__(self, flags: int = 0) -> None:
        _called("cuStreamCreate")
        self.handle = next(_numbers)
        self._queue: list[Callable[[], None]] = []
        self.recording: list[Callable[[], None]] | None = None
        _streams[self.handle] = self

    def _put(self, work: Callable[[], None]) -> None:
        """Have it run when somebody waits."""
        (self._queue if self.recording is None else self.recording).append(work)

    def _drain(self) -> None:
        """Run what is queued."""
        while self._queue and not _broken:
            self._queue.pop(0)()

    def wait_for_event(self, evt: Event, /) -> None:
        """For what the event was recorded behind last, not for what it will be."""
        _called("cuStreamWaitEvent")
        assert self.recording is None
        mark = evt._mark
        if mark is not None:
            self._put(mark.reach)

    def _drain_to(self, mark: _Mark) -> None:
        """Run what is queued before a mark, and it."""
        while not mark.at and self._queue and not _broken:
            self._queue.pop(0)()

    def synchronize(self) -> None:
        _called("cuStreamSynchronize")
        if self.recording is not None:
            raise LogicError("cuStreamSynchronize failed: operation not permitted when stream is capturing")
        self._drain()
        _called("cuStreamSynchronize")


def _stream_of(handle: int) -> Stream:
    """By its handle."""
    return _streams[handle]


def memset_d8_async(dest: Any, data: int, size: int, stream: Stream) -> None:
    _called("cuMemsetD8Async")
    address = int(dest)

    def fill() -> None:
        _on_device(address, size)[...] = data

    stream._put(fill)


def memcpy_htod_async(dest: Any, src: NDArray[Any], stream: Stream) -> None:
    _called("cuMemcpyHtoDAsync")
    assert _is_pinned(src), "a copy from memory that is not page-locked is none that overlaps"
    address, size = int(dest), src.nbytes

    def copy() -> None:
        _on_device(address, size)[...] = np.frombuffer(src.tobytes(), np.uint8)

    stream._put(copy)


def memcpy_dtoh_async(dest: NDArray[Any], src: Any, stream: Stream) -> None:
    _called("cuMemcpyDtoHAsync")
    assert _is_pinned(dest), "a copy to memory that is not page-locked is none that overlaps"
    address, size = int(src), dest.nbytes

    def copy() -> None:
        dest.reshape(-1).view(np.uint8)[...] = _on_device(address, size)

    stream._put(copy)


class _Mark:
    """A place in a stream's queue."""

    def __init__(self, stream: Stream) -> None:
        #: When it was reached; 0 before.
        self.at = 0.0
        self._stream = stream

    def pass_by(self) -> None:
        self.at = time.perf_counter()

    def reach(self) -> None:
        self._stream._drain_to(self)


class Event:
    def __init__(self, flags: int = 0) -> None:
        _called("cuEventCreate")
        #: Where it was recorded last.
        self._mark: _Mark | None = None

    def record(self, stream: Stream) -> Event:
        _called("cuEventRecord")
        assert stream.recording is None, "an event that is recorded into a graph has no time"
        self._mark = _Mark(stream)
        stream._put(self._mark.pass_by)
        return self

    def synchronize(self) -> Event:
        _called("cuEventSynchronize")
        if self._mark is not None:
            self._mark.reach()
        _called("cuEventSynchronize")
        return self

    def time_since(self, begin: Event, /) -> float:
        _called("cuEventElapsedTime")
        if self._mark is None or begin._mark is None or not (self._mark.at and begin._mark.at):
            raise LogicError("cuEventElapsedTime failed: device not ready")
        return (self._mark.at - begin._mark.at) * 1000


class Function:
    def __init__(self, kernel: kernels.Kernel) -> None:
        self._kernel = kernel

    def prepare(self, arg_types: str, texrefs: Any = None) -> Function:
        # A real driver believes what it is told.
        assert arg_types == self._kernel.arguments, f"{arg_types} is not {self._kernel.arguments}"
        return self

    def prepared_async_call(
        self, grid: tuple[int, ...], block: tuple[int, int, int], stream: Stream, *args: Any, **kwargs: Any
    ) -> None:
        _called("cuLaunchKernel")
        if not 0 < np.prod(block) <= 1024 or not np.prod(grid):
            raise LogicError("cuLaunchKernel failed: invalid argument")
        sizes = (*grid, *[1] * (3 - len(grid)), *block)
        letters = self._kernel.arguments

        def run() -> None:
            values = [
                _real(value) if letter == "P" else value for letter, value in zip(letters, args, strict=True)
            ]
            if not _broken:
                self._kernel.run(sizes, values)
                _look_around()

        stream._put(run)


class Module:
    def __init__(self, found: dict[str, kernels.Kernel]) -> None:
        self._found = found

    def get_function(self, name: str) -> Function:
        _called("cuModuleGetFunction")
        if name not in self._found:
            raise LogicError("cuModuleGetFunction failed: named symbol not found")
        return Function(self._found[name])


def module_from_buffer(buffer: bytes, options: Any = (), message_handler: Any = None) -> Module:
    _called("cuModuleLoadDataEx")
    found = kernels.of(buffer) if condition.get("reads_ptx") else None
    if found is None:
        raise LogicError(
            "cuModuleLoadDataEx failed: the provided PTX was compiled with an unsupported toolchain."
        )
    return Module(found)


def _real(address: int) -> int:
    """Where the pretended device's memory is on this machine."""
    return int(_on_device(address, 1).__array_interface__["data"][0]) if address else 0


def _look_around() -> None:
    """Whether a kernel wrote beside what is allocated: a real one may break something else."""
    for memory in _memory.values():
        whole = memory.base
        assert isinstance(whole, np.ndarray)
        around = np.concatenate([whole[:_GUARD], whole[_GUARD + len(memory) :]])
        assert (around == 0xFF).all(), "written out of bounds"


def _launched() -> bool:
    """One patch more; False where the device breaks on it."""
    global _broken, _launches
    _launches += 1
    most = condition.get("lost_after")
    if most is not None and _launches > most:
        _broken = _ILLEGAL
    return not _broken
