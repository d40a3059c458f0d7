"""Several networks that answer together: the average of their probabilities, and never a volume of classes."""

from __future__ import annotations

import tracemalloc
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import cascade, lineage, loader, package
from engines.cascade import Stage
from engines.errors import PackageError
from engines.findings import Findings
from engines.package import ModelPackage
from engines.postprocess import softmax
from engines.volume import Volume
from tests.engines import build
from tests.support import phantoms

SHAPE = (20, 40, 36)


def _package(folder: Path, weights: bytes, *members: ModelPackage, **changes: Any) -> ModelPackage:
    ensemble = [{"model": each.manifest.name, "digest": each.digest} for each in members]
    settings: dict[str, Any] = {"name": folder.name, "ensemble": ensemble}
    return package.open_package(build.write(folder, weights, **settings | changes))


def _answer(whole: ModelPackage, *members: ModelPackage, volume: Volume, progress: Any = None) -> Findings:
    with ExitStack() as stack:
        runners = [
            stack.enter_context(loader.open_runner(each, engine="onnxruntime", threads=1))
            for each in (whole, *members)
        ]
        stage = Stage(package=whole, runner=runners[0], members=tuple(runners[1:]))
        return cascade.predict_all(stage, volume, progress=progress)


def _folds(folder: Path, number: int = 3, **changes: Any) -> list[ModelPackage]:
    """Random networks of one architecture, each about as sure as the others."""
    return [_package(folder / f"fold{n}", build.network(seed=n), **changes) for n in range(number)]


def _labelled(**output: Any) -> dict[str, Any]:
    labels = [build.label(n + 1, f"label{n + 1}", probability=True) for n in range(2)]
    return {"outputs": [{"name": "logits", "labels": labels} | output]}


def _shares(found: Findings) -> NDArray[np.float32]:
    return np.stack([item.array for item in found.maps])


def _phantom() -> Volume:
    return build.volume(phantoms.asymmetric(SHAPE))


def test_the_probabilities_are_the_mean_of_the_members_own(tmp_path: Path) -> None:
    # Given three networks that disagree, on the source's own grid
    folds = _folds(tmp_path, **_labelled())
    whole = _package(tmp_path / "whole", build.network(seed=0), *folds[1:], **_labelled())
    # When each is asked alone, and all together
    own = [_shares(_answer(each, volume=_phantom())) for each in folds]
    found = _answer(whole, *folds[1:], volume=_phantom())
    # Then each probability is their mean, and the label that of the largest
    expected = np.mean(own, axis=0)
    np.testing.assert_allclose(_shares(found), expected, atol=1e-6)
    with_background = np.concatenate([1 - expected.sum(axis=0, keepdims=True), expected])
    sure = np.diff(np.sort(with_background, axis=0)[-2:], axis=0)[0] > 1e-5
    np.testing.assert_array_equal(found.mask[sure], with_background.argmax(axis=0)[sure])
    # And that is not the answer of one of them
    alone = [_answer(each, volume=_phantom()).mask for each in folds]
    assert all(np.mean(found.mask != mask) > 0.001 for mask in alone)


def test_on_another_grid_the_mean_is_taken_there(tmp_path: Path) -> None:
    changes = _labelled() | {"inputs": [build.entry(spacing_mm=[3.1, 1.7, 1.3])]}
    folds = _folds(tmp_path, **changes)
    whole = _package(tmp_path / "whole", build.network(seed=0), *folds[1:], **changes)
    own = [_shares(_answer(each, volume=_phantom())) for each in folds]
    found = _answer(whole, *folds[1:], volume=_phantom())
    # Interpolating is linear: the mean of what is interpolated is what the mean gives
    np.testing.assert_allclose(_shares(found), np.mean(own, axis=0), atol=1e-5)


def test_an_ensemble_of_the_same_network_says_what_that_says(tmp_path: Path) -> None:
    (alone,) = _folds(tmp_path, 1)
    twins = [_package(tmp_path / f"twin{n}", build.network(seed=0)) for n in range(2)]
    whole = _package(tmp_path / "whole", build.network(seed=0), *twins)
    expected = _answer(alone, volume=_phantom()).mask
    np.testing.assert_array_equal(_answer(whole, *twins, volume=_phantom()).mask, expected)


def test_certainty_beyond_what_a_float_holds_stays_finite(tmp_path: Path) -> None:
    weights = [build.thresholds((0.6, 0.8), sharpness=sharp) for sharp in (5000.0, 4000.0)]
    (other,) = [_package(tmp_path / "other", weights[1])]
    whole = _package(tmp_path / "whole", weights[0], other)
    found = _answer(whole, other, volume=_phantom())
    np.testing.assert_array_equal(found.mask, np.digitize(_phantom().array, [200, 600]))


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_the_average_has_the_mean_activation(activation: str) -> None:
    from engines.ensemble import average

    rng = np.random.default_rng(5)
    each = [rng.normal(0, 4, (3, 2, 5, 5)).astype(np.float32) for _ in range(4)]
    active = {"softmax": softmax, "sigmoid": lambda x: 1 / (1 + np.exp(-x)), "none": lambda x: x}[activation]
    got = average(each, activation)
    assert got.dtype == np.float32
    np.testing.assert_allclose(active(got), np.mean([active(one) for one in each], axis=0), atol=1e-6)


def test_memory_does_not_grow_with_the_classes_of_the_volume(tmp_path: Path) -> None:
    # Given a long volume and shallow windows
    changes: dict[str, Any] = {"tiling": {"patch": [4, 32, 32], "overlap": 0}}
    (other,) = _folds(tmp_path, 1, **changes)
    whole = _package(tmp_path / "whole", build.network(seed=1), other, **changes)
    volume = build.volume(np.tile(phantoms.asymmetric((20, 64, 64)), (8, 1, 1)))
    tracemalloc.start()
    _answer(whole, other, volume=volume)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Then less is held than one network's classes would take
    assert peak < volume.array.size * 3 * 4


def test_progress_is_that_of_all(tmp_path: Path) -> None:
    folds = _folds(tmp_path, 2)
    whole = _package(tmp_path / "whole", build.network(seed=0), folds[1])
    seen: list[float] = []
    _answer(whole, folds[1], volume=_phantom(), progress=seen.append)
    assert seen == sorted(seen) and seen[-1] == 1.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inputs": [build.entry(spacing_mm=[2, 1, 1])]}, "another inputs[0].spacing_mm"),
        ({"inputs": [build.entry(orientation="FPL")]}, "another inputs[0].orientation"),
        ({"tiling": {"patch": [8, 16, 24]}}, "another tiling"),
        ({"prompts": [{"name": "points", "values": [1]}]}, "another prompts"),
        ({"outputs": [{"name": "logits", "activation": "none", "labels": [build.label(1, "label1"), build.label(2, "label2")]}]}, "another outputs[0].activation"),
        ({"outputs": [{"name": "logits", "labels": [build.label(1, "label1"), build.label(2, "tumour")]}]}, "other labels"),
    ],
)  # fmt: skip
def test_members_that_see_or_find_something_else_are_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    other = _package(tmp_path / "other", build.network(seed=1), **changes)
    whole = _package(tmp_path / "whole", build.network(), other)
    with pytest.raises(PackageError) as caught:
        lineage.check(whole, {"other": other, "whole": whole})
    assert f"model.yaml: ensemble[0]: other has {said}" in str(caught.value)


def test_members_may_take_series_by_other_words(tmp_path: Path) -> None:
    other = _package(
        tmp_path / "other", build.network(seed=1), inputs=[build.entry(series={"Modality": "MR"})]
    )
    whole = _package(tmp_path / "whole", build.network(), other)
    lineage.check(whole, {"other": other, "whole": whole})
    assert whole.identity.parts == (f"together with: other sha256:{other.digest}",)


def test_an_ensemble_of_ensembles_is_refused(tmp_path: Path) -> None:
    one = _package(tmp_path / "one", build.network(seed=1))
    two = _package(tmp_path / "two", build.network(seed=2), one)
    whole = _package(tmp_path / "whole", build.network(), two)
    with pytest.raises(PackageError, match="two is an ensemble itself: name its members here"):
        lineage.check(whole, {"one": one, "two": two, "whole": whole})
