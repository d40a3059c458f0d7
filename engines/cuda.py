"""The CUDA device of this process, by pycuda: its context, its memory, its streams, and what its errors mean.

The device is opened when it is first asked for, never before a fork: a CUDA context does not survive one. Its
primary context is pushed around each use, in whatever thread that is, and popped after it, so that pools of processes
and of threads may use it. pycuda frees an object where its context is current, and leaks it elsewhere: `Device.current`
is also around every `free`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from cuda.bindings import driver as graphs
from numpy.typing import NDArray
from pycuda import driver

from engines.adapter import DRIVER
from engines.errors import DeviceError, DeviceFull, DeviceLost

_lock = threading.Lock()
_opened: Device | None = None


def device() -> Device:
    """The device that this process uses: the first that CUDA_VISIBLE_DEVICES lets it see. Raises DeviceError."""
    global _opened
    with _lock:
        if _opened is None:
            _opened = Device()
        _opened.check()
        return _opened


class Device:
    """One GPU in one process."""

    def __init__(self) -> None:
        """Raises DeviceError where there is no driver, one that is too old, or no GPU."""
        self._process = os.getpid()
        self._lost = ""
        self._detached = False
        self._kernels: dict[bytes, driver.Module | None] = {}
        try:
            driver.init()
            if not driver.Device.count():
                raise DeviceError(f"CUDA sees no GPU: {DRIVER}")
            found = driver.Device(0)
            self.name = str(found.name())
            self.compute_capability = "{}.{}".format(*found.compute_capability())
            # The one that TensorRT and ONNX Runtime use too.
            self._context = found.retain_primary_context()
        except driver.Error as error:
            raise DeviceError(f"CUDA cannot be used: {error}{_age()}: {DRIVER}") from error

    def check(self) -> None:
        """Raise DeviceError where this process cannot use the device: it was opened by its parent, or is lost."""
        if self._process != os.getpid():
            raise DeviceError(
                "the GPU was opened before this process was forked: open it in the process that uses it"
            )
        if self._lost:
            raise DeviceLost(self._lost)

    @contextmanager
    def current(self) -> Iterator[None]:
        """The device's context is this thread's inside the block; what goes wrong there is a DeviceError."""
        self.check()
        try:
            self._context.push()
        except driver.Error as error:
            raise self.lose(error) from error
        try:
            yield
        except driver.Error as error:
            raise self._meant(error) from error
        finally:
            self._leave()

    def _leave(self) -> None:
        """Pop the context; of one that broke, the pop too may give the error (cuda.h, cuCtxPopCurrent)."""
        if self._detached:
            return
        try:
            driver.Context.pop()
        except driver.Error as error:
            # It is still on pycuda's stack then, and pycuda aborts a thread that ends so.
            self._detached = True
            self._context.detach()
            raise self.lose(error) from error

    def memory(self) -> tuple[int, int]:
        """Bytes that are free on the device, and that it has; other processes' use counts."""
        with self.current():
            free, total = driver.mem_get_info()
            return int(free), int(total)

    def kernels(self, ptx: bytes) -> driver.Module | None:
        """Kernels, which the driver compiles when they are first asked for; None where it is older than their PTX."""
        if ptx not in self._kernels:
            try:
                self._kernels[ptx] = driver.module_from_buffer(ptx)
            except driver.Error as error:
                if isinstance(meant := self._meant(error), DeviceLost):
                    raise meant from error
                self._kernels[ptx] = None
        return self._kernels[ptx]

    def _meant(self, error: driver.Error) -> DeviceError:
        """The error as one of ours: which of them, the device itself says."""
        if isinstance(error, driver.MemoryError):
            return DeviceFull(f"the memory of {self.name} does not suffice: {error}")
        try:
            driver.Context.synchronize()
        except driver.Error as again:
            # An error that broke the context comes back from every later call (CUDA driver API, 6.1).
            return self.lose(again)
        return DeviceError(f"{self.name}: {error}")

    def lose(self, reason: object) -> DeviceLost:
        """Note that nothing more can be done on the device in this process; the error to raise."""
        self._lost = self._lost or f"{self.name} is lost to this process: {reason}"
        return DeviceLost(self._lost)


@dataclass(frozen=True, kw_only=True, eq=False)
class OnDevice:
    """An array that is on the device once what `stream` has queued is done."""

    address: int
    stream: driver.Stream


class Buffer:
    """An array in page-locked host memory, and as many bytes on the device. Made and freed under `Device.current`."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        """Raises pycuda's errors."""
        # There is no allocation of nothing.
        self._flat: NDArray[Any] = driver.pagelocked_empty(max(1, int(np.prod(shape))), dtype)
        self.host = self._flat[: int(np.prod(shape))].reshape(shape)
        self._device = driver.mem_alloc(self._flat.nbytes)

    @property
    def address(self) -> int:
        """On the device."""
        return int(self._device)

    @property
    def nbytes(self) -> int:
        """On the device, and on the host again."""
        return int(self._flat.nbytes)

    def to_device(self, stream: driver.Stream) -> None:
        """Queue the copy from the host's array."""
        driver.memcpy_htod_async(self._device, self._flat, stream)

    def to_host(self, stream: driver.Stream) -> None:
        """Queue the copy to the host's array."""
        driver.memcpy_dtoh_async(self._flat, self._device, stream)

    def free(self) -> None:
        """Give both back; nothing may be queued that uses them."""
        self._device.free()
        del self.host, self._flat


class Graph:
    """Work that was queued on a stream once, and is launched as a whole from then on.

    pycuda has no CUDA graphs; NVIDIA's own bindings of the same driver have.
    """

    @classmethod
    def record(cls, stream: driver.Stream, queue: Callable[[], bool]) -> Graph | None:
        """Record what `queue` puts on the stream; nothing of it runs yet. None where it cannot be recorded."""
        mode = graphs.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        _done(graphs.cuStreamBeginCapture(stream.handle, mode))
        recordable = queue()
        status, recorded = graphs.cuStreamEndCapture(stream.handle)
        if status != graphs.CUresult.CUDA_SUCCESS:
            return None
        try:
            return cls(recorded) if recordable else None
        finally:
            _done(graphs.cuGraphDestroy(recorded))

    def __init__(self, recorded: Any) -> None:
        (self._launchable,) = _done(graphs.cuGraphInstantiate(recorded, 0))

    def launch(self, stream: driver.Stream) -> None:
        """Queue all of it."""
        _done(graphs.cuGraphLaunch(self._launchable, stream.handle))

    def free(self) -> None:
        """Give it back."""
        _done(graphs.cuGraphExecDestroy(self._launchable))


def _done(answer: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a call answered beside its status. Raises pycuda's errors, so that all CUDA errors are of one kind."""
    status, *rest = answer
    if status == graphs.CUresult.CUDA_SUCCESS:
        return tuple(rest)
    if status == graphs.CUresult.CUDA_ERROR_OUT_OF_MEMORY:
        raise driver.MemoryError(status.name)
    raise driver.LogicError(status.name)


def _age() -> str:
    """That the driver is older than what pycuda was built for, where it is."""
    wanted, found = driver.get_version()[0], driver.get_driver_version() // 1000
    return f" (the driver is for CUDA {found}, pycuda was built for CUDA {wanted})" if found < wanted else ""
