"""A hundred X-rays classified by one warm worker, against one process for each.

    python -m benchmarks.xrays [--images 100] [--peers 20] [--batch 8]

The X-rays are synthetic, 2000 x 2400 pixels of 12 bits; the network has the layers of a DenseNet121 (224 x 224, 14
classes) with random weights. The warm worker reads, classifies and encodes one after the other, with a worker's
own steps. The peers are processes that do one X-ray and end: `secondread run`, held against all of that, and a plain
script of pydicom and ONNX Runtime that reads, scales and classifies and writes no report, held against reading and
classifying. --peers of the images are given to each; the ratio is of the seconds for each image. First comes the
network alone: a batch of --batch against as many single images.
The bar is 3 x against either peer. Exits 1 where it is not met.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper, numpy_helper

from dicom_node import results, series
from dicom_node.results.context import ResultContext
from engines import loader, package, predict
from engines.runner import usable_cores
from tests.engines import build, nets
from tests.support import planar
from worker import version

BAR = 3.0
SIDE, CLASSES = 224, 14
ROWS, COLUMNS = 2400, 2000

#: What somebody writes who has a model and a folder of images.
PLAIN = """
import sys, json
import numpy as np, onnxruntime, pydicom
from PIL import Image
ds = pydicom.dcmread(sys.argv[2])
image = np.asarray(Image.fromarray(ds.pixel_array.astype(np.float32)).resize((224, 224), Image.BILINEAR)) / 4095
session = onnxruntime.InferenceSession(sys.argv[1])
logits = session.run(None, {"image": image[None, None].astype(np.float32)})[0]
print(json.dumps((1 / (1 + np.exp(-logits))).tolist()))
"""


class _Layers:
    """A graph that grows layer by layer."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: list[onnx.TensorProto] = []
        self._random = np.random.default_rng(0)

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        """One operation; the name of its output."""
        name = f"t{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], **attributes))
        return name

    def weights(self, *shape: int, spread: float) -> str:
        """Random weights; their name."""
        name = f"w{len(self.tensors)}"
        array = self._random.normal(0, spread, shape).astype(np.float32)
        self.tensors.append(numpy_helper.from_array(array, name))
        return name

    def convolved(self, source: str, into: int, out: int, kernel: int, stride: int = 1) -> str:
        """ReLU and convolution."""
        spread = (2 / (into * kernel * kernel)) ** 0.5
        weights = self.weights(out, into, kernel, kernel, spread=spread)
        rectified = self.add("Relu", source)
        return self.add("Conv", rectified, weights, pads=[kernel // 2] * 4, strides=[stride] * 2)


def densenet() -> bytes:
    """The layers of a DenseNet121 (Huang et al. 2017), normalisation folded away: about 2.8 billion multiplications."""
    layers, channels = _Layers(), 64
    source = layers.convolved("image", 1, channels, 7, stride=2)
    source = layers.add("MaxPool", source, kernel_shape=[3, 3], pads=[1] * 4, strides=[2, 2])
    for number, depth in enumerate((6, 12, 24, 16)):
        if number:
            source = layers.convolved(source, channels, channels // 2, 1)
            source = layers.add("AveragePool", source, kernel_shape=[2, 2], strides=[2, 2])
            channels //= 2
        for _ in range(depth):
            grown = layers.convolved(layers.convolved(source, channels, 128, 1), 128, 32, 3)
            source = layers.add("Concat", source, grown, axis=1)
            channels += 32
    pooled = layers.add("Flatten", layers.add("GlobalAveragePool", source), axis=1)
    weights = layers.weights(channels, CLASSES, spread=0.01)
    layers.nodes.append(helper.make_node("MatMul", [pooled, weights], ["out"]))
    shape = ["n", 1, SIDE, SIDE]
    return nets.graph(
        layers.nodes,
        layers.tensors,
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, ["n", CLASSES])],
    )


def model(folder: Path) -> package.ModelPackage:
    """A package of it."""
    entry = {"planar": True, "size": [SIDE, SIDE], "intensity": {"kind": "window", "low": 0, "high": 4095}}
    classes = [nets.one_class(f"class{number}", number, threshold=0.5) for number in range(CLASSES)]
    build.write(
        folder,
        densenet(),
        name="xray",
        task="classification",
        inputs=[build.entry(**entry)],
        tiling={"patch": [1, SIDE, SIDE], "overlap": 0},
        outputs=[{"name": "out", "activation": "sigmoid", "classes": classes}],
        results=["sr"],
    )
    return package.open_package(folder)


def images(folder: Path, count: int) -> list[Path]:
    """Synthetic X-rays: a smooth chest and noise, each another."""
    rows, columns = np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float32)
    paths = []
    folder.mkdir()
    for number in range(count):
        random = np.random.default_rng(number)
        values = 2000 + 900 * np.cos(columns / COLUMNS * 4 * np.pi + random.uniform(0, 1)) * np.sin(
            rows / ROWS * np.pi
        )
        values += random.normal(0, 40, values.shape)
        ds = planar.grey(planar.dx(), np.clip(values, 0, 4095).astype(np.uint16), bits=12)
        paths.append(folder / f"{number:03d}.dcm")
        ds.save_as(paths[-1], enforce_file_format=True)
    return paths


def warm(opened: package.ModelPackage, paths: list[Path], folder: Path) -> tuple[float, float, float]:
    """Seconds to load, and for each image after that, to classify and to encode: as a worker does it."""
    began = time.perf_counter()
    with closing(loader.open_runner(opened)) as runner:
        loaded = time.perf_counter() - began
        classified = encoded = 0.0
        for path in paths:
            began = time.perf_counter()
            source = series.read_series([path], planar=True)
            found = predict.predict(opened, runner, source.volume)
            answered = time.perf_counter()
            context = ResultContext(
                source=source,
                job_identity=path.stem,
                model=found.model,
                engine=found.engine,
                created_at=datetime.now(UTC),
                secondread_version=version.VERSION,
            )
            results.make_results(context, found, ("sr",), folder / path.stem)
            classified += answered - began
            encoded += time.perf_counter() - answered
        return loaded, classified / len(paths), encoded / len(paths)


def each(paths: list[Path], command: Callable[[Path], list[str]]) -> float:
    """Seconds for each image, a process for each."""
    began = time.perf_counter()
    for path in paths:
        subprocess.run(command(path), check=True, capture_output=True)
    return (time.perf_counter() - began) / len(paths)


def batched(weights: bytes, size: int, rounds: int = 5) -> None:
    """The network alone, on both runtimes: single images, and a batch of them."""
    random = np.random.default_rng(0)
    stack = random.random((size, 1, SIDE, SIDE), np.float32)
    threads = usable_cores()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(weights, options)
    core = openvino.Core()
    hints = {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
    }

    def compiled(number: int) -> Callable[[np.ndarray], object]:
        network = core.read_model(weights)
        network.reshape([number, 1, SIDE, SIDE])
        return core.compile_model(network, "CPU", hints).create_infer_request().infer

    ways: dict[str, tuple[Callable[[np.ndarray], object], Callable[[np.ndarray], object]]] = {
        "openvino": (compiled(1), compiled(size)),
        "onnxruntime": (lambda x: session.run(None, {"image": x}),) * 2,
    }
    for name, (one, many) in ways.items():
        took: dict[str, list[float]] = {"single": [], "batch": []}
        for _ in range(rounds):
            began = time.perf_counter()
            for image in stack:
                one(image[None])
            took["single"].append((time.perf_counter() - began) / size)
            began = time.perf_counter()
            many(stack)
            took["batch"].append((time.perf_counter() - began) / size)
        single, batch = min(took["single"]), min(took["batch"])
        print(
            f"{name}: {single * 1000:.1f} ms an image alone, {batch * 1000:.1f} ms in a batch of {size}: "
            f"{single / batch:.2f} x"
        )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--images", type=int, default=100)
    parser.add_argument("--peers", type=int, default=20)
    parser.add_argument("--batch", type=int, default=8)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="secondread-xrays-") as name:
        folder = Path(name)
        opened = model(folder / "model")
        paths = images(folder / "images", arguments.images)
        few = paths[: arguments.peers]
        batched(opened.read_weights(), arguments.batch)
        loaded, classified, encoded = warm(opened, paths, folder / "warm")
        own = classified + encoded
        print(
            f"warm worker: {own:.3f} s an image, of which {classified:.3f} s to read and classify, "
            f"after {loaded:.1f} s to load"
        )
        run = [sys.executable, "-m", "worker.cli", "run", str(opened.folder)]
        ours = each(few, lambda path: [*run, str(path), "--out", str(folder / "out" / path.stem)])
        plain = each(few, lambda path: [sys.executable, "-c", PLAIN, str(opened.weights), str(path)])
        print(f"a process each: `secondread run` {ours:.2f} s an image, {ours / own:.1f} x; bar {BAR:.0f} x")
        print(
            f"a process each: plain script {plain:.2f} s an image, {plain / classified:.1f} x; bar {BAR:.0f} x"
        )
    return 0 if ours >= BAR * own and plain >= BAR * classified else 1


if __name__ == "__main__":
    sys.exit(main())
