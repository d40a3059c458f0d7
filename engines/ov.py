"""OpenVINO on the CPU, held to float32: the default backend where there is no GPU."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from engines.errors import RunnerError
from engines.runner import Runner, TensorSpec, of_rank

# OpenVINO's Python package reports usage to its maker where this module can be imported. A hospital's
# machine reports to nobody; None makes the import fail, and OpenVINO then uses its own empty stand-in.
sys.modules.setdefault("openvino_telemetry", cast(Any, None))

import openvino  # noqa: E402
from openvino import exceptions, frontend  # noqa: E402

#: Everything that the runtime raises on purpose (they share no base class).
ERRORS: tuple[type[Exception], ...] = (
    frontend.GeneralFailure,
    frontend.InitializationFailure,
    frontend.NotImplementedFailure,
    frontend.OpConversionFailure,
    frontend.OpValidationFailure,
    exceptions.OVError,
    RuntimeError,
    ValueError,
    TypeError,
)


class OpenVINORunner(Runner):
    """A network compiled by OpenVINO for this CPU."""

    def __init__(self, weights: bytes, *, shapes: Mapping[str, tuple[int, ...]], threads: int) -> None:
        """Compile the ONNX graph in `weights`; `shapes` fixes the free axes of inputs, by input name."""
        try:
            core = openvino.Core()
            model = core.read_model(weights)
            _fix_shapes(model, shapes)
            inputs, outputs = ([_name(port) for port in ports] for ports in (model.inputs, model.outputs))
            compiled = core.compile_model(model, "CPU", _properties(threads))
            self._request = compiled.create_infer_request()
        except ERRORS as error:
            raise RunnerError(f"OpenVINO refuses the network: {_reason(error)}") from error
        version = str(openvino.__version__).split("-")[0]
        super().__init__(
            inputs=[_spec(*one) for one in zip(compiled.inputs, inputs, strict=True)],
            outputs=[_spec(*one) for one in zip(compiled.outputs, outputs, strict=True)],
            description=f"openvino {version} CPU float32",
        )

    def _infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        arrays = {name: np.ascontiguousarray(array) for name, array in feeds.items()}
        try:
            answers = self._request.infer(arrays, share_inputs=True, share_outputs=True)
        except ERRORS as error:
            raise RunnerError(f"{self.description}: {_reason(error)}") from error
        return {spec.name: answers[index] for index, spec in enumerate(self.outputs)}

    def _close(self) -> None:
        del self._request


def _properties(threads: int) -> dict[str, Any]:
    """float32 whatever the CPU prefers, one patch at a time on a bounded number of threads."""
    return {
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        # Several workers on one host would all pin their threads to the same first cores.
        "ENABLE_CPU_PINNING": False,
    }


def _fix_shapes(model: Any, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Give the free axes of the inputs their lengths."""
    fixed = {}
    for port in model.inputs:
        partial, given = port.get_partial_shape(), shapes.get(_name(port))
        if given is None or not partial.is_dynamic or not partial.rank.is_static:
            continue
        wanted = of_rank(given, len(partial))
        if len(partial) == len(wanted):
            fixed[port] = [
                length if axis.is_dynamic else axis.get_length()
                for axis, length in zip(partial, wanted, strict=True)
            ]
    if fixed:
        model.reshape(fixed)


def _name(port: Any) -> str:
    """A port's name in the ONNX graph, among those of what it was merged with."""
    own = str(port.node.get_friendly_name()).removesuffix("/sink_port_0")
    return own if own in port.get_names() else str(port.get_any_name())


def _spec(port: Any, name: str) -> TensorSpec:
    """A port of the compiled network as TensorSpec, by its name in the ONNX graph."""
    partial = port.get_partial_shape()
    axes = partial if partial.rank.is_static else ()
    shape = tuple(None if axis.is_dynamic else axis.get_length() for axis in axes)
    return TensorSpec(name=name, dtype=np.dtype(port.get_element_type().to_dtype()), shape=shape)


#: How the lines of OpenVINO's messages begin that say where in its own source something happened.
_CHATTER = ("Exception from", "Check '", "FrontEnd API failed", "Model wasn't fully", "While validating")


def _reason(error: Exception) -> str:
    """The one line of OpenVINO's message that says what is wrong, an operation it lacks before all."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")]
    missing = [line for line in lines if line.startswith("No conversion rule")]
    telling = [line for line in lines if not line.startswith(_CHATTER)]
    return (missing or telling or lines or [type(error).__name__])[0]
