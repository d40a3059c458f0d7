"""Feeds an ONNX Runtime session through memory that is bound once, on the device that it computes on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime import OrtValue

from engines.runner import TensorSpec


class Binding:
    """The inputs and outputs of one session, each where the session reads or writes it.

    What has a fixed shape stays at its address, as a CUDA graph asks for; another input moves when its shape does,
    and another output is made anew by each run. On the CPU the same code does the same.
    """

    def __init__(
        self, session: onnxruntime.InferenceSession, *, outputs: Sequence[TensorSpec], device: str
    ) -> None:
        """`device` is ONNX Runtime's name of it: "cuda" or "cpu". Raises what `ort.ERRORS` names."""
        self._session = session
        self._device = device
        self._outputs = tuple(outputs)
        self._binding = session.io_binding()
        self._inputs: dict[str, OrtValue] = {}
        for spec in self._outputs:
            if is_fixed(spec):
                self._binding.bind_ortvalue_output(spec.name, self._room(spec.shape, spec.dtype))
            else:
                self._binding.bind_output(spec.name)

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run the session; return output name -> array. Raises what `ort.ERRORS` names."""
        for name, array in feeds.items():
            self._feed(name, array)
        for spec in self._outputs:
            if not is_fixed(spec):
                # To host memory. The last run's answer is still bound, and would have to be as long.
                self._binding.bind_output(spec.name)
        self._session.run_with_iobinding(self._binding)
        answers = self._binding.get_outputs()
        return {spec.name: answer.numpy() for spec, answer in zip(self._outputs, answers, strict=True)}

    def _feed(self, name: str, array: NDArray[Any]) -> None:
        """Bring an input to the device."""
        value = self._inputs.get(name)
        if value is None or tuple(value.shape()) != array.shape:
            value = self._inputs[name] = self._room(array.shape, array.dtype)
            self._binding.bind_ortvalue_input(name, value)
        value.update_inplace(np.ascontiguousarray(array))

    def _room(self, shape: Sequence[int | None], dtype: np.dtype[Any]) -> OrtValue:
        """Memory on the device."""
        return OrtValue.ortvalue_from_shape_and_type(list(shape), dtype.type, self._device)


def is_fixed(spec: TensorSpec) -> bool:
    """Whether its shape is known before it is computed; of a spec without axes nobody knows whether it has none."""
    return bool(spec.shape) and None not in spec.shape
