"""A PyTorch network as one ONNX file, compared with the network that it was made of."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from engines.errors import PackageError
from engines.ort import ONNXRuntimeRunner

#: The operator set: the newest that both runtimes read without conversion.
OPSET = 17

#: Largest difference of an output value, as a fraction of the largest value: float32 sums in another order.
TOLERANCE = 1e-3

#: What a single ONNX file may hold at most (protobuf's limit).
LARGEST = 2**31 - 1


class _First(torch.nn.Module):  # type: ignore[misc]
    """The network's first output: deep supervision gives more of them, and only training needs those."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, *inputs: torch.Tensor) -> Any:
        answer = self.network(*inputs)
        if isinstance(answer, dict):
            answer = next(iter(answer.values()))
        while isinstance(answer, list | tuple):
            answer = answer[0]
        return answer


def export(
    network: torch.nn.Module,
    shapes: dict[str, tuple[int, ...]],
    *,
    output_name: str,
    where: str,
    sized_by: str = "",
    outputs: Sequence[str] = (),
) -> tuple[bytes, tuple[int, ...]]:
    """The network as ONNX bytes, and its output's shape, for inputs of these fixed shapes.

    Its first output is called `output_name`; a network with several to keep names all of them in `outputs`.
    Raises PackageError, which begins with `where`, where the network cannot run at these shapes, which the key
    `sized_by` asks for, has an operation that ONNX lacks, is too large for one file, or answers differently there.
    """
    whole = (network if outputs else _First(network)).eval()
    generator = torch.Generator().manual_seed(0)
    try:
        # Of what a damaged file asks for, even the input can be more than fits into memory.
        feeds = {name: torch.rand(shape, generator=generator) for name, shape in shapes.items()}
        with torch.inference_mode():
            expected = whole(*feeds.values())
        content = _exported(whole, feeds, list(outputs) or [output_name])
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        asked = f"{list(shapes.values())}{f' ({sized_by})' if sized_by else ''}"
        raise PackageError(
            f"{where}: the network cannot be exported for inputs of {asked}: {reason[0]}"
        ) from error
    first = expected[0] if outputs else expected
    _check(content, {name: feed.numpy() for name, feed in feeds.items()}, first.numpy(), where)
    return content, tuple(first.shape)


def _exported(network: torch.nn.Module, feeds: dict[str, torch.Tensor], outputs: list[str]) -> bytes:
    """ONNX bytes by tracing: the shapes are fixed, and no image decides which way a network goes."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # What a tracer warns of are shapes that it makes constant, which is what is wanted.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(feeds.values()),
            buffer,
            dynamo=False,
            opset_version=OPSET,
            input_names=list(feeds),
            output_names=outputs,
            do_constant_folding=True,
        )
    return buffer.getvalue()


def _check(content: bytes, feeds: dict[str, Any], expected: Any, where: str) -> None:
    """Raise PackageError where the reference runtime does not give the network's own answer."""
    if len(content) > LARGEST:
        raise PackageError(
            f"{where}: the network has {len(content) / 1e9:.1f} GB, more than an ONNX file can hold"
        )
    shapes = {name: feed.shape for name, feed in feeds.items()}
    with ONNXRuntimeRunner(content, shapes=shapes, threads=torch.get_num_threads()) as runner:
        got = runner.infer(feeds)[runner.outputs[0].name]
    difference = float(np.abs(got - expected).max()) / max(float(np.abs(expected).max()), 1e-6)
    if not difference <= TOLERANCE:
        raise PackageError(
            f"{where}: as ONNX the network's answer differs by {difference:.2g} of its largest value: "
            "report the architecture"
        )
