"""What `model.yaml` may say of inputs that are no image: points, boxes, class lists."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import model_validator

from engines.errors import InputMismatch
from engines.manifest_entries import Strict


class Prompt(Strict):
    """A further input of the graph, that is given the same numbers with every window."""

    #: The ONNX graph's input name; a job's parameter of this name takes the place of `values`.
    name: str
    dtype: Literal["float32", "float16", "int64", "int32", "uint8", "bool"] = "float32"
    #: A number, or lists of lists of numbers, in the shape of the graph's input.
    values: Any

    @model_validator(mode="after")
    def _values_are_numbers(self) -> Prompt:
        self.array(self.values)
        return self

    def array(self, values: Any) -> NDArray[Any]:
        """`values` as the graph takes them. Raises ValueError where they are not such numbers."""
        try:
            array = np.array(values)
        except ValueError:
            raise ValueError(f'"{self.name}": the lists are of different lengths') from None
        if array.dtype.kind not in "iufb":
            raise ValueError(f'"{self.name}": write numbers, or lists of them')
        wanted = np.dtype(self.dtype)
        with np.errstate(over="ignore", invalid="ignore"):
            made = array.astype(wanted)
        if not np.isfinite(made).all() or (wanted.kind in "iub" and not np.array_equal(made, array)):
            raise ValueError(f'"{self.name}": a number is none of {self.dtype}')
        return made


def given(prompts: Sequence[Prompt], parameters: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The arrays of the prompts by name: the manifest's, or those that `parameters` has instead.

    Raises InputMismatch where a parameter is no prompt's, not made of numbers, or has other axes than the
    manifest's values.
    """
    names = [prompt.name for prompt in prompts]
    for name in parameters:
        if name not in names:
            known = f"it has {', '.join(names)}" if names else "it takes none"
            raise InputMismatch(f'the model has no prompt "{name}": {known}')
    arrays = {}
    for prompt in prompts:
        default = prompt.array(prompt.values)
        if prompt.name not in parameters:
            arrays[prompt.name] = default
            continue
        try:
            array = prompt.array(parameters[prompt.name])
        except ValueError as error:
            raise InputMismatch(f"prompt {error}") from error
        if array.ndim != default.ndim:
            raise InputMismatch(
                f'prompt "{prompt.name}" has {array.ndim} axes; the model\'s own has the shape {default.shape}'
            )
        arrays[prompt.name] = array
    return arrays
