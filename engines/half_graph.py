"""One graph while it is rewritten to half precision: which tensors exist in which type, and the casts between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper, numpy_helper

FLOAT = TensorProto.FLOAT


class Names:
    """Names that nothing in a model has yet."""

    def __init__(self, graph: GraphProto) -> None:
        self._taken = set(_every_name(graph))

    def fresh(self, wanted: str) -> str:
        """`wanted`, with a number where that is taken."""
        name, number = wanted, 1
        while name in self._taken:
            number += 1
            name = f"{wanted}.{number}"
        self._taken.add(name)
        return name


class Scope:
    """A graph's tensors by name. A name always means the float32 value; its half value has a name of its own.

    A body of If, Loop or Scan is a scope within the one that holds its node: it sees what is outside.
    """

    def __init__(self, graph: GraphProto, half: int, names: Names, outer: Scope | None = None) -> None:
        self.outer = outer
        self.half = half
        #: The rewritten nodes, in their order.
        self.nodes: list[NodeProto] = []
        self._names = names
        self._graph = graph
        self._types = dict(_types(graph))
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._fixed = {*self._constants, *(one.values.name for one in graph.sparse_initializer)}
        #: What is there as float32, by its own name.
        self._there = {*self._fixed, *(value.name for value in graph.input)}
        self._halves: dict[str, str] = {}
        #: What was computed in half, and not only cast to it.
        self._computed: set[str] = set()
        #: The operator that made each tensor.
        self._made_by: dict[str, str] = {}

    def type(self, name: str) -> int:
        """The type that a tensor has in the graph as it was; 0 where it is none, or nobody knows."""
        return self._types.get(name, self.outer.type(name) if self.outer else 0)

    def constant(self, name: str) -> NDArray[Any] | None:
        """The values of a constant; None of what is none."""
        if name in self._constants:
            return numpy_helper.to_array(self._constants[name])
        return self.outer.constant(name) if self.outer and name not in self._types else None

    def fixed(self, name: str) -> bool:
        """Whether it does not depend on the graph's inputs."""
        return name in self._fixed or bool(self.outer and name not in self._types and self.outer.fixed(name))

    def computed_in_half(self, name: str) -> bool:
        """Whether its value was computed in half."""
        return name in self._computed or bool(self.outer and self.outer.computed_in_half(name))

    def made_by(self, name: str) -> str:
        """The operator that made it; "" of what none made."""
        return self._made_by.get(name, self.outer.made_by(name) if self.outer else "")

    def as_float(self, name: str) -> str:
        """The name of its float32 value, which is cast back where it was computed in half."""
        if name in self._computed and name not in self._there:
            self._cast(self._halves[name], name, FLOAT)
            self._there.add(name)
        return name

    def as_half(self, name: str) -> str:
        """The name of its half value: a constant is converted once, all else cast once in this graph."""
        if (known := self._known_half(name)) is not None:
            return known
        owner = self._owner(name)
        if owner is not None:
            return owner.converted_constant(name)
        self._halves[name] = self._half_name(name)
        self._cast(name, self._halves[name], self.half)
        return self._halves[name]

    def either(self, name: str) -> str:
        """The name under which it is there already."""
        return self._halves[name] if name in self._computed and name not in self._there else name

    def new_half(self, name: str) -> str:
        """A name for the half value that a node is about to compute."""
        self._computed.add(name)
        self._halves[name] = self._half_name(name)
        return self._halves[name]

    def converted_constant(self, name: str) -> str:
        """The name of one of this graph's constants in half."""
        if name not in self._halves:
            dtype = dtype_of(self.half)
            with np.errstate(over="ignore", invalid="ignore"):
                array = numpy_helper.to_array(self._constants[name]).astype(dtype)
            self._halves[name] = self._half_name(name)
            self._graph.initializer.append(numpy_helper.from_array(array, self._halves[name]))
        return self._halves[name]

    def add(self, node: NodeProto) -> None:
        """Append a node; what it makes under a tensor's own name is there as float32."""
        self.nodes.append(node)
        made = [name for name in node.output if name]
        self._there.update(made)
        self._made_by.update(dict.fromkeys(made, node.op_type))

    def note(self, node: NodeProto) -> None:
        """Remember what a node of the graph as it was makes, before it is rewritten."""
        if node.op_type == "Constant" and (value := _constant_value(node)) is not None:
            self._constants[node.output[0]] = value
        elif node.op_type == "Identity" and (owner := self._owner(node.input[0])) is not None:
            self._constants[node.output[0]] = owner._constants[node.input[0]]
        given = list(taken(node))
        # Without inputs it may be random.
        if node.op_type == "Constant" or (given and all(map(self.fixed, given))):
            self._fixed.update(node.output)

    def finish(self) -> None:
        """Write the nodes to the graph, without the constants that nobody takes any more."""
        for value in self._graph.output:
            self.as_float(value.name)
        wanted = {value.name for value in self._graph.output}
        kept: list[NodeProto] = []
        for node in reversed(self.nodes):
            if node.op_type in ("Constant", "Identity") and wanted.isdisjoint(node.output):
                continue
            wanted.update(taken(node))
            kept.append(node)
        left = [tensor for tensor in self._graph.initializer if tensor.name in wanted]
        for field, content in (("node", kept[::-1]), ("initializer", left), ("value_info", [])):
            self._graph.ClearField(field)
            getattr(self._graph, field).extend(content)

    def _owner(self, name: str) -> Scope | None:
        """The scope whose constant it is."""
        if name in self._constants:
            return self
        return self.outer._owner(name) if self.outer and name not in self._types else None

    def _known_half(self, name: str) -> str | None:
        return self._halves.get(name) or (self.outer._known_half(name) if self.outer else None)

    def _half_name(self, name: str) -> str:
        return self._names.fresh(f"{name}.{TensorProto.DataType.Name(self.half).lower()}")

    def _cast(self, given: str, made: str, to: int) -> None:
        self.nodes.append(helper.make_node("Cast", [given], [made], self._names.fresh(f"{made}/Cast"), to=to))


def dtype_of(half: int) -> np.dtype[Any]:
    """NumPy's type of an ONNX one."""
    return np.dtype(helper.tensor_dtype_to_np_dtype(half))


def bodies(node: NodeProto) -> Iterator[GraphProto]:
    """The graphs that a node holds."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        yield from attribute.graphs


def taken(node: NodeProto) -> Iterator[str]:
    """What a node takes, and what its bodies take from outside."""
    yield from filter(None, node.input)
    for body in bodies(node):
        yield from captured(body)


def captured(body: GraphProto) -> Iterator[str]:
    """What a body takes from outside."""
    own = {value.name for value in (*body.input, *body.initializer)}
    own.update(name for node in body.node for name in node.output)
    used = [name for node in body.node for name in taken(node)]
    used += [value.name for value in body.output]
    yield from (name for name in used if name not in own)


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """The graph and all that lie within it."""
    yield graph
    for node in graph.node:
        for body in bodies(node):
            yield from graphs(body)


def _every_name(graph: GraphProto) -> Iterator[str]:
    for one in graphs(graph):
        values: Sequence[Any] = (*one.input, *one.output, *one.value_info, *one.initializer)
        yield from (value.name for value in values)
        for node in one.node:
            yield from (node.name, *node.input, *node.output)


def _types(graph: GraphProto) -> Iterator[tuple[str, int]]:
    for tensor in graph.initializer:
        yield tensor.name, tensor.data_type
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name, value.type.tensor_type.elem_type


def _constant_value(node: NodeProto) -> onnx.TensorProto | None:
    """What a Constant node holds, where it is a tensor of floats."""
    (attribute,) = node.attribute
    value = helper.get_attribute_value(attribute)
    if attribute.name == "value":
        return value if isinstance(value, TensorProto) else None
    if attribute.name in ("value_float", "value_floats"):
        return numpy_helper.from_array(np.array(value, np.float32))
    return None
