"""Tiny ONNX networks of the tasks besides segmentation, whose answers are known beforehand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.engines import build

#: Free axes of an image input: (n, 1, slices, rows, columns), or without slices.
SPACE: dict[int, tuple[Any, ...]] = {5: ("n", 1, "d", "h", "w"), 4: ("n", 1, "h", "w")}


def one_class(key: str, index: int = 0, **changes: Any) -> dict[str, Any]:
    """A class of a classifier or a detector."""
    return {
        "index": index,
        "key": key,
        "label": key.title(),
        "code": build.code("39607008", key.title()),
    } | changes


def pooled(slopes: Sequence[float], offsets: Sequence[float], *, rank: int = 5, name: str = "out") -> bytes:
    """Numbers (n, values): slope x mean of the image + offset."""
    tensors = [
        tensor("w", np.array([slopes], np.float32)),
        tensor("b", np.array(offsets, np.float32)),
    ]
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "w", "b"], [name]),
    ]
    return graph(nodes, tensors, [info("image", SPACE[rank])], [info(name, ("n", len(slopes)))])


def bright_spots(limit: float, reach: Sequence[float], *, class_number: int | None = 0) -> bytes:
    """A detector of voxels above `limit`: a box of `reach` (slice, row, column) to both sides of the centre of each,
    slice first, its score the voxel's value; any number of boxes. With a reach of two numbers it is a network without
    slices. Without a class number there is one score for each box and class: the value, and one less it.
    """
    axes = len(reach)
    tensors = [
        tensor("limit", np.array(limit, np.float32)),
        tensor("first", np.array([2], np.int64)),
        tensor("last", np.array([9], np.int64)),
        tensor("axis", np.array([1], np.int64)),
        tensor("half", np.array(0.5, np.float32)),
        tensor("reach", np.array(reach, np.float32)),
    ]
    nodes = [
        helper.make_node("Greater", ["image", "limit"], ["bright"]),
        helper.make_node("NonZero", ["bright"], ["found"]),
        helper.make_node("Transpose", ["found"], ["places"], perm=[1, 0]),
        helper.make_node("Slice", ["places", "first", "last", "axis"], ["voxels"]),
        helper.make_node("Cast", ["voxels"], ["corners"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["corners", "half"], ["centres"]),
        helper.make_node("Sub", ["centres", "reach"], ["low"]),
        helper.make_node("Add", ["centres", "reach"], ["high"]),
        helper.make_node("Concat", ["low", "high"], ["boxes"], axis=1),
        helper.make_node("GatherND", ["image", "places"], ["values"]),
    ]
    boxes = info("boxes", ("found", 2 * axes))
    if class_number is None:
        tensors += [tensor("shape", np.array([-1, 1], np.int64)), tensor("one", np.array(1, np.float32))]
        nodes += [
            helper.make_node("Reshape", ["values", "shape"], ["column"]),
            helper.make_node("Sub", ["one", "column"], ["rest"]),
            helper.make_node("Concat", ["column", "rest"], ["scores"], axis=1),
        ]
        outputs = [boxes, info("scores", ("found", 2))]
    else:
        tensors += [
            tensor("zero", np.array(0, np.float32)),
            tensor("class", np.array(class_number, np.int64)),
        ]
        nodes += [
            helper.make_node("Identity", ["values"], ["scores"]),
            helper.make_node("Mul", ["values", "zero"], ["nothing"]),
            helper.make_node("Cast", ["nothing"], ["zeros"], to=TensorProto.INT64),
            helper.make_node("Add", ["zeros", "class"], ["labels"]),
        ]
        outputs = [boxes, info("scores", ("found",)), info("labels", ("found",), TensorProto.INT64)]
    return graph(nodes, tensors, [info("image", SPACE[axes + 2])], outputs)


def affine(slope: float = 1.0, offset: float = 0.0, *, rank: int = 5, channels: int = 1) -> bytes:
    """An image-to-image network: slope x the mean of its channels + offset."""
    shape = (1, channels, *[1] * (rank - 2))
    tensors = [
        tensor("w", np.full(shape, slope / channels, np.float32)),
        tensor("b", np.array([offset], np.float32)),
    ]
    space = ("n", channels, *SPACE[rank][2:])
    nodes = [helper.make_node("Conv", ["image", "w", "b"], ["out"])]
    return graph(nodes, tensors, [info("image", space)], [info("out", SPACE[rank])])


def stacked(classes: int, *, channels: int) -> bytes:
    """A 2D network from `image` to `logits`: one random convolution, of each class with weights that add up to 0."""
    weights = np.random.default_rng(0).normal(0, 0.3, (classes, channels, 3, 3))
    weights -= weights.mean(axis=(1, 2, 3), keepdims=True)
    tensors = [tensor("w", weights.astype(np.float32))]
    nodes = [helper.make_node("Conv", ["image", "w"], ["logits"], pads=[1] * 4)]
    space = SPACE[4][2:]
    return graph(
        nodes,
        tensors,
        [info("image", ("n", channels, *space))],
        [info("logits", ("n", classes, *space))],
    )


def beyond(limit: float, value: float) -> bytes:
    """A segmentation network of three classes: where the image is beyond `limit`, the last one's logit is `value`."""
    tensors = [
        tensor("limit", np.array(limit, np.float32)),
        tensor("value", np.array(value, np.float32)),
        tensor("zero", np.array(0, np.float32)),
        tensor("one", np.array(1, np.float32)),
    ]
    nodes = [
        helper.make_node("Greater", ["image", "limit"], ["found"]),
        helper.make_node("Where", ["found", "value", "zero"], ["last"]),
        helper.make_node("Where", ["found", "zero", "one"], ["first"]),
        helper.make_node("Where", ["found", "zero", "zero"], ["second"]),
        helper.make_node("Concat", ["first", "second", "last"], ["logits"], axis=1),
    ]
    return graph(nodes, tensors, [info("image", SPACE[5])], [info("logits", ("n", 3, *SPACE[5][2:]))])


def prompted() -> bytes:
    """An image-to-image network: the image + the sum of the prompt "points", (1, any, 2)."""
    nodes = [
        helper.make_node("ReduceSum", ["points"], ["sum"], keepdims=0),
        helper.make_node("Add", ["image", "sum"], ["out"]),
    ]
    inputs = [info("image", SPACE[5]), info("points", (1, "points", 2))]
    return graph(nodes, [], inputs, [info("out", SPACE[5])])


def graph(nodes: list[Any], tensors: list[Any], inputs: list[Any], outputs: list[Any]) -> bytes:
    """The graph as bytes."""
    made = helper.make_graph(nodes, "tiny", inputs, outputs, tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def tensor(name: str, array: Any) -> Any:
    """A constant of a graph."""
    return numpy_helper.from_array(array, name)


def info(name: str, shape: Sequence[Any], kind: int = TensorProto.FLOAT) -> Any:
    """An input or output of a graph."""
    return helper.make_tensor_value_info(name, kind, list(shape))
