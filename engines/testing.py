"""Runners that need no runtime and whose answer is known beforehand, for tests of whatever uses one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines import fit, manifest_prompts
from engines.package import ModelPackage
from engines.runner import Runner, TensorSpec


class ThresholdRunner(Runner):
    """A "network" that thresholds its input: class k where k of the thresholds are reached.

    Class k's logit is `sharpness` x (k x - the sum of the first k thresholds), so the largest logit
    changes exactly at each threshold, and stays right under linear interpolation.
    """

    def __init__(
        self,
        thresholds: Sequence[float],
        *,
        input_name: str = "image",
        output_name: str = "logits",
        patch: tuple[int, int, int] | None = None,
        sharpness: float = 50.0,
    ) -> None:
        """`thresholds` rise, in normalised intensities; without `patch` any shape is accepted."""
        if list(thresholds) != sorted(set(thresholds)) or not thresholds:
            raise ValueError(f"thresholds must rise, not {list(thresholds)}")
        sums = np.cumsum([0.0, *thresholds])
        self._sums = sums.astype(np.float32)[:, None, None, None]
        self._sharpness = np.float32(sharpness)
        self._output = output_name
        #: How many patches were inferred.
        self.calls = 0
        space = patch or (None, None, None)
        dtype = np.dtype(np.float32)
        super().__init__(
            inputs=[TensorSpec(name=input_name, dtype=dtype, shape=(1, 1, *space))],
            outputs=[TensorSpec(name=output_name, dtype=dtype, shape=(1, len(sums), *space))],
            description="threshold CPU float32",
        )

    def _infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.calls += 1
        image = feeds[self.inputs[0].name][:, 0][:, None]
        classes = np.arange(len(self._sums), dtype=np.float32)[:, None, None, None]
        return {self._output: self._sharpness * (classes * image - self._sums)}

    def _close(self) -> None:
        pass


class FixedRunner(Runner):
    """A "network" of any task that gives the same answer to every call, and remembers what it was given."""

    def __init__(self, package: ModelPackage, outputs: Mapping[str, NDArray[Any]], *, batch: int = 1) -> None:
        """`outputs` are what it answers, by name, for a call of `batch` windows."""
        self._outputs = dict(outputs)
        #: The feeds of each call, by input name.
        self.seen: list[dict[str, NDArray[Any]]] = []
        manifest = package.manifest
        prompts = manifest_prompts.given(manifest.prompts, {})
        images = [
            TensorSpec(name=name, dtype=np.dtype(np.float32), shape=shape)
            for name, shape in fit.shapes(manifest, batch=batch).items()
        ]
        super().__init__(
            inputs=[*images, *(_spec(name, array) for name, array in prompts.items())],
            outputs=[_spec(name, array) for name, array in outputs.items()],
            description="fixed CPU float32",
        )

    def _infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.seen.append({name: array.copy() for name, array in feeds.items()})
        return dict(self._outputs)

    def _close(self) -> None:
        pass


def _spec(name: str, array: NDArray[Any]) -> TensorSpec:
    return TensorSpec(name=name, dtype=array.dtype, shape=array.shape)


def threshold_runner(package: ModelPackage, thresholds: Sequence[float]) -> ThresholdRunner:
    """A ThresholdRunner that fits `package`'s names and patch; one threshold for each label."""
    return ThresholdRunner(
        thresholds,
        input_name=package.manifest.inputs[0].name,
        output_name=package.manifest.outputs[0].name,
        patch=package.manifest.windows.patch,
    )
