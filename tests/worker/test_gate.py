"""The parity gate: what a compiled plan may get wrong, and that each of it is found."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import example, loader
from engines import package as model_package
from engines.errors import DeviceLost, RunnerError
from engines.package import ModelPackage
from engines.plans import Plans, Verdict
from engines.runner import Runner, TensorSpec
from engines.volume import Volume
from tests.engines import build, nets
from tests.support import double
from worker import gate, golden

Wrong = Callable[[NDArray[Any]], NDArray[Any]]

#: In the normalised window, for 200 and 600 HU; label1 from the first on, label2 from the second.
THRESHOLDS = (0.6, 0.8)


class Plan(Runner):
    """The package's own network on ONNX Runtime, with `wrong` done to each output."""

    def __init__(self, package: ModelPackage, wrong: Wrong, *, batch: int = 1) -> None:
        self._inner = loader.open_runner(package, engine="onnxruntime", threads=1)
        self._wrong = wrong
        self.calls = 0
        inputs = [
            TensorSpec(name=spec.name, dtype=spec.dtype, shape=(batch, *spec.shape[1:]))
            for spec in self._inner.inputs
        ]
        super().__init__(inputs=inputs, outputs=self._inner.outputs, description="plan GPU float16")

    def _infer(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        self.calls += 1
        rows = [{name: array[at : at + 1] for name, array in feeds.items()} for at in range(self.batch)]
        each = [
            {name: array.copy() for name, array in self._inner.infer(row).items()}
            for row in (rows if self.batch > 1 else [feeds])
        ]
        return {name: self._wrong(np.concatenate([answer[name] for answer in each])) for name in each[0]}

    @property
    def batch(self) -> int:
        return self.inputs[0].shape[0] or 1

    def _close(self) -> None:
        self._inner.close()


def _volume() -> Volume:
    array = np.full((9, 20, 24), -900, np.int16)
    array[2:7, 4:15, 5:12] = 300
    array[3:5, 6:9, 8:20] = 800
    return build.volume(array)


def _package(folder: Path, weights: bytes = b"", **changes: Any) -> ModelPackage:
    settings: dict[str, Any] = {"name": folder.name}
    return model_package.open_package(
        build.write(folder, weights or build.thresholds(THRESHOLDS), **(settings | changes))
    )


def _with_example(package: ModelPackage, volume: Volume) -> ModelPackage:
    """The package with the reference's answer about the volume as its example."""
    volumes = {package.manifest.reference.called: volume}
    found = golden.answer(package, volumes, engine="onnxruntime", beside=(), threads=1)
    example.write(package.folder, golden.expecting(package, volumes, found, example.Expected()))
    return package


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """Two labels, the volume of one of them, and an example."""
    package = _package(
        tmp_path_factory.mktemp("models") / "tiny",
        measurements=[build.measurement("v", "volume", of=["label2"])],
        findings=[
            {"key": "large", "code": build.code("18720000", "Large"), "measurement": "v", "above": 0.1}
        ],
        gpu={"tolerance": 0.01, "min_dice": 0.99},
    )
    return _with_example(package, _volume())


@contextmanager
def _plan(package: ModelPackage, wrong: Wrong = lambda array: array, *, batch: int = 1) -> Iterator[Plan]:
    with Plan(package, wrong, batch=batch) as runner:
        yield runner


def _judged(package: ModelPackage, wrong: Wrong = lambda array: array, *, batch: int = 1) -> Verdict:
    with _plan(package, wrong, batch=batch) as runner:
        return gate.compare(package, runner, threads=1)


def _biased(array: NDArray[Any]) -> NDArray[Any]:
    """No label is another one: all logits rise alike, by a tenth of their range."""
    return np.asarray(array + np.ptp(array) / 10, array.dtype)


def _swapped(array: NDArray[Any]) -> NDArray[Any]:
    """The largest of two logits of the last label's voxels is the other one, by a hair."""
    first, second = array[:, 1], array[:, 2]
    changed = np.where(second > first, first - 1e-3, second)
    return np.stack([array[:, 0], first, changed], axis=1)


def _spoilt(value: float) -> Wrong:
    def spoil(array: NDArray[Any]) -> NDArray[Any]:
        array[..., 0] = value
        return array

    return spoil


def test_the_reference_s_own_network_is_accepted(tiny: ModelPackage) -> None:
    verdict = _judged(tiny)
    assert verdict.agrees and verdict.differences == ()
    assert (verdict.case, verdict.engine) == ("example", "plan GPU float16")
    assert verdict.reference.startswith("onnxruntime") and verdict.reference.endswith("CPU float32")
    assert (verdict.dice, verdict.largest_difference, verdict.tolerance) == (1.0, 0.0, 0.01)
    assert verdict.speed_up > 0


def test_a_difference_within_the_tolerance_is_written_down_and_accepted(tiny: ModelPackage) -> None:
    verdict = _judged(tiny, lambda array: np.asarray(array + 0.005 * np.ptp(array), array.dtype))
    assert verdict.agrees
    assert verdict.largest_difference == pytest.approx(0.005, rel=0.01)


def test_numbers_that_are_off_are_refused_though_no_label_is(tiny: ModelPackage) -> None:
    verdict = _judged(tiny, _biased)
    assert not verdict.agrees and verdict.dice == 1.0
    [said] = verdict.differences
    assert 'output "logits" differs by' in said and "at most 0.01 is allowed (gpu.tolerance)" in said


def test_a_label_that_is_lost_is_refused_with_what_follows_from_it(tiny: ModelPackage) -> None:
    verdict = _judged(tiny, _swapped)
    assert not verdict.agrees and verdict.dice == 0.0
    said = "; ".join(verdict.differences)
    assert "label Label2: Dice 0.0000, at least 0.99 is expected" in said
    assert (
        "measurement v of segment 2: 0, expected 0.1008" in said
        and "finding large: absent, expected present" in said
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_is_refused(tiny: ModelPackage, value: float) -> None:
    verdict = _judged(tiny, _spoilt(value))
    assert not verdict.agrees
    assert 'output "logits" holds values that are not finite numbers' in verdict.differences
    assert verdict.largest_difference == float("inf")
    # It is kept beside the plan
    assert Verdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_an_answer_of_another_shape_is_refused(tiny: ModelPackage) -> None:
    verdict = _judged(tiny, lambda array: array[..., :-1])
    assert not verdict.agrees
    assert (
        'output "logits" has shape (1, 3, 8, 16, 15), the reference\'s (1, 3, 8, 16, 16)'
        in verdict.differences
    )


def _dies(error: RunnerError) -> Wrong:
    def die(array: NDArray[Any]) -> NDArray[Any]:
        raise error

    return die


def test_a_network_that_cannot_answer_does_not_agree(tiny: ModelPackage) -> None:
    verdict = _judged(tiny, _dies(RunnerError("enqueue failed")))
    assert not verdict.agrees and verdict.differences == ("enqueue failed",)
    assert (verdict.dice, verdict.speed_up) == (None, 0.0)


def test_a_device_that_fails_is_no_verdict(tiny: ModelPackage) -> None:
    with pytest.raises(DeviceLost, match="fell off"):
        _judged(tiny, _dies(DeviceLost("the GPU fell off the bus")))


@pytest.mark.peer("c++")
@pytest.mark.parametrize("wrong", [False, True], ids=["right", "wrong"])
def test_labels_that_the_gpu_makes_are_judged_beside_the_numbers_that_they_are_made_of(
    tiny: ModelPackage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: bool
) -> None:
    made: list[bool] = []
    with double.installed(tmp_path):
        from engines import device_sweep

        filled = device_sweep.fill

        def fill(runner: Runner, feeds: Any, wanted: Any, **how: Any) -> bool:
            made.append(filled(runner, feeds, wanted, **how))  # type: ignore[arg-type]
            if wrong:
                # As where a kernel takes the other label
                wanted.mask[...] = (wanted.mask == 0).astype(wanted.mask.dtype)
            return made[-1]

        monkeypatch.setattr(device_sweep, "fill", fill)
        verdict = gate.prepare(tiny, Plans(folder=tmp_path / "plans"), threads=1).verdict
    assert made == [True] and verdict is not None
    assert verdict.agrees is not wrong and verdict.largest_difference <= verdict.tolerance
    assert any("Dice" in said for said in verdict.differences) is wrong


def test_a_plan_that_takes_several_windows_is_compared_window_by_window(tmp_path: Path) -> None:
    package = _with_example(
        _package(tmp_path / "flat", tiling={"patch": [1, 16, 16], "overlap": 0}), _volume()
    )
    assert _judged(package, batch=4).agrees

    def last_is_off(array: NDArray[Any]) -> NDArray[Any]:
        array[1] += 5
        return array

    verdict = _judged(package, last_is_off, batch=4)
    assert not verdict.agrees and verdict.largest_difference > 0.01


@pytest.mark.parametrize("wrong", [_biased, _swapped, _spoilt(np.nan)])
def test_without_an_example_a_patch_of_noise_decides(tmp_path: Path, wrong: Wrong) -> None:
    package = _package(tmp_path / "bare")
    accepted = _judged(package)
    assert accepted.agrees and (accepted.case, accepted.dice) == ("patch", None)
    verdict = _judged(package, wrong)
    assert not verdict.agrees and verdict.case == "patch"


def test_labels_of_a_patch_are_held_to_the_least_overlap(tmp_path: Path) -> None:
    [said] = _judged(_package(tmp_path / "bare"), _swapped).differences[-1:]
    assert (
        "of a patch of noise have the reference's label, at least 0.995 is asked for (gpu.min_dice)" in said
    )


def test_an_example_that_shows_the_network_nothing_decides_nothing(tmp_path: Path) -> None:
    tiling = {"patch": [8, 16, 16], "skip_at_most": 0.06}
    air = np.full((9, 20, 24), -900, np.int16)
    air[0, 0, 0] = -901
    package = _with_example(_package(tmp_path / "air", tiling=tiling), build.volume(air))
    assert _judged(package).case == "patch"
    assert not _judged(package, _biased).agrees


def test_a_model_after_another_is_judged_on_what_the_other_finds(tmp_path: Path) -> None:
    first = _package(
        tmp_path / "finder",
        build.thresholds(THRESHOLDS[:1]),
        outputs=[{"name": "logits", "labels": [build.label(1, "organ")]}],
    )
    use = {"kind": "crop", "labels": ["organ"], "margin_mm": 2}
    after = [{"model": "finder", "digest": first.digest, "use": use}]
    second = _package(tmp_path / "second", after=after)
    _with_example(second, _volume())
    assert _judged(second).agrees
    assert "label Label2" in "".join(_judged(second, _swapped).differences)


def test_one_number_is_held_to_its_own_size(tmp_path: Path) -> None:
    package = _package(
        tmp_path / "pooled",
        nets.pooled((1.0,), (10.0,)),
        task="classification",
        outputs=[{"name": "out", "activation": "sigmoid", "classes": [nets.one_class("a")]}],
        tiling={"patch": [4, 16, 16]},
        results=["sr"],
    )
    assert _judged(package, lambda array: np.asarray(array * 1.01, array.dtype)).agrees
    assert not _judged(package, lambda array: np.asarray(array * 1.05, array.dtype)).agrees


def test_a_reference_without_numbers_lets_nothing_pass(tmp_path: Path) -> None:
    package = _package(tmp_path / "odd", build.thresholds((0.6, 0.8), sharpness=float("nan")))
    verdict = _judged(package)
    assert not verdict.agrees
    assert "the reference's own output" in verdict.differences[0]
