"""Runs a graph in half precision where no runtime has its operators: in float32, rounding wherever it holds a half tensor.

That is what a processor does which multiplies halves, adds them up in float32 and stores halves.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper

HALVES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
FLOAT = TensorProto.FLOAT


def answers(
    weights: bytes, feeds: Mapping[str, NDArray[Any]], *, rounded: bool = False
) -> dict[str, NDArray[Any]]:
    """Every output of the graph on ONNX Runtime's CPU provider; `rounded` runs it in float32 as described above."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    if rounded:
        # Or the casts to half and back would be taken out.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(
        _rounding(weights) if rounded else weights, options, providers=["CPUExecutionProvider"]
    )
    return dict(zip([one.name for one in session.get_outputs()], session.run(None, dict(feeds)), strict=True))


def checked(weights: bytes) -> onnx.ModelProto:
    """The model, which ONNX's checker and its strict inference of types and shapes accept."""
    model = onnx.load_model_from_string(weights)
    onnx.checker.check_model(model, full_check=True)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


def half_nodes(weights: bytes) -> list[str]:
    """The operators, but Cast, that give a half tensor; those in bodies too."""
    return [
        kind for graph, types in _graphs(checked(weights).graph, {}) for kind in _half_nodes(graph, types)
    ]


def _half_nodes(graph: GraphProto, types: Mapping[str, int]) -> Iterator[str]:
    for node in graph.node:
        if node.op_type != "Cast" and any(types.get(name) in HALVES for name in node.output):
            yield node.op_type


def _graphs(graph: GraphProto, outer: Mapping[str, int]) -> Iterator[tuple[GraphProto, dict[str, int]]]:
    """Each graph with the types of all that it sees."""
    types = {**outer, **{tensor.name: tensor.data_type for tensor in graph.initializer}}
    for value in (*graph.input, *graph.value_info, *graph.output):
        types[value.name] = value.type.tensor_type.elem_type
    yield graph, types
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g, types)


def _rounding(weights: bytes) -> bytes:
    """The same with every operator in float32, and a cast to half and back behind each that gave a half tensor."""
    model = checked(weights)
    # The innermost first: to write a graph again copies what lies within it.
    for graph, types in reversed(list(_graphs(model.graph, {}))):
        for tensor in graph.initializer:
            if tensor.data_type in HALVES:
                tensor.CopyFrom(
                    numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name)
                )
        nodes = [made for node in graph.node for made in _rounded(node, types)]
        for field in ("node", "value_info"):
            graph.ClearField(field)
        graph.node.extend(nodes)
    return bytes(model.SerializeToString())


def _rounded(node: NodeProto, types: Mapping[str, int]) -> Iterator[NodeProto]:
    behind = []
    for index, name in enumerate(node.output):
        if (half := types.get(name)) in HALVES:
            node.output[index] = f"{name} before"
            behind += [
                helper.make_node("Cast", [f"{name} before"], [f"{name} rounded"], to=half),
                helper.make_node("Cast", [f"{name} rounded"], [name], to=FLOAT),
            ]
    if node.op_type == "Cast" and behind:
        node.attribute[0].i = FLOAT
    yield from [node, *behind]
