"""ONNX Runtime under the double."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import helper


def opened(graph: bytes) -> Any:
    """A session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])


def kinds(graph: Any) -> tuple[dict[str, np.dtype[Any]], dict[str, np.dtype[Any]]]:
    """The types of inputs and outputs by name."""
    constant = {tensor.name for tensor in graph.initializer}
    inputs = {info.name: _kind(info) for info in graph.input if info.name not in constant}
    return inputs, {info.name: _kind(info) for info in graph.output}


def axes(graph: Any) -> dict[str, tuple[int, ...]]:
    """The shapes of inputs and outputs by name, -1 where they are free."""
    found = {}
    for info in (*graph.input, *graph.output):
        lengths = info.type.tensor_type.shape.dim
        found[info.name] = tuple(one.dim_value if one.HasField("dim_value") else -1 for one in lengths)
    return found


def ran(graph: bytes, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, NDArray[Any]]:
    """What the graph answers about nothing. Raises what ONNX Runtime raises."""
    read = onnx.load_from_string(graph).graph
    inputs, outputs = kinds(read)
    declared = axes(read)
    feeds = {name: np.zeros(shapes.get(name, declared[name]), kind) for name, kind in inputs.items()}
    return dict(zip(outputs, opened(graph).run(list(outputs), feeds), strict=True))


def _kind(info: Any) -> np.dtype[Any]:
    return np.dtype(helper.tensor_dtype_to_np_dtype(info.type.tensor_type.elem_type))
