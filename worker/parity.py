"""Does the engine that serves give the reference engine's answer: compared on a package's own input grid."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from engines import fit, loader, manifest_prompts, tiling
from engines.errors import OutputError
from engines.manifest import Manifest
from engines.manifest_outputs import SegmentationOutput
from engines.package import ModelPackage
from engines.runner import Runner
from engines.windows import Window

#: Voxels whose label may differ, and numbers: float32 sums in another order differ in the last bits.
AGREEMENT = 0.9999

#: Numbers of other tasks that differ by less are the same, as a part of them and beside zero.
_SAME = 1e-3


class Verdict(BaseModel):
    """One engine against the reference."""

    model: str
    engine: str
    reference: str
    #: Fraction of voxels with the same label; of other tasks than segmentation, of numbers that are the same.
    agreement: float
    #: Largest difference of an output value; infinite where one engine gives more of them.
    largest_difference: float
    #: Reference's time for a patch, divided by the engine's.
    speed_up: float
    agrees: bool


def compare(package: ModelPackage) -> Verdict:
    """Run one patch of seeded noise with smooth shapes through both engines. Raises EngineError."""
    with closing(loader.open_runner(package, engine="onnxruntime")) as reference:
        expected, slow = _timed(package, reference)
        with closing(loader.open_runner(package, engine="openvino")) as runner:
            got, fast = _timed(package, runner)
            _refuse_no_numbers(expected)
            agreement = min(_agreement(package.manifest, expected[name], got[name]) for name in expected)
            return Verdict(
                model=package.manifest.name,
                engine=runner.description,
                reference=reference.description,
                agreement=agreement,
                largest_difference=max(_difference(expected[name], got[name]) for name in expected),
                speed_up=slow / fast,
                agrees=agreement >= AGREEMENT,
            )


def _refuse_no_numbers(outputs: Mapping[str, NDArray[Any]]) -> None:
    """Raise OutputError where the reference engine's own answer is none: two of those would agree."""
    for name, array in outputs.items():
        if not np.isfinite(array).all():
            raise OutputError(f'output "{name}" holds values that are not finite numbers')


def _agreement(manifest: Manifest, expected: NDArray[Any], got: NDArray[Any]) -> float:
    """The part of an output that is the same."""
    if expected.shape != got.shape:
        return 0.0
    if not expected.size:
        return 1.0
    output = manifest.outputs[0]
    if not isinstance(output, SegmentationOutput):
        return float(np.isclose(got, expected, rtol=_SAME, atol=_SAME).mean())
    if output.activation == "sigmoid":
        return float(np.mean((expected > 0) == (got > 0)))
    return float(np.mean(expected.argmax(axis=1) == got.argmax(axis=1)))


def _difference(expected: NDArray[Any], got: NDArray[Any]) -> float:
    """The largest difference of two numbers at the same place."""
    if expected.shape != got.shape:
        return float("inf")
    return float(np.abs(expected.astype(np.float64) - got).max(initial=0.0))


def _patches(manifest: Manifest) -> dict[str, NDArray[np.float32]]:
    """Inputs in the range that the intensity step gives: waves of several lengths and some noise."""
    rng = np.random.default_rng(0)
    patches = {}
    for name, (_, channels, *shape) in fit.shapes(manifest).items():
        grid = np.meshgrid(
            *(np.linspace(0, 3 * np.pi, length, dtype=np.float32) for length in shape), indexing="ij"
        )
        waves = sum(np.sin((index + 1) * axis) for index, axis in enumerate(grid)) / 6 + 0.5
        noise = rng.normal(0, 0.05, (channels, *shape))
        patches[name] = np.clip(waves + noise, 0, 1).astype(np.float32)
    return patches


def _timed(package: ModelPackage, runner: Runner) -> tuple[Mapping[str, NDArray[Any]], float]:
    """The outputs for one patch, and the seconds that a patch took in a second, warm run."""
    manifest = package.manifest
    fit.check_runner(package, runner)
    prompts = manifest_prompts.given(manifest.prompts, {})
    # Nothing is empty enough to be left out here.
    settings = manifest.windows.model_copy(update={"skip_at_most": None})
    network = tiling.network_for(runner, settings, prompts)
    patches, window = _patches(manifest), [Window(corner=(0, 0, 0))]
    answers = next(network.answers(patches, window))
    outputs = {}
    for name in fit.names(manifest.outputs[0]):
        whole = answers.outputs[name]
        outputs[name] = (whole[:1] if answers.count > 1 else whole).copy()
    started = time.perf_counter()
    next(network.answers(patches, window))
    return outputs, (time.perf_counter() - started) / answers.count
