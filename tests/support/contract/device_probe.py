"""Run by the contract environment's own Python: engines/cuda.py on the real pycuda and CUDA's own bindings.

The driver below them is driver.c: it has a context stack in each thread, memory, streams and graphs, and no GPU. The
argument says what is tried; an assertion that does not hold ends the process with an error.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from typing import Any

import numpy as np

from engines import cuda
from engines.errors import DeviceError, DeviceFull, DeviceLost

_LIBRARY = ctypes.CDLL("libcuda.so.1")


def _said(name: str) -> Any:
    """One of the driver's own variables."""
    return ctypes.c_int.in_dll(_LIBRARY, name)


def absent() -> None:
    """Without a device there is a DeviceError, which says what to look at."""
    try:
        cuda.device()
    except DeviceError as error:
        assert "nvidia-smi" in str(error), error
    else:
        raise AssertionError("a driver without a device was believed")


def used() -> None:
    """What is copied arrives, at once and from a graph, in whatever thread; and all of it is given back."""
    _said("devices").value = 1
    device = cuda.device()
    assert device.compute_capability == "9.0"
    assert device.memory()[0] <= device.memory()[1]
    before = _said("live").value
    _copies_on(device)
    thread = threading.Thread(target=_copies_on, args=(device,))
    thread.start()
    thread.join()
    assert _said("live").value == before, "something was not given back"


def _copies_on(device: cuda.Device) -> None:
    with device.current():
        # What it makes ends with it, while the context is current.
        _copies()


def _copies() -> None:
    buffer, stream = cuda.Buffer((2, 3), np.dtype(np.float32)), cuda.driver.Stream()
    begin, end = cuda.driver.Event(), cuda.driver.Event()
    buffer.host[...] = 7
    begin.record(stream)
    buffer.to_device(stream)
    graph = cuda.Graph.record(stream, lambda: bool(buffer.to_host(stream) or True))
    assert graph is not None
    buffer.host[...] = 0
    for _ in range(2):
        graph.launch(stream)
    end.record(stream)
    stream.synchronize()
    assert (buffer.host == 7).all()
    assert end.time_since(begin) > 0
    graph.free()
    buffer.free()


def full() -> None:
    """What does not fit is a DeviceFull, and the device is good for more."""
    _said("devices").value = 1
    device = cuda.device()
    try:
        with device.current():
            cuda.driver.mem_alloc(2**30)
    except DeviceFull:
        device.check()
    else:
        raise AssertionError("a gigabyte was had of half of one")


def lost() -> None:
    """A context that broke is a DeviceLost, in nested blocks too; and the process ends as others do."""
    _said("devices").value = 1
    device = cuda.device()
    try:
        with device.current(), device.current():
            _said("broken").value = 700
            cuda.driver.mem_alloc(1)
    except DeviceLost:
        pass
    else:
        raise AssertionError("an illegal address was taken")
    try:
        device.check()
    except DeviceLost:
        return
    raise AssertionError("a lost device was offered again")


if __name__ == "__main__":
    {"absent": absent, "full": full, "lost": lost, "used": used}[sys.argv[1]]()
