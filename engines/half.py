"""An ONNX graph made to compute in half precision: float16 or bfloat16, by one way.

A compiler of strongly typed networks takes the precision from the graph, so every edge must have the right type. What a
node can take in half is read from the operators' own schemas (`onnx.defs`); a Cast stands wherever a node needs the
other type. Which nodes compute in half follows PyTorch's mixed precision (torch.amp, "CUDA Ops that can autocast"):

- convolutions and matrix products do: that is where the time goes;
- sums, powers, exponentials and their like never do: they leave float16's range, or cancel;
- the others follow what they are given, in half where all of it is, and as long as a convolution or product still
  comes. What comes after the last of those (a softmax, a detector's boxes) is the answer, and stays in float32.

Inputs and outputs keep their types. Integers, float64, what already is half, what a quantised network computes, and
operators that ONNX does not know stay as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import (
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    defs,
    inliner,
    shape_inference,
    version_converter,
)

from engines.errors import PlanError
from engines.half_graph import FLOAT, Names, Scope, bodies, captured, dtype_of, graphs
from engines.manifest_gpu import Precision

#: What autocast runs in half, by its name in ONNX.
_HEAVY = frozenset({"Attention", "Conv", "ConvTranspose", "DeformConv", "Einsum", "Gemm", "MatMul"})

#: What stays in float32 wherever it stands.
# fmt: off
_FLOAT = frozenset({
    "Cosh", "CumProd", "CumSum", "DequantizeLinear", "Exp", "GlobalAveragePool", "GlobalLpPool", "GridSample", "LRN",
    "Log", "LogSoftmax", "LpNormalization", "LpPool", "MeanVarianceNormalization", "NonMaxSuppression", "Pow",
    "QuantizeLinear", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMean",
    "ReduceProd", "ReduceSum", "ReduceSumSquare", "RoiAlign", "Sinh", "Softplus", "Tan",
})
# fmt: on

#: The smallest number of each type that has all its digits.
_SMALLEST: Mapping[int, float] = {TensorProto.FLOAT16: 2.0**-14, TensorProto.BFLOAT16: 2.0**-126}

#: What asks for a tensor's shape alone.
_SHAPES = frozenset({"Shape", "Size"})

#: The first opset whose convolutions and pooling take bfloat16.
_BFLOAT16_OPSET = 22


def converted(weights: bytes, precision: Precision) -> bytes:
    """The ONNX graph in `weights`, computing in `precision`; its inputs and outputs stay float32.

    The same graph makes the same bytes. Without a convolution or matrix product nothing changes its precision.
    Raises PlanError, which names the tensor or the operator, where it is no graph in one piece, where a weight of a
    convolution or product does not fit in float16, and where its operators cannot be brought to bfloat16.
    """
    if precision == "float32":
        return weights
    half = TensorProto.FLOAT16 if precision == "float16" else TensorProto.BFLOAT16
    model = _typed(_raised(_opened(weights), half))
    graph = model.graph
    _drop_defaults(model)
    opsets = {one.domain: one.version for one in model.opset_import}
    _Rewriting(opsets, half, Names(graph)).rewrite(graph, None)
    return bytes(model.SerializeToString(deterministic=True))


def _opened(weights: bytes) -> ModelProto:
    """The model, without functions of its own."""
    nothing = "the weights are no ONNX graph: export the network to ONNX again"
    try:
        model = onnx.load_model_from_string(weights)
    except DecodeError as error:
        raise PlanError(nothing) from error
    if not model.graph.output:
        raise PlanError(nothing)
    for graph in graphs(model.graph):
        for tensor in graph.initializer:
            if tensor.data_location == TensorProto.EXTERNAL:
                raise PlanError(
                    f"the network keeps {tensor.name} in a further file: save it as a single ONNX file"
                )
    return inliner.inline_local_functions(model) if model.functions else model


def _raised(model: ModelProto, half: int) -> ModelProto:
    """The model at an opset whose operators know the type."""
    version = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
    if half != TensorProto.BFLOAT16 or not 0 < version < _BFLOAT16_OPSET:
        return model
    try:
        return version_converter.convert_version(model, _BFLOAT16_OPSET)
    except (RuntimeError, ValueError) as error:
        reason = str(error).rpartition(" failed: ")[2].strip()
        raise PlanError(
            f"the network is of opset {version} and cannot be brought to {_BFLOAT16_OPSET}, where bfloat16 begins "
            f"({reason}): export it at that opset, or set gpu.precision: float16"
        ) from error


def _typed(model: ModelProto) -> ModelProto:
    """The model with the type of every tensor."""
    try:
        return shape_inference.infer_shapes(model)
    except (shape_inference.InferenceError, RuntimeError, ValueError) as error:
        raise PlanError(
            f"the types of the network's tensors cannot be told: {error}: export it to ONNX again"
        ) from error


def _drop_defaults(model: ModelProto) -> None:
    """Weights are listed among the inputs by old files, as defaults; nobody gives others."""
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    model.graph.ClearField("input")
    model.graph.input.extend(inputs)
    # Only since then may a weight not be an input.
    model.ir_version = max(model.ir_version, 4)


@dataclass(frozen=True, kw_only=True)
class _Types:
    """The type variables of a node's inputs and outputs, and which of them may become half."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    may: frozenset[str]


@dataclass(frozen=True)
class _Rewriting:
    """Of one model to one half type."""

    opsets: dict[str, int]
    half: int
    names: Names

    @property
    def name(self) -> str:
        """E.g. "float16"."""
        return str(TensorProto.DataType.Name(self.half)).lower()

    def rewrite(self, graph: GraphProto, outer: Scope | None) -> None:
        """Rewrite the graph in place."""
        scope = Scope(graph, self.half, self.names, outer)
        ahead = _before_heavy(graph)
        for node in graph.node:
            types = self._types(node, scope)
            if types and self._computes_in_half(node, types, scope, ahead):
                _halve(node, types, scope)
            else:
                self._keep(node, scope)
        scope.finish()

    def _keep(self, node: NodeProto, scope: Scope) -> None:
        """Leave the node in float32, and all that it takes; what its bodies compute is looked at by itself."""
        new = NodeProto()
        new.CopyFrom(node)
        find = scope.either if node.op_type in _SHAPES else scope.as_float
        new.input[:] = [find(name) for name in node.input]
        for body in bodies(new):
            for name in captured(body):
                scope.as_float(name)
            self.rewrite(body, scope)
        scope.note(node)
        scope.add(new)

    def _types(self, node: NodeProto, scope: Scope) -> _Types | None:
        """What the operator's schema says; None where it has none, or a tensor's type is not known."""
        version = self.opsets.get(node.domain, self.opsets.get("ai.onnx", 0))
        if node.domain not in ("", "ai.onnx") or not all(map(scope.type, filter(None, node.input))):
            return None
        try:
            schema = defs.get_schema(node.op_type, version, "")
        except defs.SchemaError:
            return None
        half = f"tensor({self.name})"
        able = {one.type_param_str for one in schema.type_constraints if half in one.allowed_type_strs}
        inputs = tuple(_variables(schema.inputs, len(node.input)))
        floats = {
            variable for name, variable in zip(node.input, inputs, strict=True) if scope.type(name) == FLOAT
        }
        outputs = tuple(_variables(schema.outputs, len(node.output)))
        return _Types(inputs=inputs, outputs=outputs, may=frozenset(able & floats))

    def _computes_in_half(self, node: NodeProto, types: _Types, scope: Scope, ahead: set[str]) -> bool:
        """Whether this node is to compute in half."""
        if node.op_type in _FLOAT or any(bodies(node)) or types.may.isdisjoint(types.outputs[:1]):
            return False
        taken = [
            name for name, kind in zip(node.input, types.inputs, strict=True) if kind in types.may and name
        ]
        moving = [name for name in taken if not scope.fixed(name)]
        heavy = node.op_type in _HEAVY
        quantised = any(scope.made_by(name) == "DequantizeLinear" for name in taken)
        if not moving or quantised:
            return False
        if not heavy and ahead.isdisjoint(node.output):
            return False
        halves = [scope.computed_in_half(name) for name in moving]
        # What only lays tensors beside each other loses nothing that a later convolution would not.
        follows = any(halves) if node.op_type == "Concat" else all(halves)
        return (heavy or follows) and all(self._fits(scope, name, heavy, name in taken[2:]) for name in taken)

    def _fits(self, scope: Scope, name: str, heavy: bool, bias: bool) -> bool:
        """Whether a constant keeps its value in half. Raises PlanError where a weight would become infinite."""
        array = scope.constant(name)
        if array is None or array.size == 0:
            return True
        largest = float(np.abs(array[np.isfinite(array)]).max(initial=0.0))
        with np.errstate(over="ignore"):
            infinite = not np.isfinite(np.float32(largest).astype(dtype_of(self.half)).astype(np.float32))
        if infinite and heavy:
            wide = self.half == TensorProto.FLOAT16
            raise PlanError(
                f"the network's weight {name} holds {largest:g}, which {self.name} cannot: "
                f"set gpu.precision: {'bfloat16, or float32,' if wide else 'float32'} in its manifest"
            )
        # Where all of it lies below the smallest normal number, it loses digits: no matter to what is added to a sum.
        small = 0 < largest < _SMALLEST[self.half] and not (heavy and bias)
        return not infinite and not small


def _halve(node: NodeProto, types: _Types, scope: Scope) -> None:
    """Write the node with its float32 inputs and outputs in half."""
    new = NodeProto()
    new.CopyFrom(node)

    def is_half(name: str, variable: str) -> bool:
        return variable in types.may and scope.type(name) == FLOAT

    for index, (name, variable) in enumerate(zip(node.input, types.inputs, strict=True)):
        new.input[index] = scope.as_half(name) if is_half(name, variable) else scope.as_float(name)
    for index, (name, variable) in enumerate(zip(node.output, types.outputs, strict=True)):
        if is_half(name, variable):
            new.output[index] = scope.new_half(name)
    scope.note(node)
    scope.add(new)


def _variables(formal: Sequence[Any], count: int) -> Iterator[str]:
    """The type variable of each of `count` arguments: the last one repeats where it is variadic."""
    for index in range(count):
        yield str(formal[min(index, len(formal) - 1)].type_str)


def _before_heavy(graph: GraphProto) -> set[str]:
    """The tensors from whose values a convolution or product is still computed."""
    wanted: set[str] = set()
    for node in reversed(graph.node):
        if node.op_type in _HEAVY or not wanted.isdisjoint(node.output):
            wanted.update(name for name in node.input if name and node.op_type not in _SHAPES)
    return wanted
