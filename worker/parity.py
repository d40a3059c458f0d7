"""Does the engine that serves give the reference engine's answer: compared on a package's own input grid."""

from __future__ import annotations

import math
import time
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from engines import loader, manifest_prompts
from engines.manifest_outputs import ClassificationOutput, SegmentationOutput
from engines.package import ModelPackage
from engines.runner import Runner

#: Voxels whose label may differ: float32 sums in another order differ in the last bits.
AGREEMENT = 0.9999


#: So far may a value differ that is of no class.
_CLOSE = 1e-3


class Verdict(BaseModel):
    """One engine against the reference."""

    model: str
    engine: str
    reference: str
    #: Fraction of voxels with the same label.
    agreement: float
    #: Largest difference of an output value.
    largest_difference: float
    #: Reference's time for a patch, divided by the engine's.
    speed_up: float
    agrees: bool


def compare(package: ModelPackage) -> Verdict:
    """Run one patch of seeded noise with smooth shapes through both engines. Raises EngineError."""
    feeds = _feeds(package)
    name = package.manifest.outputs[0].name
    with closing(loader.open_runner(package, engine="onnxruntime")) as reference:
        expected, slow = _timed(reference, feeds, name)
        with closing(loader.open_runner(package, engine="openvino")) as runner:
            got, fast = _timed(runner, feeds, name)
            agreement = _agreement(package, expected, got)
            return Verdict(
                model=package.manifest.name,
                engine=runner.description,
                reference=reference.description,
                agreement=agreement,
                largest_difference=float(np.abs(expected - got).max(initial=0))
                if expected.shape == got.shape
                else math.inf,
                speed_up=slow / fast,
                agrees=agreement >= AGREEMENT,
            )


def _agreement(package: ModelPackage, expected: NDArray[Any], got: NDArray[Any]) -> float:
    """The share of places that are of the same class, or where there are none, of values that are close."""
    if expected.shape != got.shape:
        return 0.0
    if isinstance(package.manifest.outputs[0], SegmentationOutput | ClassificationOutput):
        return float(np.mean(expected.argmax(axis=1) == got.argmax(axis=1)))
    return float(np.isclose(expected, got, rtol=_CLOSE, atol=_CLOSE).mean()) if expected.size else 1.0


def _feeds(package: ModelPackage) -> dict[str, NDArray[Any]]:
    """A window for each input: all channels alike, and the manifest's own prompts."""
    manifest = package.manifest
    patch = _patch(package)
    made = {name: np.repeat(patch, count, axis=1) for name, count in manifest.channels.items()}
    return {**made, **manifest_prompts.given(manifest.prompts, {})}


def _patch(package: ModelPackage) -> NDArray[np.float32]:
    """An input in the range that the intensity step gives: waves of several lengths and some noise."""
    windows = package.manifest.windows
    shape = (windows.patch[0] + 2 * windows.context, *windows.patch[1:])
    grid = np.meshgrid(
        *(np.linspace(0, 3 * np.pi, length, dtype=np.float32) for length in shape), indexing="ij"
    )
    waves = sum(np.sin((index + 1) * axis) for index, axis in enumerate(grid)) / 6 + 0.5
    noise = np.random.default_rng(0).normal(0, 0.05, shape)
    return np.clip(waves + noise, 0, 1).astype(np.float32)[None, None]


def _timed(runner: Runner, feeds: dict[str, NDArray[Any]], name: str) -> tuple[NDArray[np.float32], float]:
    """An output and the seconds of a second, warm run."""
    answer = runner.infer(feeds)[name].copy()
    started = time.perf_counter()
    runner.infer(feeds)
    return answer, time.perf_counter() - started
