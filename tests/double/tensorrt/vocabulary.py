"""Enums, the classes that callers derive from, and the container of a plan."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from enum import IntEnum
from typing import Any

import numpy as np


class ILogger:
    class Severity(IntEnum):
        INTERNAL_ERROR = 0
        ERROR = 1
        WARNING = 2
        INFO = 3
        VERBOSE = 4

    def log(self, severity: ILogger.Severity, msg: str) -> None:
        raise NotImplementedError


class IProgressMonitor:
    def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
        raise NotImplementedError

    def step_complete(self, phase_name: str, step: int) -> bool:
        raise NotImplementedError

    def phase_finish(self, phase_name: str) -> None:
        raise NotImplementedError


class IOutputAllocator:
    def reallocate_output_async(
        self, tensor_name: str, memory: int, size: int, alignment: int, stream: int
    ) -> int:
        raise NotImplementedError

    def notify_shape(self, tensor_name: str, shape: tuple[int, ...]) -> None:
        raise NotImplementedError


class TensorIOMode(IntEnum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class DataType(IntEnum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT32 = 3
    BOOL = 4
    UINT8 = 5
    BF16 = 7
    INT64 = 8


_NUMPY = {
    DataType.FLOAT: np.float32,
    DataType.HALF: np.float16,
    DataType.INT8: np.int8,
    DataType.INT32: np.int32,
    DataType.BOOL: np.bool_,
    DataType.UINT8: np.uint8,
    DataType.INT64: np.int64,
}


def nptype(trt_type: DataType) -> type[Any]:
    """The numpy type; bfloat16 has none."""
    if trt_type not in _NUMPY:
        raise TypeError(f"Could not resolve TensorRT datatype to an equivalent numpy datatype: {trt_type!r}")
    return _NUMPY[trt_type]


def of_numpy(dtype: np.dtype[Any]) -> DataType:
    """The other way round."""
    return next(kind for kind, known in _NUMPY.items() if np.dtype(known) == dtype)


class IHostMemory(bytes):
    @property
    def nbytes(self) -> int:
        return len(self)


@dataclass(frozen=True, kw_only=True)
class Header:
    """What a plan is for."""

    version: str
    gpu: str
    compute_capability: list[int]
    #: By input.
    shapes: dict[str, list[int]]
    sha256: str = ""

    def packed(self, graph: bytes) -> IHostMemory:
        """The plan's bytes."""
        text = json.dumps(asdict(self) | {"sha256": hashlib.sha256(graph).hexdigest()}).encode()
        return IHostMemory(_MAGIC + len(text).to_bytes(8, "big") + text + graph)


def unpacked(plan: bytes) -> tuple[Header, bytes]:
    """A plan's parts. Raises ValueError where it is none, or not whole."""
    if not plan.startswith(_MAGIC):
        raise ValueError("Magic tag does not match")
    end = len(_MAGIC) + 8
    length = int.from_bytes(plan[len(_MAGIC) : end], "big")
    header, graph = Header(**json.loads(plan[end : end + length])), plan[end + length :]
    if hashlib.sha256(graph).hexdigest() != header.sha256:
        raise ValueError("Assertion header.size() failed")
    return header, graph


_MAGIC = b"pretended plan\n"
