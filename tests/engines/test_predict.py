"""A whole prediction: the same anatomy is found whatever way it was scanned, and bad cases are refused."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import loader, package, predict
from engines.errors import OutputError, VolumeError
from engines.findings import Findings
from engines.testing import ThresholdRunner, threshold_runner
from engines.volume import Volume
from tests.engines import build
from tests.support import phantoms

#: All ways in which an array's axes can run through a patient.
ORIENTATIONS = [
    "".join(letters)
    for pairs in itertools.permutations(("LR", "PA", "HF"))
    for letters in itertools.product(*pairs)
]
SHAPE = (24, 48, 40)
#: In the normalised window, for 200 and 600 HU.
THRESHOLDS = (0.6, 0.8)


def _package(folder: Path, **changes: Any) -> package.ModelPackage:
    """Two labels, measured, on a grid that no axis of the phantom divides evenly."""
    settings: dict[str, Any] = {
        "inputs": [build.entry(spacing_mm=[3.1, 1.7, 1.3])],
        "measurements": [
            build.measurement("v", "volume", of=["label1", "label2"]),
            build.measurement("m", "mean", of=["label1", "label2"]),
        ],
    }
    weights = build.thresholds(THRESHOLDS)
    return package.open_package(build.write(folder, weights, **(settings | changes)))


def _phantom() -> Volume:
    return build.volume(phantoms.asymmetric(SHAPE))


def _predicted(opened: package.ModelPackage, volume: Volume, **more: Any) -> Findings:
    with threshold_runner(opened, THRESHOLDS) as runner:
        return predict.predict(opened, runner, volume, **more)


def _scanned(volume: Volume, orientation: str) -> Volume:
    """The same patient scanned another way: other memory order, other geometry, same places."""
    turned = volume.reoriented(orientation)
    return Volume(array=np.ascontiguousarray(turned.array), geometry=turned.geometry, unit=volume.unit)


def test_there_are_48_orientations() -> None:
    assert len(set(ORIENTATIONS)) == 48


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_the_same_anatomy_is_found_whatever_way_it_was_scanned(tmp_path: Path, orientation: str) -> None:
    # Given an asymmetric phantom and the same one scanned along other axes
    opened = _package(tmp_path)
    volume = _phantom()
    scanned = _scanned(volume, orientation)
    assert scanned.geometry.orientation == orientation
    # When both are analysed
    expected, found = _predicted(opened, volume), _predicted(opened, scanned)
    # Then the mask lies on the scan's own grid, and on the same voxels of the patient
    assert found.geometry is scanned.geometry
    back = Volume(array=found.mask, geometry=scanned.geometry).reoriented("HPL")
    np.testing.assert_array_equal(back.array, expected.mask)
    assert back.geometry.agrees_with(volume.geometry)
    assert set(np.unique(expected.mask)) == {0, 1, 2}
    values = [one.value for one in expected.measurements]
    assert [one.value for one in found.measurements] == pytest.approx(values, rel=1e-9)


@pytest.mark.parametrize("orientation", ["HPL", "LPH", "FAR", "PLF"])
def test_the_models_own_orientation_does_not_move_the_answer(tmp_path: Path, orientation: str) -> None:
    spacing = dict(zip("HFPALR", (3.1, 3.1, 1.7, 1.7, 1.3, 1.3), strict=True))
    entry = build.entry(orientation=orientation, spacing_mm=[spacing[letter] for letter in orientation])
    found = _predicted(_package(tmp_path / "a", inputs=[entry]), _phantom())
    expected = _predicted(_package(tmp_path / "b"), _phantom())
    # The axes are averaged in another order, so a voxel on the very threshold may tip over.
    assert np.mean(found.mask != expected.mask) < 1e-3


def test_as_acquired_the_mask_is_the_threshold_itself(tmp_path: Path) -> None:
    volume = _phantom()
    found = _predicted(_package(tmp_path, inputs=[build.entry()]), volume)
    np.testing.assert_array_equal(found.mask, np.digitize(volume.array, [200, 600]))


def test_resampled_the_mask_keeps_size_and_place(tmp_path: Path) -> None:
    # Given an egg of 1000 in a background of -600, so that the first threshold lies halfway
    index = np.moveaxis(np.indices(SHAPE), 0, -1)
    expected = (((index - (11.3, 20.2, 22.7)) / (8, 15, 12)) ** 2).sum(axis=-1) < 1
    volume = build.volume(np.where(expected, 1000, -600).astype(np.int16))
    # When it is thresholded on a grid twice as coarse
    found = _predicted(_package(tmp_path), volume).mask >= 1
    # Then only its faces differ, and there is no half voxel of shift: the centres of gravity agree
    assert 2 * (found & expected).sum() / (found.sum() + expected.sum()) > 0.9
    centres = [np.argwhere(one).mean(axis=0) * volume.geometry.spacing for one in (found, expected)]
    assert np.abs(centres[0] - centres[1]).max() < 0.15


@pytest.mark.parametrize("engine", ["openvino", "onnxruntime"])
def test_a_real_network_gives_the_fakes_answer(tmp_path: Path, engine: loader.Engine) -> None:
    opened = _package(tmp_path)
    with loader.open_runner(opened, engine=engine, threads=1) as runner:
        found = predict.predict(opened, runner, _phantom())
    assert found.engine.startswith(engine)
    assert np.mean(found.mask != _predicted(opened, _phantom()).mask) < 1e-4


def test_the_answer_is_complete(tmp_path: Path) -> None:
    seen: list[float] = []
    opened = _package(
        tmp_path,
        findings=[{"key": "big", "code": build.code("1", "Big"), "measurement": "v", "above": 1000}],
    )
    found = _predicted(opened, _phantom(), progress=seen.append)
    assert found.model == opened.identity
    assert found.segments == opened.segments
    assert found.engine == "threshold CPU float32"
    assert set(found.seconds) == {"preprocess", "infer", "postprocess", "measure"}
    assert all(seconds > 0 for seconds in found.seconds.values())
    assert seen == sorted(seen) and seen[-1] == 1.0
    assert [finding.present for finding in found.findings] == [False]
    assert found.mask.flags.c_contiguous


def test_threads_do_not_change_the_answer(tmp_path: Path) -> None:
    opened = _package(tmp_path)
    one, three = (_predicted(opened, _phantom(), threads=threads) for threads in (1, 3))
    np.testing.assert_array_equal(one.mask, three.mask)
    assert one.measurements == three.measurements


def test_only_the_largest_component_of_a_label_that_asks_for_it(tmp_path: Path) -> None:
    array = phantoms.asymmetric(SHAPE)
    array[-3:-1, -4:-2, -5:-2] = 400
    labels = [build.label(1, "label1", keep_largest=True), build.label(2, "label2")]
    outputs = [{"name": "logits", "labels": labels}]
    opened = _package(tmp_path, inputs=[build.entry()], outputs=outputs)
    mask = _predicted(opened, build.volume(array)).mask
    expected = _predicted(opened, _phantom()).mask
    np.testing.assert_array_equal(mask, expected)


def test_a_volume_smaller_than_the_patch(tmp_path: Path) -> None:
    array = phantoms.asymmetric((6, 11, 9))
    opened = _package(tmp_path, inputs=[build.entry()])
    mask = _predicted(opened, build.volume(array)).mask
    np.testing.assert_array_equal(mask, np.digitize(array, [200, 600]))


@pytest.mark.parametrize("dtype", [np.int16, np.uint16, np.float32, np.float64, np.int32])
def test_any_kind_of_number(tmp_path: Path, dtype: Any) -> None:
    array = phantoms.asymmetric(SHAPE) + 1000
    intensity = {"kind": "window", "low": 0, "high": 2000}
    opened = _package(tmp_path, inputs=[build.entry(intensity=intensity)])
    mask = _predicted(opened, build.volume(array.astype(dtype))).mask
    np.testing.assert_array_equal(mask, np.digitize(array, [1200, 1600]))


@pytest.mark.parametrize(
    ("array", "complaint"),
    [
        (np.zeros(SHAPE, np.int16), "same value"),
        (np.full(SHAPE, np.nan), "not finite"),
        (phantoms.asymmetric((12, 32, 40))[:1], "at least 2"),
    ],
)
def test_a_volume_that_cannot_be_used_is_refused(tmp_path: Path, array: NDArray[Any], complaint: str) -> None:
    with pytest.raises(VolumeError, match=complaint):
        _predicted(_package(tmp_path), build.volume(array))


def test_a_volume_in_another_unit_is_refused(tmp_path: Path) -> None:
    volume = _phantom()
    other = Volume(array=volume.array, geometry=volume.geometry, unit="1")
    with pytest.raises(VolumeError, match="values are in 1"):
        _predicted(_package(tmp_path), other)


@pytest.mark.parametrize(
    ("runner", "complaint"),
    [
        (ThresholdRunner(THRESHOLDS, input_name="other"), 'has the inputs .*other.*names "image" alone'),
        (ThresholdRunner(THRESHOLDS, output_name="other"), 'has the outputs .*other.*names "logits"'),
        (ThresholdRunner((0.1, 0.2, 0.3)), r"need \(1, 3, slices, rows, columns\)"),
    ],
)
def test_a_network_that_is_not_the_manifests_is_refused(
    tmp_path: Path, runner: ThresholdRunner, complaint: str
) -> None:
    with runner, pytest.raises(OutputError, match=complaint):
        predict.predict(_package(tmp_path), runner, _phantom())


def test_an_answer_of_nan_is_refused(tmp_path: Path) -> None:
    opened = _package(tmp_path)
    with threshold_runner(opened, THRESHOLDS) as runner:
        runner._sums = runner._sums * np.float32(np.nan)
        with pytest.raises(OutputError, match="not finite"):
            predict.predict(opened, runner, _phantom())


@pytest.mark.parametrize("orientation", ["HPL", "LPH", "FAR", "PLF"])
def test_probabilities_lie_where_the_mask_lies(tmp_path: Path, orientation: str) -> None:
    # Given a model that gives the probability of its second label, and a phantom scanned in some way
    labels = [build.label(1, "label1"), build.label(2, "label2", probability=True)]
    opened = _package(tmp_path, outputs=[{"name": "logits", "labels": labels}])
    found = _predicted(opened, _scanned(_phantom(), orientation))
    # Then there is one map, and where it is more probable than not, the mask has the label
    [item] = found.maps
    assert (item.key, item.name.meaning, item.segment_number) == ("label2", "Probability", 2)
    assert item.array.flags.c_contiguous and 0 <= item.array.min() < item.array.max() <= 1
    np.testing.assert_array_equal(found.mask[item.array > 0.5], 2)
    assert not (found.mask[item.array < 1 / 3] == 2).any()
    assert (found.mask == 2).any()
