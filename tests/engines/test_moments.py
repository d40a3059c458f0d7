"""Models of several moments of a series: which they see, and that each is a channel prepared like the first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from engines import example, fusion, lineage, loader, moments, package, predict
from engines.errors import EngineError, PackageError, VolumeError
from engines.example import Example, Expected
from engines.manifest_inputs import Moments
from engines.volume import Volume
from tests.engines import build
from tests.support.moments import LESION, SHAPE, array

WINDOW = {"kind": "window", "low": 0, "high": 1000}
TAKE = {"by": "time", "take": ["first", 2, "last"]}


def enhancing(channels: int = 3) -> bytes:
    """A network that marks where the last channel is brighter than the first by 0.15."""
    weights = np.zeros((2, channels, 1, 1, 1), np.float32)
    weights[1, [0, -1]] = [[[[-50]]], [[[50]]]]
    tensors = [
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.array([0, -50 * 0.15], np.float32), "b"),
    ]
    node = build.helper.make_node("Conv", ["image", "w", "b"], ["logits"])
    return build.serialised([node], tensors, classes=2, channels=channels)


def enhancing_over_time(patch: tuple[int, int, int] = (8, 16, 16)) -> bytes:
    """A network with an axis of time, (n, 1, 3, slices, rows, columns), that marks where it differs by 0.15 along it."""
    node = build.helper.make_node
    weights = np.array([0, 50], np.float32).reshape(2, 1, 1, 1, 1)
    tensors = [
        numpy_helper.from_array(np.array([0, 1, 3, *patch], np.int64), "shape"),
        numpy_helper.from_array(weights, "w"),
        numpy_helper.from_array(np.array([0, -50 * 0.15], np.float32), "b"),
    ]
    nodes = [
        node("Reshape", ["image", "shape"], ["times"]),
        node("ReduceMax", ["times"], ["highest"], axes=[2], keepdims=0),
        node("ReduceMin", ["times"], ["lowest"], axes=[2], keepdims=0),
        node("Sub", ["highest", "lowest"], ["range"]),
        node("Conv", ["range", "w", "b"], ["logits"]),
    ]
    return build.serialised(nodes, tensors, classes=2, shape=patch, channels=3)


def write(folder: Path, moments: dict[str, Any] | None = None, network: bytes = b"", **changes: Any) -> Path:
    """A package that marks what takes up contrast; `changes` are of its input, those of "manifest" of the rest."""
    more = changes.pop("manifest", {})
    entry = build.entry(moments=moments or TAKE, intensity=WINDOW, **changes)
    outputs = [{"name": "logits", "labels": [build.label(1, "lesion")]}]
    unit = {"value": "1", "scheme": "UCUM", "meaning": "no units"}
    measured = {
        "inputs": [entry],
        "outputs": outputs,
        "measurements": [build.measurement("mean", "mean", of=["lesion"], unit=unit)],
    }
    return build.write(folder, network or enhancing(), **measured | more)


def volume(*further: int) -> Volume:
    """The first moment, and those."""
    return replace(build.volume(array(0), unit="1"), further=tuple(map(array, further)))


@pytest.mark.parametrize(
    ("count", "keys", "expected"),
    [
        (4, {"count": 3}, (0, 1, 2)),
        (3, {"count": 3}, (0, 1, 2)),
        (5, {"take": ["first", 3, "last"]}, (0, 2, 4)),
        (4, {"take": ["last", 1]}, (3, 0)),
        (1, {"take": ["last"]}, (0,)),
    ],
)
def test_the_moments_that_are_seen(count: int, keys: dict[str, Any], expected: tuple[int, ...]) -> None:
    assert moments.chosen([None] * count, Moments.model_validate({"by": "time", **keys})) == expected


def test_moments_near_values_are_seen() -> None:
    entry = Moments.model_validate({"by": "b-value", "at": [800, 0], "within": 100})
    assert moments.chosen([0, 50, 400, 750, 1000], entry) == (3, 0)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0, 50, 400], "no volume of its own within 100 of b-value 800; it has 0, 50, 400"),
        ([400, 800], "no volume of its own within 100 of b-value 0; it has 400, 800"),
        ([None, None], "do not tell the b-value of each volume"),
        ([0], "the series has 1 volume by b-value; the model needs 2"),
    ],
)
def test_a_series_without_the_values_is_refused(values: list[float | None], said: str) -> None:
    entry = Moments.model_validate({"by": "b-value", "at": [0, 800], "within": 100})
    with pytest.raises(VolumeError) as caught:
        moments.chosen(values, entry)
    assert said in str(caught.value)


def test_two_values_are_not_one_volume() -> None:
    entry = Moments.model_validate({"by": "time", "at": [0, 60], "within": 100})
    with pytest.raises(VolumeError, match="no volume of its own within 100 of time 0; it has 40, 200"):
        moments.chosen([40, 200], entry)


@pytest.mark.parametrize(("keys", "least"), [({"count": 3}, 3), ({"take": ["first", 3, "last"]}, 4)])
def test_a_series_of_fewer_is_refused(keys: dict[str, Any], least: int) -> None:
    entry = Moments.model_validate({"by": "b-value", **keys})
    with pytest.raises(VolumeError) as caught:
        moments.chosen([None] * (least - 1), entry)
    assert f"has {least - 1} volumes by b-value; the model needs {least}, of which" in str(caught.value)
    assert len(moments.chosen([None] * least, entry)) == 3


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
@pytest.mark.parametrize("network", [enhancing(), enhancing_over_time()], ids=["channels", "an axis of time"])
def test_what_takes_up_contrast_is_marked_and_measured_in_the_first_moment(
    tmp_path: Path, engine: loader.Engine, network: bytes
) -> None:
    opened = package.open_package(write(tmp_path, network=network))
    with loader.open_runner(opened, engine=engine, threads=1) as runner:
        found = predict.predict(opened, runner, volume(1, 3))
    expected = np.zeros(SHAPE, np.uint8)
    expected[LESION] = 1
    np.testing.assert_array_equal(found.mask, expected)
    (mean,) = found.measurements
    assert mean.value == pytest.approx(array(0)[LESION].mean())


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"spacing_mm": [2, 1, 1]},
        {"orientation": "FAR", "scaled": "after", "spacing_mm": [2, 1, 1]},
        {
            "steps": [
                {"kind": "crop", "above": 100},
                {"kind": "median", "size": 3},
                {"kind": "pad", "multiple_of": [8, 8, 8]},
            ]
        },
        {"steps": [{"kind": "gaussian", "sigma_mm": 2}, {"kind": "crop", "above": 100}]},
        {"sampling": "nnunet", "spacing_mm": [2, 1, 1], "intensity": {"kind": "z-score"}},
        {"sampling": "nnunet", "intensity": {"kind": "z-score", "nonzero": "filled"}},
    ],
    ids=[
        "plain",
        "resampled",
        "turned",
        "cropped and padded",
        "cropped behind a filter",
        "splines",
        "within the body",
    ],
)
def test_a_moment_like_the_first_is_prepared_to_the_digit_like_the_first(changes: dict[str, Any]) -> None:
    entry = build.entry(**{"intensity": WINDOW, "moments": {"by": "time", "count": 2}} | changes)
    manifest = build.validated(inputs=[entry])
    one = volume()
    one.array[0] = 0
    seen = fusion.prepare(manifest, replace(one, further=(one.array.copy(),)), {})
    found = seen.arrays["image"]
    assert len(found) == 2 == manifest.channels["image"]
    np.testing.assert_array_equal(found[0], found[1])


def test_a_crop_looks_at_every_moment() -> None:
    # Given a first moment without what the crop looks for, and a later one that has it
    entry = build.entry(
        intensity=WINDOW,
        moments={"by": "time", "count": 2},
        steps=[{"kind": "crop", "above": 400, "margin": 0}],
    )
    seen = fusion.prepare(build.validated(inputs=[entry]), volume(3), {})
    # Then what is seen is the box of the lesion in both
    assert seen.arrays["image"].shape == (2, 2, 6, 10)
    np.testing.assert_allclose(seen.arrays["image"][1], array(3)[LESION] / 1000, atol=1e-6)


def test_channels_of_moments_and_of_another_series_stand_in_the_manifests_order() -> None:
    inputs = [
        build.entry(role="dce", intensity=WINDOW, moments={"by": "time", "count": 2}),
        build.entry(role="t2", intensity=WINDOW),
        build.entry(role="dwi", intensity=WINDOW, moments={"by": "b-value", "take": ["last", "first"]}),
    ]
    frame = replace(volume().geometry, frame_of_reference_uid="1.2.3")
    others = {
        "t2": replace(build.volume(array(2)), geometry=frame),
        "dwi": replace(build.volume(array(4)), geometry=frame, further=(array(5),)),
    }
    found = fusion.prepare(build.validated(inputs=inputs), replace(volume(1), geometry=frame), others).arrays[
        "image"
    ]
    inside = [channel[LESION].mean() * 1000 - array(0)[LESION].mean() for channel in found]
    np.testing.assert_allclose(inside, [0, 100, 200, 400, 500], atol=0.01)


def test_a_constant_moment_is_refused() -> None:
    manifest = build.validated(inputs=[build.entry(intensity=WINDOW, moments={"by": "time", "count": 2})])
    empty = replace(volume(), further=(np.zeros(SHAPE, np.int16),))
    with pytest.raises(VolumeError, match="moment 2 of the 2 that are looked at: every voxel"):
        fusion.prepare(manifest, empty, {})


def test_an_example_without_the_moments_is_refused() -> None:
    manifest = build.validated(inputs=[build.entry(intensity=WINDOW, moments=TAKE)])
    with pytest.raises(VolumeError, match="there is 1 of the 3 moments that the model looks at"):
        fusion.prepare(manifest, volume(), {})


def test_an_example_keeps_its_moments(tmp_path: Path) -> None:
    opened = package.open_package(write(tmp_path))
    example.write(opened.folder, Example(volumes={"image": volume(1, 3)}, expected=Expected()))
    kept = example.read(opened.folder, opened.manifest)
    assert kept is not None
    for found, moment in zip(kept.volumes["image"].further, (1, 3), strict=True):
        np.testing.assert_array_equal(found, array(moment))


@pytest.mark.parametrize(
    ("moments", "said"),
    [
        ({"by": "time"}, "give one of count, take and at"),
        ({"by": "time", "count": 2, "take": ["first"]}, "give one of count, take and at"),
        ({"by": "time", "at": [0, 60]}, "within goes with at"),
        ({"by": "time", "count": 2, "within": 3}, "within goes with at"),
        ({"by": "time", "at": [0, 0], "within": 3}, "at: one of them is named twice"),
        ({"by": "time", "take": ["first", 1]}, "one of them is named twice"),
        ({"by": "time", "take": [0]}, "moments.take[0]"),
        ({"by": "colour", "count": 2}, "moments.by"),
        ({"by": "time", "count": 65}, "moments.count"),
    ],
)
def test_moments_that_cannot_be_meant_are_refused(tmp_path: Path, moments: dict[str, Any], said: str) -> None:
    with pytest.raises(PackageError) as caught:
        package.open_package(write(tmp_path, moments))
    assert said in str(caught.value)


def test_single_images_have_no_moments(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="moments says nothing where planar is true"):
        package.open_package(write(tmp_path, planar=True))


def test_a_network_of_another_number_of_channels_is_refused(tmp_path: Path) -> None:
    opened = package.open_package(write(tmp_path, {"by": "time", "count": 2}))
    said = r"the manifest's inputs and patch make \(n, 2, 8, 16, 16\)"
    with (
        loader.open_runner(opened, engine="onnxruntime", threads=1) as runner,
        pytest.raises(EngineError, match=said),
    ):
        predict.predict(opened, runner, volume(1))


def test_models_of_a_cascade_look_at_the_same_moments_or_at_the_first(tmp_path: Path) -> None:
    def fits(name: str, moments: dict[str, Any] | None, network: bytes) -> str:
        entry = build.entry(intensity=WINDOW) | ({"moments": moments} if moments else {})
        outputs = [{"name": "logits", "labels": [build.label(1, "lesion")]}]
        path = build.write(tmp_path / name, network, name=name, inputs=[entry], outputs=outputs)
        earlier = package.open_package(path)
        after = {"model": name, "digest": earlier.digest, "use": {"kind": "crop", "labels": ["lesion"]}}
        later = package.open_package(write(tmp_path / f"after-{name}", manifest={"after": [after]}))
        _, problems = lineage.complete([earlier, later])
        return " ".join(map(str, problems.values()))

    assert fits("alike", TAKE, enhancing()) == ""
    assert fits("of-the-first", None, build.thresholds((0.25,))) == ""
    said = fits("unlike", {"by": "time", "count": 3}, enhancing())
    assert "unlike looks at other moments than" in said
