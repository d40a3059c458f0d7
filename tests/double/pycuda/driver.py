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

from pycuda import condition

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
    address = next(_numbers) * 2**40
    _memory[address] = np.full(bytes, 0xFF, np.uint8)
    return DeviceAllocation(address)


def _reserve(size: int) -> None:
    """Raise MemoryError where so many bytes are not free."""
    if size > mem_get_info()[0]:
        raise MemoryError("cuMemAlloc failed: out of memory")


def _on_device(address: int, size: int) -> NDArray[np.uint8]:
    """So many bytes of the pretended device's memory; what is not there breaks the context, as on a real one."""
    global _broken
    found = _memory.get(address)
    if found is None or size > len(found):
        _broken = _ILLEGAL
        return np.zeros(size, np.uint8)
    return found[:size]


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

    def synchronize(self) -> None:
        _called("cuStreamSynchronize")
        if self.recording is not None:
            raise LogicError("cuStreamSynchronize failed: operation not permitted when stream is capturing")
        self._drain()
        _called("cuStreamSynchronize")


def _stream_of(handle: int) -> Stream:
    """By its handle."""
    return _streams[handle]


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


class Event:
    def __init__(self, flags: int = 0) -> None:
        _called("cuEventCreate")
        self._at: float | None = None

    def record(self, stream: Stream) -> Event:
        _called("cuEventRecord")
        assert stream.recording is None, "an event that is recorded into a graph has no time"
        self._at = None
        stream._put(self._reached)
        return self

    def _reached(self) -> None:
        self._at = time.perf_counter()

    def time_since(self, begin: Event, /) -> float:
        _called("cuEventElapsedTime")
        if self._at is None or begin._at is None:
            raise LogicError("cuEventElapsedTime failed: device not ready")
        return (self._at - begin._at) * 1000


def _launched() -> bool:
    """One patch more; False where the device breaks on it."""
    global _broken, _launches
    _launches += 1
    most = condition.get("lost_after")
    if most is not None and _launches > most:
        _broken = _ILLEGAL
    return not _broken
