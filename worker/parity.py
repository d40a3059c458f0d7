"""Does the engine that serves give the reference engine's answer: compared on a package's own input grid."""

from __future__ import annotations

from contextlib import closing

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel

from engines import fit, loader, manifest_prompts, tiling
from engines.beside import Beside
from engines.manifest import Manifest
from engines.package import ModelPackage
from engines.windows import Window

#: Voxels whose label may differ, and numbers: float32 sums in another order differ in the last bits.
AGREEMENT = 0.9999


class Verdict(BaseModel):
    """One engine against the reference."""

    model: str
    engine: str
    reference: str
    #: Fraction of voxels with the same label; of other tasks than segmentation, of numbers that are the same.
    agreement: float
    #: Largest difference of an output value; infinite where one engine gives more of them, or no number.
    largest_difference: float
    #: Reference's time for a patch, divided by the engine's.
    speed_up: float
    agrees: bool


def compare(package: ModelPackage) -> Verdict:
    """Run one patch of seeded noise with smooth shapes through both engines. Raises EngineError."""
    with (
        closing(loader.open_runner(package, engine="onnxruntime")) as reference,
        closing(loader.open_runner(package, engine="openvino")) as runner,
        Beside(package.manifest, runner, reference) as both,
    ):
        show_patch(package, both)
        return Verdict(
            model=package.manifest.name,
            engine=both.description,
            reference=both.reference,
            agreement=both.agreement,
            largest_difference=both.largest,
            speed_up=both.speed_up,
            agrees=both.agreement >= AGREEMENT,
        )


def show_patch(package: ModelPackage, both: Beside) -> None:
    """Run one call of the patch of noise through two networks; `both` knows afterwards how they differ.

    Raises EngineError.
    """
    manifest = package.manifest
    fit.check_runner(package, both)
    prompts = manifest_prompts.given(manifest.prompts, {})
    # Nothing is empty enough to be left out here.
    settings = manifest.windows.model_copy(update={"skip_at_most": None})
    network = tiling.network_for(both, settings, prompts)
    next(network.answers(patches(manifest), [Window(corner=(0, 0, 0))] * network.batch))


def patches(manifest: Manifest) -> dict[str, NDArray[np.float32]]:
    """Inputs in the range that the intensity step gives: waves of several lengths and some noise."""
    rng = np.random.default_rng(0)
    made = {}
    for name, (_, channels, *shape) in fit.shapes(manifest).items():
        grid = np.meshgrid(
            *(np.linspace(0, 3 * np.pi, length, dtype=np.float32) for length in shape), indexing="ij"
        )
        waves = sum(np.sin((index + 1) * axis) for index, axis in enumerate(grid)) / 6 + 0.5
        noise = rng.normal(0, 0.05, (channels, *shape))
        made[name] = np.clip(waves + noise, 0, 1).astype(np.float32)
    return made
