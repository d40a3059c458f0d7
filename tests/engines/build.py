"""Tiny ONNX networks and model packages around them, made on the spot."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import yaml
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from engines.manifest import Manifest
from engines.volume import Geometry, Volume

HU = {"value": "[hnsf'U]", "scheme": "UCUM", "meaning": "Hounsfield unit"}
ML = {"value": "mL", "scheme": "UCUM", "meaning": "milliliter"}
#: Of all volumes that are made here.
FRAME = "1.2.3.4"
PERCENT = {"value": "%", "scheme": "UCUM", "meaning": "percent"}


def code(value: str = "39607008", meaning: str = "Lung", scheme: str = "SCT") -> dict[str, str]:
    """A coded concept as a manifest writes it."""
    return {"value": value, "scheme": scheme, "meaning": meaning}


def label(index: int, key: str, **changes: Any) -> dict[str, Any]:
    """One label of the output."""
    entry = {"index": index, "key": key, "label": key.title(), "colour": [255, 40 * index, 0]}
    entry |= {"category": code("123037004", "Anatomical Structure"), "type": code()}
    return entry | changes


def manifest(network_bytes: bytes = b"", /, *, labels: int = 2, **changes: Any) -> dict[str, Any]:
    """A manifest that is right in every part; top-level keys can be replaced."""
    content: dict[str, Any] = {
        "format": 1,
        "name": "tiny",
        "version": "1.0.0",
        "licence": "Apache-2.0",
        "manufacturer": "secondread tests",
        "intended_use": "tests",
        "weights": {"file": "model.onnx", "sha256": hashlib.sha256(network_bytes).hexdigest()},
        "task": "segmentation",
        "inputs": [entry()],
        "tiling": {"patch": [8, 16, 16]},
        "outputs": [{"name": "logits", "labels": [label(n + 1, f"label{n + 1}") for n in range(labels)]}],
    }
    return content | changes


def entry(**changes: Any) -> dict[str, Any]:
    """The manifest's input."""
    return {
        "name": "image",
        "series": {},
        "intensity": {"kind": "window", "low": -1000, "high": 1000},
    } | changes


def measurement(key: str, kind: str, **changes: Any) -> dict[str, Any]:
    """One measurement of label1."""
    unit = {"volume": ML, "percent_below": PERCENT, "percent_above": PERCENT}.get(kind, HU)
    return {
        "key": key,
        "kind": kind,
        "of": ["label1"],
        "name": code("118565006", "Volume"),
        "unit": unit,
    } | changes


def validated(**changes: Any) -> Manifest:
    """The manifest as the engine sees it."""
    return Manifest.model_validate(manifest(**changes))


def write(folder: Path, network_bytes: bytes, /, **changes: Any) -> Path:
    """A package in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.onnx").write_bytes(network_bytes)
    (folder / "model.yaml").write_text(yaml.safe_dump(manifest(network_bytes, **changes)))
    (folder / "MODEL_CARD.md").write_text("# tiny\n")
    return folder


def network(
    *, classes: int = 3, shape: tuple[Any, Any, Any] = ("d", "h", "w"), op: str = "Relu", seed: int = 0
) -> bytes:
    """Two random convolutions with `op` between them: enough for the backends to disagree about."""
    rng = np.random.default_rng(seed)
    tensors = [
        numpy_helper.from_array(rng.normal(0, 0.3, size).astype(np.float32), name)
        for name, size in (
            ("w1", (4, 1, 3, 3, 3)),
            ("b1", (4,)),
            ("w2", (classes, 4, 3, 3, 3)),
            ("b2", (classes,)),
        )
    ]
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["hidden"], pads=[1] * 6),
        helper.make_node(op, ["hidden"], ["active"]),
        helper.make_node("Conv", ["active", "w2", "b2"], ["logits"], pads=[1] * 6),
    ]
    return serialised(nodes, tensors, classes=classes, shape=shape)


def thresholds(values: tuple[float, ...], *, sharpness: float = 50.0) -> bytes:
    """A 1 x 1 x 1 convolution that does what `engines.testing.ThresholdRunner` does."""
    count = len(values) + 1
    slope = sharpness * np.arange(count, dtype=np.float32)
    offset = -sharpness * np.cumsum([0.0, *values])
    tensors = [
        numpy_helper.from_array(slope.reshape(count, 1, 1, 1, 1), "w"),
        numpy_helper.from_array(offset.astype(np.float32), "b"),
    ]
    nodes = [helper.make_node("Conv", ["image", "w", "b"], ["logits"])]
    return serialised(nodes, tensors, classes=count)


def serialised(
    nodes: list[onnx.NodeProto],
    tensors: list[onnx.TensorProto],
    *,
    classes: int,
    shape: tuple[Any, Any, Any] = ("d", "h", "w"),
    channels: int = 1,
) -> bytes:
    """The graph from `image` to `logits` as bytes."""
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, *shape])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", classes, *shape])],
        tensors,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    return bytes(model.SerializeToString())


def volume(
    array: NDArray[Any],
    *,
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.7),
    origin: tuple[float, float, float] = (-30.0, -20.0, 100.0),
    unit: str = "[hnsf'U]",
) -> Volume:
    """An axial volume "HPL", in the one frame of reference of all."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, spacing[2]], [0, spacing[1], 0], [spacing[0], 0, 0]])
    affine[:3, 3] = origin
    shape = (array.shape[0], array.shape[1], array.shape[2])
    geometry = Geometry(shape=shape, affine=affine, frame_of_reference_uid=FRAME)
    return Volume(array=array, geometry=geometry, unit=unit)
