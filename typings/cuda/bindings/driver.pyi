"""NVIDIA's bindings of the CUDA driver, of which graphs are used. A stream may be its handle, as pycuda gives it."""

from enum import IntEnum
from typing import ClassVar

class CUresult(IntEnum):
    CUDA_ERROR_ILLEGAL_ADDRESS: ClassVar[CUresult]
    CUDA_ERROR_INVALID_VALUE: ClassVar[CUresult]
    CUDA_ERROR_OUT_OF_MEMORY: ClassVar[CUresult]
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED: ClassVar[CUresult]
    CUDA_SUCCESS: ClassVar[CUresult]

class CUstreamCaptureMode(IntEnum):
    CU_STREAM_CAPTURE_MODE_GLOBAL: ClassVar[CUstreamCaptureMode]
    CU_STREAM_CAPTURE_MODE_RELAXED: ClassVar[CUstreamCaptureMode]
    CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: ClassVar[CUstreamCaptureMode]

class CUgraph:
    def __int__(self) -> int: ...

class CUgraphExec:
    def __int__(self) -> int: ...

class CUstream:
    def __int__(self) -> int: ...

def cuGraphDestroy(hGraph: CUgraph) -> tuple[CUresult]: ...
def cuGraphExecDestroy(hGraphExec: CUgraphExec) -> tuple[CUresult]: ...
def cuGraphInstantiate(hGraph: CUgraph, flags: int) -> tuple[CUresult, CUgraphExec]: ...
def cuGraphLaunch(hGraphExec: CUgraphExec, hStream: CUstream | int) -> tuple[CUresult]: ...
def cuStreamBeginCapture(hStream: CUstream | int, mode: CUstreamCaptureMode) -> tuple[CUresult]: ...
def cuStreamEndCapture(hStream: CUstream | int) -> tuple[CUresult, CUgraph]: ...
