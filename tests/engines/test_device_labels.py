"""Label maps that are made on a pretended GPU, by the kernels' own source: those of the host, bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import example, gpu, loader, predict
from engines import package as model_package
from engines.errors import DeviceLost, OutputError
from engines.package import ModelPackage
from engines.plans import Plans
from engines.runner import Runner
from engines.volume import Volume
from tests.engines import build as packages
from tests.engines import nets
from tests.support.double import Machine

pytestmark = pytest.mark.peer("c++")

ROOT = Path(__file__).resolve().parents[2]
PATCH = {"patch": [6, 12, 10]}
#: Another grid than the volume's along every axis.
ELSEWHERE = {"inputs": [packages.entry(spacing_mm=[1.9, 1.1, 0.9])]}
COARSE = {"inputs": [packages.entry(spacing_mm=[3.7, 1.3, 1.6])]}
MIRRORED = {**PATCH, "mirror_axes": [0, 1, 2]}


def _output(labels: int = 2, labels_: list[Any] | None = None, **changes: Any) -> dict[str, Any]:
    named = labels_ or [
        packages.label(number, f"label{number}", colour=[255, number % 256, 0])
        for number in range(1, labels + 1)
    ]
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
    "regions": {
        "tiling": PATCH,
        **_output(activation="sigmoid", interpolate="logits"),
        **COARSE,
        "classes": 2,
    },
    "slices in a stack, two of each seen": {
        "tiling": {"patch": [1, 12, 10], "context": 1},
        "network": nets.stacked(3, channels=3),
        **_output(interpolate="logits"),
        **ELSEWHERE,
    },
    "a patch that is larger than the image": {
        "tiling": {"patch": [16, 40, 24], "mirror_axes": [1]},
        **_output(interpolate="logits"),
    },
    "a padded image": {
        "tiling": PATCH,
        "inputs": [packages.entry(steps=[{"kind": "pad", "multiple_of": [7, 32, 32], "value": 0.2}])],
    },
}


def opened(folder: Path, changes: dict[str, Any]) -> ModelPackage:
    """A package of a random network with so many "classes", or of a "network" that is given."""
    settings = dict(changes)
    random = packages.network(classes=settings.pop("classes", 3))
    network = settings.pop("network", random)
    return model_package.open_package(packages.write(folder / "model", network, **settings))


def volume(shape: tuple[int, int, int] = (11, 27, 22)) -> Volume:
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
    on_device, on_host = _both(opened(tmp_path, changes), volume(), tmp_path)
    assert on_device.dtype == on_host.dtype and np.array_equal(on_device, on_host)
    assert np.bincount(on_host.ravel(), minlength=3).max() < 0.98 * on_host.size


def test_the_shipped_model_finds_the_same(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing is inferred that only fills a batch up
    monkeypatch.setattr(gpu, "_MOST_WINDOWS", 1)
    package = model_package.open_package(ROOT / "models" / "chest-ct")
    (whole,) = example.read_input(package.folder / "example" / "input.npz", package.manifest).values()
    part = (slice(8, 34), slice(4, 60), slice(4, 60))
    piece = Volume(array=whole.array[part], geometry=whole.geometry.within(part), unit=whole.unit)
    on_device, on_host = _both(package, piece, tmp_path)
    # Its probabilities are interpolated: see the next test
    assert (on_device != on_host).sum() <= 2 and set(np.unique(on_host)) == {0, 1, 2, 3}


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_interpolated_probabilities_differ_in_their_last_bits_at_most(
    machine: Machine, tmp_path: Path, activation: str
) -> None:
    # numpy's exp and the device's are both right to about two units in the last place
    labels = 2 if activation == "softmax" else 1
    changes = {"tiling": PATCH, **_output(labels, activation=activation), "classes": 1 + (labels > 1) * 2}
    probable = [
        packages.label(number + 1, f"label{number + 1}", probability=True) for number in range(labels)
    ]
    package = opened(tmp_path / "plain", changes | ELSEWHERE)
    on_device, on_host = _both(package, volume(), tmp_path)
    told = opened(tmp_path / "told", changes | ELSEWHERE | _output(activation=activation, labels_=probable))
    with _runner(told, tmp_path) as runner:
        maps = predict.predict(told, runner, volume(), threads=1).maps
    shares = np.stack([each.array for each in maps])
    if activation == "softmax":
        shares = np.sort(np.concatenate([1 - shares.sum(axis=0, keepdims=True), shares]), axis=0)
        margin = shares[-1] - shares[-2]
    else:
        margin = np.abs(shares[0] - 0.5)
    assert (on_device == on_host)[margin > 1e-6].all()
    assert (on_device != on_host).mean() < 1e-3


def test_what_no_window_saw_is_background(machine: Machine, tmp_path: Path) -> None:
    changes = {"tiling": MIRRORED | {"skip_at_most": 0.5}, **_output(interpolate="logits"), **ELSEWHERE}
    made = volume((23, 40, 22))
    array = made.array.copy()
    array[6:21] = -1000
    empty = packages.volume(array)
    on_device, on_host = _both(opened(tmp_path, changes), empty, tmp_path)
    assert np.array_equal(on_device, on_host)
    assert not on_device[13].any() and on_device.any()


def test_more_labels_than_a_byte_holds(machine: Machine, tmp_path: Path) -> None:
    network = nets.stacked(300, channels=1)
    changes = {"tiling": {"patch": [1, 12, 10]}, **_output(299), "network": network}
    on_device, on_host = _both(opened(tmp_path, changes), volume((4, 20, 15)), tmp_path)
    assert on_device.dtype == np.uint16 and on_device.max() > 255
    assert np.array_equal(on_device, on_host)


def test_probabilities_that_are_wanted_are_made_on_the_host(machine: Machine, tmp_path: Path) -> None:
    probable = [packages.label(1, "a", probability=True), packages.label(2, "b")]
    package = opened(tmp_path, {"tiling": PATCH, **_output(labels_=probable)})
    with _runner(package, tmp_path) as runner:
        alone = runner.device_bytes
        assert predict.predict(package, runner, volume(), threads=1).maps
        assert runner.device_bytes == alone


# What goes wrong -----------------------------------------------------------------------------------


@pytest.mark.parametrize("lacks", ["room", "a new driver"])
def test_where_the_device_cannot_the_host_does(machine: Machine, tmp_path: Path, lacks: str) -> None:
    package = opened(tmp_path, {"tiling": PATCH, **ELSEWHERE})
    machine.change(reads_ptx=lacks == "room")
    with _runner(package, tmp_path) as runner:
        alone = runner.device_bytes
        if lacks == "room":
            machine.change(megabytes=(alone + 2**14) / 2**20)
        answers = []
        for leaves in (True, False):
            runner.leaves_on_device = leaves
            answers.append(predict.predict(package, runner, volume(), threads=1).mask)
        assert np.array_equal(*answers) and answers[0].any()
        assert runner.device_bytes == alone


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_logits_that_are_no_numbers_are_refused(machine: Machine, tmp_path: Path, number: float) -> None:
    package = opened(tmp_path, {"tiling": PATCH, "network": nets.beyond(0.9, number)})
    with _runner(package, tmp_path) as runner:
        free = gpu.memory()[0]
        with pytest.raises(OutputError, match='output "logits" holds values that are not finite numbers'):
            predict.predict(package, runner, volume(), threads=1)
        assert gpu.memory()[0] == free
        # And the next image is answered
        quiet = packages.volume(np.minimum(volume().array, 0))
        assert not predict.predict(package, runner, quiet, threads=1).mask.any()


def test_logits_that_half_precision_cannot_add_up_are_refused(machine: Machine, tmp_path: Path) -> None:
    changes = {"tiling": PATCH | {"weighting": "nnunet"}, "network": nets.beyond(0.9, 60000.0)}
    package = opened(tmp_path, changes)
    with (
        _runner(package, tmp_path) as runner,
        pytest.raises(OutputError, match="the logits are too large for float16"),
    ):
        predict.predict(package, runner, volume(), threads=1)


def test_a_device_that_is_lost_in_the_middle_is_lost(machine: Machine, tmp_path: Path) -> None:
    package = opened(tmp_path, {"tiling": PATCH})
    with _runner(package, tmp_path) as runner:
        machine.change(lost_after=1)
        with pytest.raises(DeviceLost, match="illegal memory access"):
            predict.predict(package, runner, volume(), threads=1)


def test_who_stops_in_the_middle_leaves_it_usable(machine: Machine, tmp_path: Path) -> None:
    package = opened(tmp_path, {"tiling": PATCH})
    wanted, _ = _both(package, volume(), tmp_path)

    def stop(done: float) -> None:
        if done > 0.3:
            raise KeyboardInterrupt

    with _runner(package, tmp_path) as runner:
        free = gpu.memory()[0]
        with pytest.raises(KeyboardInterrupt):
            predict.predict(package, runner, volume(), threads=1, progress=stop)
        assert gpu.memory()[0] == free
        assert np.array_equal(predict.predict(package, runner, volume(), threads=1).mask, wanted)
