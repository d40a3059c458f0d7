"""ONNX Runtime on the CPU in float32: the reference that the other backends are compared with.

`ort_gpu` opens sessions on its execution providers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as states

from engines.errors import RunnerError
from engines.runner import Runner, TensorSpec, of_rank

#: Everything that the runtime raises on purpose (they share no base class).
ERRORS: tuple[type[Exception], ...] = (
    states.DeviceReset,
    states.EPFail,
    states.EngineError,
    states.Fail,
    states.InvalidArgument,
    states.InvalidGraph,
    states.InvalidProtobuf,
    states.ModelLoadCanceled,
    states.ModelLoaded,
    states.ModelRequiresCompilation,
    states.NoModel,
    states.NoSuchFile,
    states.NotFound,
    states.NotImplemented,
    states.RuntimeException,
    RuntimeError,
    ValueError,
)

_DTYPES: Mapping[str, np.dtype[Any]] = {
    "tensor(float)": np.dtype(np.float32),
    "tensor(float16)": np.dtype(np.float16),
    "tensor(double)": np.dtype(np.float64),
    "tensor(int64)": np.dtype(np.int64),
    "tensor(int32)": np.dtype(np.int32),
    "tensor(int8)": np.dtype(np.int8),
    "tensor(uint8)": np.dtype(np.uint8),
    "tensor(bool)": np.dtype(np.bool_),
}


class ONNXRuntimeRunner(Runner):
    """A network open in ONNX Runtime."""

    def __init__(self, weights: bytes, *, shapes: Mapping[str, tuple[int, ...]], threads: int) -> None:
        """Open the ONNX graph in `weights`; `shapes` fixes the free axes of inputs, by input name."""
        try:
            self._session = onnxruntime.InferenceSession(
                weights, sess_options=options(threads), providers=["CPUExecutionProvider"]
            )
        except ERRORS as error:
            raise RunnerError(f"ONNX Runtime refuses the network: {error}") from error
        inputs, outputs = specs(self._session, shapes)
        description = f"onnxruntime {onnxruntime.__version__} CPU {_precision(inputs)}"
        super().__init__(inputs=inputs, outputs=outputs, description=description)

    def _infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        try:
            answers = self._session.run(None, dict(feeds))
        except ERRORS as error:
            raise RunnerError(f"{self.description}: {error}") from error
        return {spec.name: answer for spec, answer in zip(self.outputs, answers, strict=True)}

    def _close(self) -> None:
        del self._session


def providers() -> tuple[str, ...]:
    """What ONNX Runtime can run on here, its version first."""
    return (onnxruntime.__version__, *onnxruntime.get_available_providers())


def options(threads: int) -> onnxruntime.SessionOptions:
    """Bounded threads, the same answer each time, and no log lines of its own."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    # Threads that spin while they wait would take a core from the listener.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return options


def specs(
    session: onnxruntime.InferenceSession, shapes: Mapping[str, tuple[int, ...]], *, named: bool = False
) -> tuple[tuple[TensorSpec, ...], tuple[TensorSpec, ...]]:
    """Inputs and outputs; the free axes of inputs have the lengths of `shapes`.

    Where axes are `named`, an output's axis is as long as an input's of the same name, as the graph's author says.
    """
    inputs = tuple(_spec(one, shapes.get(one.name)) for one in session.get_inputs())
    outputs = tuple(_spec(one, None) for one in session.get_outputs())
    if not named:
        return inputs, outputs
    lengths: dict[Any, int | None] = {}
    for argument, spec in zip(session.get_inputs(), inputs, strict=True):
        lengths.update(zip(argument.shape, spec.shape, strict=True))
    axes = (
        tuple(axis if isinstance(axis, int) else lengths.get(axis) for axis in argument.shape)
        for argument in session.get_outputs()
    )
    return inputs, tuple(replace(spec, shape=shape) for spec, shape in zip(outputs, axes, strict=True))


def _spec(argument: Any, fixed: tuple[int, ...] | None) -> TensorSpec:
    """An argument of the graph as TensorSpec, its free axes taken from `fixed` where that is given."""
    if argument.type not in _DTYPES:
        raise RunnerError(
            f"{argument.name} is a {argument.type}; only plain tensors of numbers are supported"
        )
    shape = tuple(axis if isinstance(axis, int) else None for axis in argument.shape)
    fixed = of_rank(fixed, len(shape)) if fixed is not None else None
    if fixed is not None and len(fixed) == len(shape):
        shape = tuple(length if axis is None else axis for axis, length in zip(shape, fixed, strict=True))
    return TensorSpec(name=argument.name, dtype=_DTYPES[argument.type], shape=shape)


def _precision(inputs: tuple[TensorSpec, ...]) -> str:
    """The precision that the graph computes in: ONNX Runtime follows the graph."""
    return str(inputs[0].dtype) if inputs else "float32"
