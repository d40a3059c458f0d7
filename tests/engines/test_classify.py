"""Classes and values of a whole image, from networks with and without slices."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from onnx import helper

from engines import loader, package, predict
from engines.errors import OutputError, PackageError
from engines.findings import Findings
from engines.volume import Volume
from tests.engines import build, nets

ENGINES = loader.ON_THE_CPU
SHAPE = (6, 16, 16)
#: Normalised, the slices' means.
MEANS = np.array([0.1, 0.2, 0.9, 0.4, 0.3, 0.5])
SLICES = {"patch": [1, 16, 16], "overlap": 0}
WHOLE = {"patch": [6, 16, 16], "overlap": 0}


def _volume() -> Volume:
    """Slices of one mean each, with something to see in them."""
    wave = np.where(np.indices(SHAPE).sum(axis=0) % 2, 80, -80)
    return build.volume((MEANS[:, None, None] * 2000 - 1000 + wave).astype(np.int16))


def _package(folder: Path, network: bytes, outputs: dict[str, Any], **changes: Any) -> package.ModelPackage:
    task = "regression" if "values" in outputs else "classification"
    settings = {"task": task, "outputs": [{"name": "out"} | outputs], "tiling": WHOLE, "results": ["sr"]}
    return package.open_package(build.write(folder, network, **(settings | changes)))


def _predicted(
    opened: package.ModelPackage, engine: loader.Engine = "openvino", volume: Volume | None = None
) -> Findings:
    with loader.open_runner(opened, engine=engine, threads=1) as runner:
        return predict.predict(opened, runner, volume or _volume())


def _sigmoid(value: NDArray[np.float64] | float) -> Any:
    return 1 / (1 + np.exp(-np.asarray(value)))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("rank", "tiling"), [(5, WHOLE), (5, SLICES), (4, SLICES)])
@pytest.mark.parametrize("aggregate", ["mean", "max"])
def test_each_class_gets_its_probability_and_its_finding(
    rank: int, tiling: dict[str, Any], aggregate: str, engine: loader.Engine, tmp_path: Path
) -> None:
    # Given a multi-label network, of which the manifest lists two classes, one with a threshold
    network = nets.pooled((4.0, 1.0, -6.0), (-2.0, 0.0, 1.0), rank=rank)
    classes = [
        nets.one_class("nodule", 0, threshold=0.6, urgency="urgent"),
        nets.one_class("effusion", 2, threshold=None),
    ]
    outputs = {"activation": "sigmoid", "aggregate": aggregate, "classes": classes}
    found = _predicted(_package(tmp_path, network, outputs, tiling=tiling), engine)
    # Then their numbers are those of the windows together
    means = MEANS if tiling is SLICES else MEANS.mean(keepdims=True)
    combine = np.max if aggregate == "max" else np.mean
    nodule, effusion = combine(_sigmoid(4 * means - 2)), combine(_sigmoid(1 - 6 * means))
    assert [one.key for one in found.measurements] == ["nodule", "effusion"]
    assert [one.value for one in found.measurements] == pytest.approx([nodule, effusion], rel=1e-4)
    assert {one.name.meaning for one in found.measurements} == {"Probability"}
    assert [one.about.meaning for one in found.measurements if one.about] == ["Nodule", "Effusion"]
    # And only the one with a threshold is stated, negative or not
    [finding] = found.findings
    assert finding.present == (nodule >= 0.6)
    assert (finding.key, finding.code.meaning, finding.urgency) == ("nodule", "Nodule", "urgent")
    assert finding.explanation == f"Nodule probability {found.measurements[0].value:.4g} (threshold 0.6)"
    assert finding.deciding == found.measurements[:1]
    assert not found.mask.any() and found.segments == ()


def test_softmax_takes_the_classes_against_each_other(tmp_path: Path) -> None:
    network = nets.pooled((0.0, 0.0, 0.0), (1.0, 2.0, 3.0))
    classes = [nets.one_class("a", 1), nets.one_class("b", 2)]
    found = _predicted(_package(tmp_path, network, {"activation": "softmax", "classes": classes}))
    shares = np.exp([1.0, 2.0, 3.0]) / np.exp([1.0, 2.0, 3.0]).sum()
    assert [one.value for one in found.measurements] == pytest.approx(shares[1:], rel=1e-5)
    assert [one.present for one in found.findings] == [False, True]


def test_a_calibration_moves_the_logit(tmp_path: Path) -> None:
    network = nets.pooled((0.0,), (1.5,))
    entry = nets.one_class("a", 0, calibration={"slope": 0.5, "intercept": -1})
    found = _predicted(_package(tmp_path, network, {"activation": "sigmoid", "classes": [entry]}))
    assert found.measurements[0].value == pytest.approx(_sigmoid(0.5 * 1.5 - 1), rel=1e-6)
    assert not found.findings[0].present


def test_the_threshold_itself_is_enough(tmp_path: Path) -> None:
    opened = _package(
        tmp_path, nets.pooled((0.0,), (0.0,)), {"activation": "sigmoid", "classes": [nets.one_class("a")]}
    )
    found = _predicted(opened)
    assert found.measurements[0].value == 0.5 and found.findings[0].present


def test_rules_may_speak_of_classes_and_values(tmp_path: Path) -> None:
    rule = {"key": "both", "code": build.code("1", "Both"), "measurement": "a", "above": 0.7}
    outputs = {"activation": "sigmoid", "classes": [nets.one_class("a", threshold=None)]}
    opened = _package(tmp_path, nets.pooled((0.0,), (1.0,)), outputs, findings=[rule])
    [finding] = _predicted(opened).findings
    assert finding.present and finding.explanation == "Probability 0.7311 (threshold above 0.7)"


def test_an_image_is_seen_mirrored_too(tmp_path: Path) -> None:
    # Given a network that looks at the first column only, and an image that is bright there
    weights = np.zeros((1, 1, 1, 16), np.float32)
    weights[..., 0] = 8

    nodes = [
        helper.make_node("Conv", ["image", "w"], ["seen"]),
        helper.make_node("GlobalMaxPool", ["seen"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["out"], axis=1),
    ]
    network = nets.graph(
        nodes, [nets.tensor("w", weights)], [nets.info("image", nets.SPACE[4])], [nets.info("out", ("n", 1))]
    )
    array = np.full((2, 16, 16), -1000, np.int16)
    array[:, :, 0] = 1000
    outputs = {"activation": "sigmoid", "aggregate": "max", "classes": [nets.one_class("a")]}
    opened = _package(tmp_path, network, outputs, tiling=SLICES | {"mirror_axes": [2]})
    found = _predicted(opened, volume=build.volume(array))
    # Then its answer is the mean of both views, also where the largest of the windows counts
    assert found.measurements[0].value == pytest.approx((_sigmoid(8.0) + 0.5) / 2, rel=1e-5)


def test_a_network_of_one_size_needs_no_tiling(tmp_path: Path) -> None:
    entry = build.entry(planar=True, size=[12, 10])
    opened = _package(
        tmp_path,
        nets.pooled((2.0,), (0.0,), rank=4),
        {"activation": "none", "classes": [nets.one_class("a")]},
        inputs=[entry],
        tiling=None,
    )
    array = np.where(np.indices((1, 33, 41)).sum(axis=0) % 2, -600, -800).astype(np.int16)
    found = _predicted(opened, volume=build.volume(array))
    assert found.measurements[0].value == pytest.approx(2 * 0.15, abs=0.005)
    # And neighbouring slices are no image of its own
    with pytest.raises(PackageError, match="tiling: add it"):
        _package(tmp_path / "b", nets.pooled((2.0,), (0.0,)), {"classes": [nets.one_class("a")]}, tiling=None)


@pytest.mark.parametrize("engine", ENGINES)
def test_values_come_in_their_unit(engine: loader.Engine, tmp_path: Path) -> None:
    year = {"value": "a", "scheme": "UCUM", "meaning": "year"}
    values = [
        {"index": 1, "key": "age", "name": build.code("1", "Age"), "unit": year, "scale": 100, "offset": 5}
    ]
    rule = {"key": "old", "code": build.code("2", "Old"), "measurement": "age", "above": 40}
    opened = _package(
        tmp_path,
        nets.pooled((9.0, 1.0), (0.0, 0.1), rank=4),
        {"values": values},
        tiling=SLICES,
        findings=[rule],
    )
    found = _predicted(opened, engine)
    [age] = found.measurements
    assert (age.key, age.name.meaning, age.unit.value, age.about) == ("age", "Age", "a", None)
    assert age.value == pytest.approx((MEANS.mean() + 0.1) * 100 + 5, rel=1e-4)
    assert [one.present for one in found.findings] == [True]


@pytest.mark.parametrize(
    ("network", "outputs", "complaint"),
    [
        (
            nets.pooled((1.0,), (0.0,)),
            {"classes": [nets.one_class("a", 3)]},
            r'outputs\[0\].classes: a \(3\) is beyond the 1 numbers of output "out"',
        ),
        (build.network(), {"name": "logits", "classes": [nets.one_class("a")]}, r"need \(1, classes\)"),
        (
            nets.pooled((1.0,), (7.0,)),
            {"activation": "none", "classes": [nets.one_class("a")]},
            "no probabilities",
        ),
        (
            nets.pooled((1.0,), (math.nan,)),
            {"classes": [nets.one_class("a")]},
            '"out" holds values that are not finite',
        ),
    ],
)
def test_an_answer_that_cannot_be_one_is_refused(
    network: bytes, outputs: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(OutputError, match=complaint):
        _predicted(_package(tmp_path, network, outputs))


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"tiling": WHOLE | {"skip_at_most": 0}}, "what a classification would be of what it did not see"),
        (
            {"findings": [{"key": "a", "code": build.code(), "measurement": "a", "above": 1}]},
            r"findings\.a: a class has this key",
        ),
        ({"task": "regression"}, "it is one of classification, and the task is regression"),
    ],
)
def test_what_a_manifest_of_classes_may_not_say(
    changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(PackageError, match=complaint):
        _package(tmp_path, nets.pooled((1.0,), (0.0,)), {"classes": [nets.one_class("a")]}, **changes)
