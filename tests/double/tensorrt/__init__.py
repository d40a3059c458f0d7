"""A double of TensorRT on the CPU: it "compiles" an ONNX graph by wrapping it, and runs it on ONNX Runtime.

Its names and arguments are held to the real bindings by tests/engines/test_gpu_contract.py. As the real one it
answers None, or False, where something is wrong, and tells its logger why.
"""

from __future__ import annotations

from pycuda import condition

from tensorrt.compiler import (
    Builder,
    BuilderFlag,
    IBuilderConfig,
    INetworkDefinition,
    IOptimizationProfile,
    ITensor,
    ITimingCache,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OnnxParser,
    ParserError,
)
from tensorrt.runtime import ICudaEngine, IExecutionContext, Runtime
from tensorrt.vocabulary import (
    DataType,
    IHostMemory,
    ILogger,
    IOutputAllocator,
    IProgressMonitor,
    TensorIOMode,
    nptype,
)

__version__: str = condition.get("tensorrt")

__all__ = [
    "Builder",
    "BuilderFlag",
    "DataType",
    "IBuilderConfig",
    "ICudaEngine",
    "IExecutionContext",
    "IHostMemory",
    "ILogger",
    "INetworkDefinition",
    "IOptimizationProfile",
    "IOutputAllocator",
    "IProgressMonitor",
    "ITensor",
    "ITimingCache",
    "MemoryPoolType",
    "NetworkDefinitionCreationFlag",
    "OnnxParser",
    "ParserError",
    "Runtime",
    "TensorIOMode",
    "nptype",
]
