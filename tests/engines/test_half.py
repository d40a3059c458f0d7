"""A graph in half precision: right in type at every edge, and the same answer as far as half numbers go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.transformers.float16 import convert_float_to_float16

from engines import half, package
from engines.errors import PlanError
from engines.manifest_gpu import Precision
from tests.engines import build, nets
from tests.support import halved

HALVES: tuple[Precision, ...] = ("float16", "bfloat16")
KIND = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
#: How far an answer may be from float32's, as a fraction of its range, after the few operations of these graphs.
NEAR = {"float16": 2e-3, "bfloat16": 2e-2}
SHIPPED = Path(__file__).resolve().parents[2] / "models" / "chest-ct"
SHAPE = (1, 4, 8, 8)

both = pytest.mark.parametrize("precision", HALVES)


def _node(kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> Any:
    return helper.make_node(kind, list(inputs), list(outputs), **attributes)


def _weights(name: str, *shape: int, scale: float = 0.3, seed: int = 0) -> Any:
    return nets.tensor(name, np.random.default_rng(seed).normal(0, scale, shape).astype(np.float32))


def _graph(
    nodes: Sequence[Any],
    tensors: Sequence[Any] = (),
    *,
    outputs: Sequence[Any] | None = None,
    opset: int = 17,
    **more: Any,
) -> bytes:
    """A graph from "image" to "out" that begins and ends with the convolutions "first" and "last"."""
    whole = [
        _node("Conv", ["image", "first"], ["begun"], pads=[1] * 4),
        *nodes,
        _node("Conv", ["middle", "last"], ["out"], pads=[1] * 4),
    ]
    tensors = [_weights("first", 4, 4, 3, 3), _weights("last", 3, 4, 3, 3, seed=1), *tensors]
    wanted = outputs or [nets.info("out", [1, 3, None, None])]
    made = helper.make_graph(whole, "tiny", [nets.info("image", SHAPE)], wanted, tensors)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9, **more)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _image(seed: int = 0, scale: float = 1.0) -> dict[str, NDArray[np.float32]]:
    return {"image": np.random.default_rng(seed).normal(0, scale, SHAPE).astype(np.float32)}


def _far(got: NDArray[Any], expected: NDArray[Any]) -> float:
    """The largest difference as a fraction of the range."""
    return float(np.abs(got.astype(np.float64) - expected).max() / max(np.ptp(expected), 1e-9))


def _agree(weights: bytes, precision: Precision) -> bytes:
    """The converted graph, which is right in type, keeps its ends, and answers as the float32 one."""
    made = half.converted(weights, precision)
    before, after = onnx.load_model_from_string(weights).graph, halved.checked(made).graph
    ends = [
        [(one.name, one.type.tensor_type.elem_type) for one in (*g.input, *g.output)] for g in (before, after)
    ]
    assert ends[0] == ends[1]
    expected = halved.answers(weights, _image())
    got = halved.answers(made, _image(), rounded=True)
    for name, values in expected.items():
        assert got[name].dtype == values.dtype
        assert _far(got[name], values) < NEAR[precision], name
    return made


def test_float32_is_the_graph_itself() -> None:
    weights = build.network()
    assert half.converted(weights, "float32") is weights


@both
def test_a_network_computes_in_half_between_its_ends(precision: Precision) -> None:
    weights = _graph([_node("Relu", ["begun"], ["middle"])])
    made = _agree(weights, precision)
    assert halved.half_nodes(made) == ["Conv", "Relu", "Conv"]
    # One cast at each end, and half the bytes of weights
    graph = onnx.load_model_from_string(made).graph
    assert [node.op_type for node in graph.node] == ["Cast", "Conv", "Relu", "Conv", "Cast"]
    assert {tensor.data_type for tensor in graph.initializer} == {KIND[precision]}
    assert half.converted(weights, precision) == made


@pytest.fixture(scope="module")
def shipped() -> tuple[bytes, dict[str, NDArray[Any]], NDArray[Any]]:
    """The shipped network, a patch with smooth shapes as a scan has them, and its answer."""
    weights = package.open_package(SHIPPED).read_weights()
    patch = np.indices((48, 112, 112)).sum(0)[None, None] / 40
    image = {"image": (0.5 + 0.5 * np.sin(patch)).astype(np.float32)}
    return weights, image, halved.answers(weights, image)["logits"]


@both
def test_the_shipped_network_says_the_same_in_half(
    shipped: tuple[bytes, dict[str, NDArray[Any]], NDArray[Any]], precision: Precision
) -> None:
    weights, image, expected = shipped
    # When half the digits are left
    made = half.converted(weights, precision)
    assert len(made) < 0.51 * len(weights)
    got = halved.answers(made, image, rounded=True)["logits"]
    # Then the labels are the same but where two are equally likely
    assert _far(got, expected) < {"float16": 2e-3, "bfloat16": 1e-2}[precision]
    assert (got.argmax(1) == expected.argmax(1)).mean() > {"float16": 0.9995, "bfloat16": 0.996}[precision]


@pytest.mark.parametrize("kind", ["Relu", "Sigmoid", "LeakyRelu", "Softplus", "Erf", "Transpose", "Identity"])
def test_float16_answers_as_onnx_runtimes_own_converter(kind: str) -> None:
    attributes = {"perm": [0, 1, 3, 2]} if kind == "Transpose" else {}
    weights = _graph([_node(kind, ["begun"], ["middle"], **attributes)])
    theirs = convert_float_to_float16(onnx.load_model_from_string(weights), keep_io_types=True)
    got = halved.answers(half.converted(weights, "float16"), _image())["out"]
    peer = halved.answers(theirs.SerializeToString(), _image())["out"]
    expected = halved.answers(weights, _image())["out"]
    assert _far(got, peer) < 1e-3
    assert _far(got, expected) < 1.5 * _far(peer, expected) + 1e-6


#: Between two convolutions: nodes, their weights, and which of the operators compute in half.
MIDDLES: dict[str, tuple[list[Any], list[Any], list[str]]] = {
    "weights behind an Identity": (
        [_node("Identity", ["slope"], ["same"]), _node("PRelu", ["begun", "same"], ["middle"])],
        [_weights("slope", 4, 1, 1)],
        ["PRelu"],
    ),
    "a constant node": (
        [_node("Constant", [], ["two"], value_float=2.0), _node("Mul", ["begun", "two"], ["middle"])],
        [],
        ["Mul"],
    ),
    "a constant that is computed": (
        [
            _node("Transpose", ["rows"], ["columns"], perm=[0, 1, 3, 2]),
            _node("Mul", ["begun", "columns"], ["middle"]),
        ],
        [_weights("rows", 1, 4, 1, 8)],
        ["Mul"],
    ),
    "a resize with scales": (
        [_node("Resize", ["begun", "", "scales"], ["middle"], mode="linear")],
        [nets.tensor("scales", np.array([1, 1, 2, 2], np.float32))],
        ["Resize"],
    ),
    "a resize with a region": (
        [
            _node(
                "Resize",
                ["begun", "region", "", "sizes"],
                ["middle"],
                mode="linear",
                coordinate_transformation_mode="tf_crop_and_resize",
            )
        ],
        [
            nets.tensor("region", np.array([0, 0, 0.1, 0.1, 1, 1, 0.9, 0.9], np.float32)),
            nets.tensor("sizes", np.array([1, 4, 8, 8], np.int64)),
        ],
        ["Resize"],
    ),
    "a batch normalisation": (
        [_node("BatchNormalization", ["begun", "scale", "bias", "mean", "variance"], ["middle"])],
        [
            *(_weights(name, 4, seed=number) for number, name in enumerate(("scale", "bias", "mean"))),
            nets.tensor("variance", np.array([0.5, 1, 2, 3], np.float32)),
        ],
        ["BatchNormalization"],
    ),
    "an instance normalisation": (
        [_node("InstanceNormalization", ["begun", "scale", "bias"], ["middle"])],
        [_weights("scale", 4), _weights("bias", 4, seed=2)],
        ["InstanceNormalization"],
    ),
    "a softmax": ([_node("Softmax", ["begun"], ["middle"], axis=1)], [], ["Softmax"]),
    "a concatenation of both types": (
        [
            _node("Exp", ["begun"], ["powers"]),
            _node("Concat", ["begun", "powers"], ["eight"], axis=1),
            _node("Conv", ["eight", "narrow"], ["middle"]),
        ],
        [_weights("narrow", 4, 8, 1, 1)],
        ["Concat", "Conv"],
    ),
    "a sum over many": (
        [
            _node("ReduceSum", ["begun", "axes"], ["sum"]),
            _node("Mul", ["sum", "share"], ["mean"]),
            _node("Sub", ["begun", "mean"], ["middle"]),
        ],
        [nets.tensor("axes", np.array([2, 3], np.int64)), nets.tensor("share", np.array(1 / 64, np.float32))],
        [],
    ),
    "a hand-made variance": (
        [
            _node("ReduceMean", ["begun"], ["mean"], axes=[2, 3]),
            _node("Sub", ["begun", "mean"], ["centred"]),
            _node("Pow", ["centred", "two"], ["squares"]),
            _node("ReduceMean", ["squares"], ["variance"], axes=[2, 3]),
            _node("Add", ["variance", "epsilon"], ["kept"]),
            _node("Sqrt", ["kept"], ["deviation"]),
            _node("Div", ["centred", "deviation"], ["middle"]),
        ],
        [nets.tensor("two", np.array(2, np.float32)), nets.tensor("epsilon", np.array(1e-6, np.float32))],
        [],
    ),
    "a cast from whole numbers": (
        [
            _node("Shape", ["begun"], ["lengths"]),
            _node("Gather", ["lengths", "axis"], ["length"]),
            _node("Cast", ["length"], ["number"], to=TensorProto.FLOAT),
            _node("Div", ["begun", "number"], ["middle"]),
        ],
        [nets.tensor("axis", np.array(2, np.int64))],
        [],
    ),
    "a cast to whole numbers and back": (
        [
            _node("Cast", ["begun"], ["whole"], to=TensorProto.INT32),
            _node("Cast", ["whole"], ["middle"], to=TensorProto.FLOAT),
        ],
        [],
        [],
    ),
    "made of a shape": (
        [
            _node("Shape", ["begun"], ["lengths"]),
            _node("ConstantOfShape", ["lengths"], ["zeros"]),
            _node("Add", ["begun", "zeros"], ["middle"]),
        ],
        [],
        [],
    ),
    "a matrix of ones on its diagonal": (
        [
            _node("Reshape", ["begun", "square"], ["flat"]),
            _node("EyeLike", ["flat"], ["eye"]),
            _node("Add", ["flat", "eye"], ["more"]),
            _node("Reshape", ["more", "back"], ["middle"]),
        ],
        [nets.tensor("square", np.array([16, 16], np.int64)), nets.tensor("back", np.array([1, 4, 8, 8], np.int64))],
        ["Reshape"],
    ),
    "a range": (
        [
            _node("Range", ["none", "eight", "step"], ["ramp"]),
            _node("Mul", ["begun", "ramp"], ["middle"]),
        ],
        [nets.tensor(name, np.array(value, np.float32)) for name, value in (("none", 0), ("eight", 8), ("step", 1))],
        ["Mul"],
    ),
    "the largest": (
        [
            _node("TopK", ["begun", "four"], ["best", "places"], axis=3),
            _node("Pad", ["best", "pads"], ["middle"]),
        ],
        [nets.tensor("four", np.array([4], np.int64)), nets.tensor("pads", np.array([0] * 7 + [4], np.int64))],
        ["TopK", "Pad"],
    ),
    "masked with a large number": (
        [
            _node("Greater", ["begun", "nought"], ["bright"]),
            _node("Where", ["bright", "begun", "lowest"], ["masked"]),
            _node("Softmax", ["masked"], ["middle"], axis=3),
        ],
        [nets.tensor("nought", np.array(0, np.float32)), nets.tensor("lowest", np.array(-1e9, np.float32))],
        ["Where", "Softmax"],
    ),
    "clipped where float32 ends": (
        [_node("Clip", ["begun", "low", "high"], ["middle"])],
        [
            nets.tensor("low", np.array(0, np.float32)),
            nets.tensor("high", np.array(np.finfo(np.float32).max, np.float32)),
        ],
        [],
    ),
    "float64 in between": (
        [
            _node("Cast", ["begun"], ["long"], to=TensorProto.DOUBLE),
            _node("Relu", ["long"], ["positive"]),
            _node("Cast", ["positive"], ["middle"], to=TensorProto.FLOAT),
        ],
        [],
        [],
    ),
    "a sequence": (
        [
            _node("SequenceConstruct", ["begun", "begun"], ["pair"]),
            _node("ConcatFromSequence", ["pair"], ["eight"], axis=1),
            _node("Conv", ["eight", "narrow"], ["middle"]),
        ],
        [_weights("narrow", 4, 8, 1, 1)],
        ["Conv"],
    ),
    "eight bits": (
        [
            _node("QuantizeLinear", ["begun", "scale", "zero"], ["bytes"]),
            _node("DequantizeLinear", ["bytes", "scale", "zero"], ["steps"]),
            _node("Conv", ["steps", "same"], ["middle"]),
        ],
        [
            nets.tensor("scale", np.array(0.02, np.float32)),
            nets.tensor("zero", np.array(0, np.int8)),
            _weights("same", 4, 4, 1, 1),
        ],
        [],
    ),
}  # fmt: skip

#: What only one of the types can: ONNX has no TopK of bfloat16, and float16 no number as large.
ONE_ONLY = {"the largest": "float16", "masked with a large number": "bfloat16"}


@both
@pytest.mark.parametrize("name", MIDDLES)
def test_every_kind_of_node_has_inputs_of_its_types(name: str, precision: Precision) -> None:
    nodes, tensors, expected = MIDDLES[name]
    made = _agree(_graph(nodes, tensors), precision)
    found = halved.half_nodes(made)
    middle = [kind for kind in found[1:-1] if kind != "Identity"]
    assert middle == ([] if name in ONE_ONLY and precision != ONE_ONLY[name] else expected)


def test_a_sum_may_leave_the_range_of_float16() -> None:
    # Given 64 values of about 1500, which an imported normalisation adds up and shares out again
    nodes, tensors, _ = MIDDLES["a sum over many"]
    ones = nets.tensor("first", np.full((4, 4, 3, 3), 1 / 36, np.float32))
    weights = onnx.load_model_from_string(_graph(nodes, tensors))
    weights.graph.initializer[0].CopyFrom(ones)
    image = {"image": _image()["image"] * 300 + 1500}
    expected = halved.answers(weights.SerializeToString(), image)["out"]
    got = halved.answers(half.converted(weights.SerializeToString(), "float16"), image, rounded=True)["out"]
    assert _far(got, expected) < NEAR["float16"]


@both
def test_what_no_convolution_follows_is_the_answer_in_float32(precision: Precision) -> None:
    # Given a detector's end: boxes of large coordinates, sorted out
    nodes = [
        _node("Conv", ["image", "first"], ["begun"], pads=[1] * 4),
        _node("Relu", ["begun"], ["middle"]),
        _node("Conv", ["middle", "last"], ["out"], pads=[1] * 4),
        _node("Mul", ["out", "large"], ["far"]),
        _node("Reshape", ["far", "four"], ["boxes"]),
        _node("ReduceMax", ["boxes"], ["best"], axes=[2], keepdims=0),
        _node("Unsqueeze", ["best", "one"], ["scores"]),
        _node("NonMaxSuppression", ["boxes", "scores", "most"], ["chosen"]),
    ]
    tensors = [
        *(_weights("first", 4, 4, 3, 3), _weights("last", 4, 4, 3, 3, seed=1)),
        nets.tensor("large", np.array(1000, np.float32)),
        nets.tensor("four", np.array([1, -1, 4], np.int64)),
        nets.tensor("one", np.array([1], np.int64)),
        nets.tensor("most", np.array([3], np.int64)),
    ]
    outputs = [nets.info("boxes", (1, None, 4)), nets.info("chosen", (None, 3), TensorProto.INT64)]
    weights = nets.graph(nodes, tensors, [nets.info("image", SHAPE)], outputs)
    made = half.converted(weights, precision)
    assert halved.half_nodes(made) == ["Conv", "Relu", "Conv"]
    expected, got = halved.answers(weights, _image()), halved.answers(made, _image(), rounded=True)
    assert _far(got["boxes"], expected["boxes"]) < NEAR[precision]


def _branch(nodes: Sequence[Any], output: str, tensors: Sequence[Any] = ()) -> Any:
    """A body of an If."""
    return helper.make_graph(list(nodes), output, [], [nets.info(output, None or SHAPE)], list(tensors))


@both
def test_bodies_of_loops_and_branches_are_looked_at_each_by_itself(precision: Precision) -> None:
    # Given a branch that takes what is half outside, one with convolutions of its own, and a loop around one
    one = _branch([_node("Neg", ["begun"], ["minus"])], "minus")
    other = _branch(
        [
            _node("Relu", ["begun"], ["shallow"]),
            _node("Conv", ["shallow", "inner"], ["deep"], pads=[1] * 4),
            _node("Conv", ["powers", "inner"], ["deep too"], pads=[1] * 4),
            _node("Sum", ["deep", "deep too", "powers"], ["deeper"]),
        ],
        "deeper",
        [_weights("inner", 4, 4, 3, 3, seed=3)],
    )
    body = helper.make_graph(
        [
            _node("Identity", ["go"], ["on"]),
            _node("Conv", ["state", "first"], ["next"], pads=[1] * 4),
        ],
        "body",
        [
            nets.info("turn", (), TensorProto.INT64),
            nets.info("go", (), TensorProto.BOOL),
            nets.info("state", SHAPE),
        ],
        [nets.info("on", (), TensorProto.BOOL), nets.info("next", SHAPE)],
    )
    nodes = [
        _node("ReduceMax", ["begun"], ["top"], keepdims=0),
        _node("Less", ["top", "limit"], ["small"]),
        _node("Exp", ["begun"], ["powers"]),
        _node("If", ["small"], ["chosen"], then_branch=one, else_branch=other),
        _node("Loop", ["turns", "", "chosen"], ["middle"], body=body),
    ]
    tensors = [nets.tensor("limit", np.array(0, np.float32)), nets.tensor("turns", np.array(2, np.int64))]
    made = _agree(_graph(nodes, tensors), precision)
    # Then each convolution computes in half, and what goes in and out of a body is float32
    assert sorted(halved.half_nodes(made)) == ["Conv"] * 5 + ["ReduceMax", "Relu"]
    # "first" is converted once, though three graphs use it
    names = [tensor.name for tensor in onnx.load_model_from_string(made).graph.initializer]
    assert len([name for name in names if name.startswith("first")]) == 1


@both
def test_one_weight_may_be_needed_in_both_types(precision: Precision) -> None:
    # Given a tensor that a convolution's neighbour and a sum take
    nodes = [
        _node("Mul", ["begun", "factor"], ["more"]),
        _node("ReduceSum", ["more", "axes"], ["sum"]),
        _node("Mul", ["sum", "factor"], ["share"]),
        _node("Sub", ["more", "share"], ["middle"]),
    ]
    tensors = [_weights("factor", 1, 4, 1, 1), nets.tensor("axes", np.array([2, 3], np.int64))]
    made = _agree(_graph(nodes, tensors), precision)
    kinds = {
        tensor.name: tensor.data_type
        for tensor in onnx.load_model_from_string(made).graph.initializer
        if tensor.name.startswith("factor")
    }
    assert kinds == {"factor": TensorProto.FLOAT, f"factor.{precision}": KIND[precision]}


@both
def test_an_output_may_be_an_input_a_weight_or_amid_the_graph(precision: Precision) -> None:
    outputs = [
        nets.info("out", [1, 3, None, None]),
        nets.info("image", SHAPE),
        nets.info("first", (4, 4, 3, 3)),
        nets.info("middle", SHAPE),
    ]
    weights = _graph([_node("Relu", ["begun"], ["middle"])], outputs=outputs)
    made = half.converted(weights, precision)
    assert halved.half_nodes(made) == ["Conv", "Relu", "Conv"]
    got, expected = halved.answers(made, _image(), rounded=True), halved.answers(weights, _image())
    assert list(got) == ["out", "image", "first", "middle"]
    assert (got["first"] == expected["first"]).all() and (got["image"] == expected["image"]).all()
    assert _far(got["middle"], expected["middle"]) < NEAR[precision]


@both
def test_names_that_are_taken_are_not_used_again(precision: Precision) -> None:
    # Given tensors and a node that are called as the casts would be
    nodes = [
        _node("Exp", ["begun"], [f"image.{precision}"]),
        helper.make_node("Neg", [f"image.{precision}"], [f"first.{precision}"], name=f"out.{precision}/Cast"),
        _node("Identity", [f"first.{precision}"], ["middle"]),
    ]
    made = _agree(_graph(nodes), precision)
    graph = onnx.load_model_from_string(made).graph
    names = [name for node in graph.node for name in node.output]
    assert len(set(names)) == len(names)


@both
def test_a_weight_behind_an_identity_is_converted_beforehand(precision: Precision) -> None:
    # Given exporters' way of sharing one weight
    nodes = [
        _node("Identity", ["first"], ["same"]),
        _node("Conv", ["begun", "same"], ["middle"], pads=[1] * 4),
    ]
    graph = onnx.load_model_from_string(_agree(_graph(nodes), precision)).graph
    assert [node.op_type for node in graph.node] == ["Cast", "Conv", "Conv", "Conv", "Cast"]
    assert {tensor.data_type for tensor in graph.initializer} == {KIND[precision]}


@both
def test_old_files_that_list_their_weights_as_inputs(precision: Precision) -> None:
    model = onnx.load_model_from_string(_graph([_node("Relu", ["begun"], ["middle"])]))
    model.graph.input.extend([nets.info("first", (4, 4, 3, 3)), nets.info("last", (3, 4, 3, 3))])
    made = half.converted(model.SerializeToString(), precision)
    assert [value.name for value in onnx.load_model_from_string(made).graph.input] == ["image"]
    assert halved.half_nodes(made) == ["Conv", "Relu", "Conv"]


@both
def test_functions_of_the_model_are_written_out(precision: Precision) -> None:
    twice = helper.make_function(
        "own",
        "Swish",
        ["x"],
        ["y"],
        [_node("Sigmoid", ["x"], ["s"]), _node("Mul", ["x", "s"], ["y"])],
        [helper.make_opsetid("", 17)],
    )
    own = helper.make_node("Swish", ["begun"], ["middle"], domain="own")
    model = onnx.load_model_from_string(_graph([_node("Relu", ["begun"], ["middle"])]))
    model.graph.node[1].CopyFrom(own)
    model.opset_import.append(helper.make_opsetid("own", 1))
    model.functions.append(twice)
    made = _agree(model.SerializeToString(), precision)
    assert halved.half_nodes(made) == ["Conv", "Sigmoid", "Mul", "Conv"]


def test_an_operator_that_onnx_does_not_know_stays_in_float32() -> None:
    # Given an operator of ONNX Runtime's own, whose output's type the file states
    own = helper.make_node("FastGelu", ["begun"], ["middle"], domain="com.microsoft")
    model = onnx.load_model_from_string(_graph([_node("Relu", ["begun"], ["middle"])]))
    model.graph.node[1].CopyFrom(own)
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    model.graph.value_info.append(nets.info("middle", SHAPE))
    weights = model.SerializeToString()
    made = onnx.load_model_from_string(half.converted(weights, "float16")).graph
    kinds = [node.op_type for node in made.node]
    assert kinds == ["Cast", "Conv", "Cast", "FastGelu", "Cast", "Conv", "Cast"]
    got = halved.answers(half.converted(weights, "float16"), _image())["out"]
    assert _far(got, halved.answers(weights, _image())["out"]) < NEAR["float16"]


def test_what_already_is_half_is_left_alone() -> None:
    weights = half.converted(_graph([_node("Relu", ["begun"], ["middle"])]), "float16")
    assert half.converted(weights, "float16") == weights


def test_a_graph_without_convolutions_or_products_keeps_its_precision() -> None:
    nodes = [_node("Relu", ["image"], ["positive"]), _node("Add", ["positive", "image"], ["out"])]
    weights = nets.graph(nodes, [], [nets.info("image", SHAPE)], [nets.info("out", SHAPE)])
    assert halved.half_nodes(half.converted(weights, "float16")) == []


def test_a_weight_that_would_become_infinite_is_refused_by_name() -> None:
    tensors = [nets.tensor("huge", np.full((4, 4, 1, 1), 1e5, np.float32))]
    weights = _graph([_node("Conv", ["begun", "huge"], ["middle"])], tensors)
    with pytest.raises(
        PlanError, match=r"weight huge holds 100000, which float16 cannot: set gpu\.precision: bfloat16"
    ):
        half.converted(weights, "float16")
    # Then bfloat16, which reaches as far as float32, takes it
    assert _agree(weights, "bfloat16")


def test_the_largest_and_the_smallest_weights_of_float16() -> None:
    array = np.full((4, 4, 1, 1), 65504, np.float32)
    array[0] = 2e-8
    array[1] = 6e-5
    array[2] = np.float32(65519)
    weights = _graph([_node("Conv", ["begun", "wide"], ["middle"])], [nets.tensor("wide", array)])
    graph = onnx.load_model_from_string(half.converted(weights, "float16")).graph
    (made,) = [tensor for tensor in graph.initializer if tensor.name == "wide.float16"]
    got = onnx.numpy_helper.to_array(made)[:, 0, 0, 0]
    # Then each is rounded to the nearest, a subnormal too
    np.testing.assert_array_equal(got, np.array([0, 6e-5, 65504, 65504], np.float16))


def test_weights_that_would_lose_their_digits_stay_in_float32() -> None:
    # Given a convolution of weights below float16's smallest normal number, with a bias as small as any
    array = np.random.default_rng(4).normal(0, 1e-6, (4, 4, 1, 1)).astype(np.float32)
    nodes = [
        _node("Conv", ["begun", "tiny"], ["faint"]),
        _node("Mul", ["faint", "million"], ["strong"]),
        _node("Conv", ["strong", "plain", "small"], ["middle"]),
    ]
    tensors = [
        nets.tensor("tiny", array),
        nets.tensor("million", np.array(1e6, np.float32)),
        _weights("plain", 4, 4, 1, 1),
        nets.tensor("small", np.full(4, 1e-7, np.float32)),
    ]
    made = _agree(_graph(nodes, tensors), "float16")
    assert halved.half_nodes(made) == ["Conv", "Conv", "Conv"]
    assert halved.half_nodes(_agree(_graph(nodes, tensors), "bfloat16")) == [
        "Conv",
        "Conv",
        "Mul",
        "Conv",
        "Conv",
    ]


@pytest.mark.parametrize(
    "weights", [b"not a network", b"", build.network()[:300]], ids=["text", "nothing", "cut"]
)
def test_what_is_no_graph_is_refused(weights: bytes) -> None:
    with pytest.raises(PlanError, match="no ONNX graph: export"):
        half.converted(weights, "float16")


def test_tensors_in_further_files_are_refused_by_name(tmp_path: Path) -> None:
    model = onnx.load_from_string(build.network())
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="more.data", size_threshold=0)
    with pytest.raises(PlanError, match="keeps w1 in a further file: save it as a single"):
        half.converted(path.read_bytes(), "float16")


def test_bfloat16_brings_an_old_graph_to_the_opset_that_has_it() -> None:
    weights = _graph([_node("Relu", ["begun"], ["middle"])], opset=11)
    assert onnx.load_model_from_string(half.converted(weights, "float16")).opset_import[0].version == 11
    assert onnx.load_model_from_string(_agree(weights, "bfloat16")).opset_import[0].version == 22


def test_bfloat16_refuses_what_cannot_be_brought_there() -> None:
    nodes = [_node("Pad", ["begun"], ["middle"], paddings=[0] * 8)]
    weights = _graph(nodes, opset=1)
    with pytest.raises(
        PlanError, match=r"of opset 1 and cannot be brought to 22.*Pad\): export it at that opset, or"
    ):
        half.converted(weights, "bfloat16")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(data=st.data())
def test_graphs_put_together_at_random(data: st.DataObject) -> None:
    # Given up to eight nodes, each on any of the tensors before it
    nodes, known = [], ["begun"]
    for number in range(data.draw(st.integers(1, 8))):
        kind = data.draw(
            st.sampled_from(["Relu", "Tanh", "Neg", "Softmax", "Conv", "ReduceMean", "Add", "Concat", "Exp"])
        )
        one, two = (data.draw(st.sampled_from(known)) for _ in range(2))
        made = f"made {number}"
        if kind == "Conv":
            nodes.append(_node("Conv", [one, "first"], [made], pads=[1] * 4))
        elif kind == "ReduceMean":
            nodes += [
                _node(kind, [one], [f"{made} small"], axes=[2, 3]),
                _node("Sub", [two, f"{made} small"], [made]),
            ]
        elif kind == "Concat":
            nodes += [
                _node(kind, [one, two], [f"{made} wide"], axis=1),
                _node("Conv", [f"{made} wide", "narrow"], [made]),
            ]
        elif kind == "Exp":
            nodes += [_node("Tanh", [one], [f"{made} bound"]), _node(kind, [f"{made} bound"], [made])]
        else:
            nodes.append(_node(kind, [one, two][: 1 + (kind == "Add")], [made]))
        known.append(made)
    nodes.append(_node("Tanh", [known[-1]], ["middle"]))
    weights = _graph(nodes, [_weights("narrow", 4, 8, 1, 1)])
    precision = data.draw(st.sampled_from(HALVES))
    made = half.converted(weights, precision)
    # Then it is right in type everywhere, and near
    halved.checked(made)
    expected, got = halved.answers(weights, _image()), halved.answers(made, _image(), rounded=True)
    assert _far(got["out"], expected["out"]) < 10 * NEAR[precision]
