"""CUDA graphs: work that was queued while a stream was recorded, and is queued again when it is launched."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from enum import IntEnum
from typing import Any

from pycuda import condition, driver


class CUresult(IntEnum):
    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


class CUstreamCaptureMode(IntEnum):
    CU_STREAM_CAPTURE_MODE_GLOBAL = 0
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1
    CU_STREAM_CAPTURE_MODE_RELAXED = 2


_graphs: dict[int, list[Callable[[], None]]] = {}
_numbers = itertools.count(1)


def _status() -> CUresult:
    return CUresult.CUDA_ERROR_ILLEGAL_ADDRESS if driver._why_broken() else CUresult.CUDA_SUCCESS


def cuStreamBeginCapture(hStream: Any, mode: CUstreamCaptureMode) -> tuple[CUresult]:
    driver._stream_of(int(hStream)).recording = []
    return (_status(),)


def cuStreamEndCapture(hStream: Any) -> tuple[CUresult, int]:
    stream = driver._stream_of(int(hStream))
    number, recorded = next(_numbers), stream.recording
    stream.recording = None
    if recorded is None or not condition.get("records"):
        return CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, 0
    _graphs[number] = recorded
    return _status(), number


def cuGraphInstantiate(hGraph: int, flags: int) -> tuple[CUresult, int]:
    number = next(_numbers)
    _graphs[number] = _graphs[hGraph]
    return _status(), number


def cuGraphDestroy(hGraph: int) -> tuple[CUresult]:
    del _graphs[hGraph]
    return (_status(),)


def cuGraphExecDestroy(hGraphExec: int) -> tuple[CUresult]:
    del _graphs[hGraphExec]
    return (_status(),)


def cuGraphLaunch(hGraphExec: int, hStream: Any) -> tuple[CUresult]:
    for work in _graphs[hGraphExec]:
        driver._stream_of(int(hStream))._put(work)
    return (_status(),)
