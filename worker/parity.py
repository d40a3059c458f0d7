"""Does the engine that serves give the reference engine's answer: compared on a package's own input grid."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import closing

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from engines import loader
from engines.package import ModelPackage
from engines.runner import Runner

#: Voxels whose label may differ: float32 sums in another order differ in the last bits.
AGREEMENT = 0.9999


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
    channels = Counter(entry.name for entry in package.manifest.inputs)
    feeds = {name: np.repeat(_patch(package), count, axis=1) for name, count in channels.items()}
    name = package.manifest.outputs[0].name
    with closing(loader.open_runner(package, engine="onnxruntime")) as reference:
        expected, slow = _timed(reference, feeds, name)
        with closing(loader.open_runner(package, engine="openvino")) as runner:
            got, fast = _timed(runner, feeds, name)
            agreement = float(np.mean(expected.argmax(axis=1) == got.argmax(axis=1)))
            return Verdict(
                model=package.manifest.name,
                engine=runner.description,
                reference=reference.description,
                agreement=agreement,
                largest_difference=float(np.abs(expected - got).max()),
                speed_up=slow / fast,
                agrees=agreement >= AGREEMENT,
            )


def _patch(package: ModelPackage) -> NDArray[np.float32]:
    """An input in the range that the intensity step gives: waves of several lengths and some noise."""
    shape = package.manifest.windows.patch
    grid = np.meshgrid(
        *(np.linspace(0, 3 * np.pi, length, dtype=np.float32) for length in shape), indexing="ij"
    )
    waves = sum(np.sin((index + 1) * axis) for index, axis in enumerate(grid)) / 6 + 0.5
    noise = np.random.default_rng(0).normal(0, 0.05, shape)
    return np.clip(waves + noise, 0, 1).astype(np.float32)[None, None]


def _timed(
    runner: Runner, feeds: dict[str, NDArray[np.float32]], name: str
) -> tuple[NDArray[np.float32], float]:
    """An output and the seconds of a second, warm run."""
    answer = runner.infer(feeds)[name].copy()
    started = time.perf_counter()
    runner.infer(feeds)
    return answer, time.perf_counter() - started
