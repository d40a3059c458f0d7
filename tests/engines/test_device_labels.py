"""Label maps that are made on a pretended GPU, by the kernels' own source: those of the host, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import gpu, loader, predict
from engines import package as model_package
from engines.package import ModelPackage
from engines.plans import Plans
from engines.runner import Runner
from engines.volume import Volume
from tests.engines import build as packages
from tests.support.double import Machine

pytestmark = pytest.mark.peer("c++")

ROOT = Path(__file__).resolve().parents[2]
KERNELS = ROOT / "engines" / "kernels"
PATCH = {"patch": [6, 12, 10]}
#: Another grid than the volume's along every axis.
ELSEWHERE = {"inputs": [packages.entry(spacing_mm=[1.9, 1.1, 0.9])]}
COARSE = {"inputs": [packages.entry(spacing_mm=[3.7, 1.3, 1.6])]}
MIRRORED = {**PATCH, "mirror_axes": [0, 1, 2]}


def _output(labels: int = 2, **changes: Any) -> dict[str, Any]:
    named = [packages.label(number + 1, f"label{number + 1}") for number in range(labels)]
    return {"outputs": [{"name": "logits", "labels": named} | changes]}


#: What is exact, by name: changes of the manifest.
EXACT: dict[str, dict[str, Any]] = {
    "on the source's grid": {"tiling": PATCH},
    "of no activation": {"tiling": PATCH, **_output(activation="none"), **ELSEWHERE},
    "uniform weights, windows at a fixed step": {
        "tiling": PATCH | {"weighting": "uniform", "placement": "fixed", "overlap": 0.3}
    },
    "mirrored": {"tiling": MIRRORED, **_output(interpolate="logits"), **ELSEWHERE},
    "least weight": {"tiling": MIRRORED | {"least_weight": 0.1}, **_output(interpolate="logits"), **COARSE},
    "windows that do not overlap": {"tiling": PATCH | {"overlap": 0.0}},
    "nearest": {"tiling": PATCH, **_output(interpolate="labels"), **ELSEWHERE},
    "a grid from the first voxel on": {
        "tiling": PATCH,
        "inputs": [packages.entry(spacing_mm=[1.9, 1.1, 0.9], sampling="first-voxel")],
        **_output(interpolate="logits"),
    },
    "as nnU-Net has it": {
        "tiling": MIRRORED | {"weighting": "nnunet"},
        **_output(interpolate="logits", precision="float16", splines={"order": 1, "order_apart": 0}),
        **ELSEWHERE,
    },
    "the longest axis apart": {
        "tiling": PATCH | {"weighting": "nnunet"},
        **_output(interpolate="logits", precision="float16", splines={"order": 1, "apart": True}),
        **COARSE,
    },
    "regions, early": {"tiling": PATCH, **_output(activation="sigmoid"), "classes": 2},
    "regions": {
        "tiling": PATCH,
        **_output(activation="sigmoid", interpolate="logits"),
        **COARSE,
        "classes": 2,
    },
    "a padded image": {
        "tiling": PATCH,
        "inputs": [packages.entry(steps=[{"kind": "pad", "multiple_of": [7, 32, 32], "value": 0.2}])],
    },
}


def _opened(folder: Path, changes: dict[str, Any], network: bytes = b"") -> ModelPackage:
    settings = dict(changes)
    network = network or packages.network(classes=settings.pop("classes", 3))
    settings.pop("classes", None)
    return model_package.open_package(packages.write(folder / "model", network, **settings))


def _volume(shape: tuple[int, int, int] = (11, 27, 22)) -> Volume:
    """Smooth shapes in noise, so that every label lies somewhere and their edges everywhere."""
    rng = np.random.default_rng(7)
    z, y, x = np.meshgrid(*(np.linspace(0, 3, length) for length in shape), indexing="ij")
    waves = np.sin(3 * z + x) * np.cos(2 * y - z)
    return packages.volume((900 * waves + rng.normal(0, 150, shape)).astype(np.int16))


def _runner(package: ModelPackage, folder: Path) -> Runner:
    kept = Plans(folder=folder / "plans")
    gpu.build(package, kept, precision="float32")
    return loader.open_runner(package, engine="tensorrt", kept=kept, precision="float32", unverified=True)


def _both(package: ModelPackage, volume: Volume, folder: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """The label map that was made on the device, and the host's of the same runner."""
    with _runner(package, folder) as runner:
        alone, free = runner.device_bytes, gpu.memory()[0]
        on_device = predict.predict(package, runner, volume, threads=1).mask
        assert runner.device_bytes > alone, "it was not made on the device"
        assert gpu.memory()[0] == free
        runner.leaves_on_device = False
        return on_device, predict.predict(package, runner, volume, threads=1).mask


@pytest.mark.parametrize("changes", EXACT.values(), ids=EXACT.keys())
def test_labels_are_the_host_s_to_the_bit(machine: Machine, tmp_path: Path, changes: dict[str, Any]) -> None:
    on_device, on_host = _both(_opened(tmp_path, changes), _volume(), tmp_path)
    assert on_device.dtype == on_host.dtype and np.array_equal(on_device, on_host)
    assert np.bincount(on_host.ravel(), minlength=3).max() < 0.98 * on_host.size
