"""Detectors: boxes of any number, from windows to the source's own grid, and a statement for each class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import loader, package, predict
from engines.errors import EngineError, PackageError
from engines.findings import Box, Findings
from engines.volume import Volume
from tests.engines import build, nets
from tests.engines.test_predict import ORIENTATIONS

ENGINES = loader.ON_THE_CPU
SHAPE = (20, 24, 28)
TILING = {"patch": [12, 16, 16], "overlap": 0.5}
#: Bright voxels and their scores.
SPOTS = {(3, 5, 20): 0.95, (15, 18, 4): 0.85}
REACH = (1.5, 2.5, 3.5)
ROWS = {"boxes": "boxes", "scores": "scores", "class_numbers": "labels", "axis_order": "zyx"}


def _volume(spots: dict[tuple[int, int, int], float] = SPOTS, shape: tuple[int, int, int] = SHAPE) -> Volume:
    array = np.full(shape, -1000, np.int16)
    array[0, 0, 0] = -900
    for place, score in spots.items():
        array[place] = round(score * 2000 - 1000)
    return build.volume(array)


def _package(folder: Path, network: bytes, **changes: Any) -> package.ModelPackage:
    output = {"classes": [nets.one_class("nodule", 0)]} | ROWS | changes.pop("output", {})
    settings = {"task": "detection", "outputs": [output], "tiling": TILING, "results": ["sr"]}
    return package.open_package(build.write(folder, network, **(settings | changes)))


def _predicted(
    opened: package.ModelPackage, volume: Volume, engine: loader.Engine = "onnxruntime"
) -> Findings:
    with loader.open_runner(opened, engine=engine, threads=1) as runner:
        return predict.predict(opened, runner, volume)


def _around(place: tuple[int, int, int], reach: tuple[float, ...] = REACH) -> NDArray[np.float64]:
    """The faces of the box around a voxel, cut off at those of the image."""
    faces = np.array([np.subtract(place, reach), np.add(place, reach)])
    return np.clip(faces, -0.5, np.array(SHAPE) - 0.5)


def _ends(box: Box) -> NDArray[np.float64]:
    return np.array([box.low, box.high])


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("mirror_axes", [[], [0, 2]])
def test_a_thing_that_several_windows_see_is_found_once(
    mirror_axes: list[int], engine: loader.Engine, tmp_path: Path
) -> None:
    opened = _package(tmp_path, nets.bright_spots(0.5, REACH), tiling=TILING | {"mirror_axes": mirror_axes})
    found = _predicted(opened, _volume(), engine)
    assert [box.score for box in found.boxes] == pytest.approx([0.95, 0.85], abs=1e-4)
    for box, place in zip(found.boxes, SPOTS, strict=True):
        np.testing.assert_allclose(_ends(box), _around(place))
        assert (box.key, box.label, box.code.meaning) == ("nodule", "Nodule", "Nodule")
    [measurement], [finding] = found.measurements, found.findings
    assert (measurement.key, measurement.name.meaning) == ("nodule", "Probability")
    assert measurement.value == found.boxes[0].score and measurement.about == found.boxes[0].code
    assert finding.present
    assert finding.explanation == "Nodule: 2 found, highest probability 0.95 (threshold 0.5)"


@pytest.mark.parametrize("engine", ENGINES)
def test_nothing_found_is_a_statement_too(engine: loader.Engine, tmp_path: Path) -> None:
    opened = _package(tmp_path, nets.bright_spots(0.5, REACH))
    found = _predicted(opened, _volume({}), engine)
    assert found.boxes == ()
    assert [one.value for one in found.measurements] == [0.0]
    [finding] = found.findings
    assert not finding.present
    assert finding.explanation == "Nodule: none found, highest probability 0 (threshold 0.5)"


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_boxes_lie_in_the_patient_however_it_was_scanned(tmp_path: Path, orientation: str) -> None:
    volume = _volume()
    turned = volume.reoriented(orientation)
    scanned = Volume(array=np.ascontiguousarray(turned.array), geometry=turned.geometry, unit=volume.unit)
    found = _predicted(_package(tmp_path, nets.bright_spots(0.5, REACH)), scanned)
    for box, place in zip(found.boxes, SPOTS, strict=True):
        ends = scanned.geometry.to_patient(_ends(box))
        expected = volume.geometry.to_patient(_around(place))
        np.testing.assert_allclose(np.sort(ends, axis=0), np.sort(expected, axis=0), atol=1e-4)


def test_boxes_of_a_coarser_grid_are_brought_to_the_source_s(tmp_path: Path) -> None:
    # Given blocks that one voxel of the model's grid holds each
    array = np.full((20, 24, 28), -1000, np.int16)
    array[4:6, 8:10, 20:22] = 900
    entry = build.entry(spacing_mm=[5, 1.6, 1.4])
    opened = _package(tmp_path, nets.bright_spots(0.5, (0.5, 0.5, 0.5)), inputs=[entry])
    [box] = _predicted(opened, build.volume(array)).boxes
    np.testing.assert_allclose(_ends(box), [(3.5, 7.5, 19.5), (5.5, 9.5, 21.5)], atol=1e-4)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_score_for_each_class_in_place_of_class_numbers(engine: loader.Engine, tmp_path: Path) -> None:
    # Given a network that says of each box how probable the classes 0 and 1 are, the one or the other
    classes = [nets.one_class("first", 0), nets.one_class("second", 1, threshold=0.1)]
    output = {"class_numbers": None, "classes": classes}
    opened = _package(tmp_path, nets.bright_spots(0.5, REACH, class_number=None), output=output)
    found = _predicted(opened, _volume(), engine)
    scores = [(box.key, round(box.score, 2)) for box in found.boxes]
    assert scores == [("first", 0.95), ("first", 0.85), ("second", 0.15)]
    assert [one.value for one in found.measurements] == pytest.approx([0.95, 0.15], abs=1e-3)
    # Then the second class's box below its threshold is none
    assert [finding.explanation.split(",")[0] for finding in found.findings] == [
        "First: 2 found",
        "Second: 1 found",
    ]


def test_a_network_without_slices_finds_boxes_on_each(tmp_path: Path) -> None:
    network = nets.bright_spots(0.5, (2.5, 1.5))
    opened = _package(tmp_path, network, tiling={"patch": [1, 16, 16], "overlap": 0.25})
    found = _predicted(opened, _volume(), "openvino")
    assert len(found.boxes) == 2
    for box, place in zip(found.boxes, SPOTS, strict=True):
        np.testing.assert_allclose(_ends(box), _around(place, (0.5, 2.5, 1.5)))


def test_a_class_that_the_manifest_does_not_list_is_no_finding(tmp_path: Path) -> None:
    found = _predicted(_package(tmp_path, nets.bright_spots(0.5, REACH, class_number=7)), _volume())
    assert found.boxes == () and not found.findings[0].present


def test_no_more_boxes_than_the_manifest_wants(tmp_path: Path) -> None:
    spots = {
        (1, 2 + 4 * row, 2 + 4 * column): 0.6 + 0.01 * (row + column)
        for row in range(5)
        for column in range(6)
    }
    opened = _package(tmp_path, nets.bright_spots(0.5, (0.5, 0.5, 0.5)), output={"most": 7})
    found = _predicted(opened, _volume(spots))
    assert len(found.boxes) == 7
    assert [round(box.score, 2) for box in found.boxes] == [0.69, 0.68, 0.68, 0.67, 0.67, 0.67, 0.66]


def test_an_image_smaller_than_the_patch(tmp_path: Path) -> None:
    opened = _package(tmp_path, nets.bright_spots(0.5, REACH))
    found = _predicted(opened, _volume({(2, 3, 4): 0.9}, (5, 8, 9)))
    [box] = found.boxes
    np.testing.assert_allclose(_ends(box), [(0.5, 0.5, 0.5), (3.5, 5.5, 7.5)])


def test_empty_windows_hold_nothing(tmp_path: Path) -> None:
    # Given a network that would find something in every window
    opened = _package(
        tmp_path / "a", nets.bright_spots(-1, REACH), output={"classes": [nets.one_class("n", threshold=0)]}
    )
    skipping = _package(
        tmp_path / "b",
        nets.bright_spots(-1, REACH),
        output={"classes": [nets.one_class("n", threshold=0)]},
        tiling=TILING | {"skip_at_most": 0.1},
    )
    place = (3, 5, 26)
    everywhere, here = (_predicted(one, _volume({place: 0.9})).boxes for one in (opened, skipping))
    assert min(box.high[2] for box in everywhere) < 8
    assert here and min(box.high[2] for box in here) > 8


@pytest.mark.parametrize(
    ("network", "changes", "complaint"),
    [
        (
            nets.bright_spots(0.5, (1, 1)),
            {},
            r"network\'s input is image: float32 \(.*make \(n, 1, 12, 16, 16\)",
        ),
        (
            nets.bright_spots(0.5, REACH),
            {"tiling": {"patch": [1, 16, 16]}},
            r'output "boxes" has shape \(None, 6\); boxes of a patch of one slice need \(boxes, 4\)',
        ),
        (
            nets.bright_spots(0.5, REACH),
            {"output": {"class_numbers": None}},
            r'output "scores" has shape \(None,\); beside boxes \(None, 6\) it needs \(boxes, classes\)',
        ),
        (
            nets.bright_spots(0.5, REACH, class_number=None),
            {"output": {"class_numbers": None, "classes": [nets.one_class("n", 2)]}},
            r'n \(2\) is beyond the 2 classes of output "scores"',
        ),
        (nets.bright_spots(0.5, REACH), {"output": {"class_numbers": "kinds"}}, 'the manifest names "kinds"'),
        (nets.bright_spots(0.5, (1, -1, 1)), {}, r'output "boxes" holds boxes that end before they begin'),
        (
            nets.bright_spots(0.5, (1, np.nan, 1)),
            {},
            r'output "boxes" holds boxes whose numbers are not finite',
        ),
    ],
)
def test_an_answer_that_cannot_be_one_is_refused(
    network: bytes, changes: dict[str, Any], complaint: str, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=complaint):
        _predicted(_package(tmp_path, network, **changes), _volume())


def test_softmax_needs_scores_of_each_class(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="softmax goes with scores of each class"):
        _package(tmp_path, nets.bright_spots(0.5, REACH), output={"activation": "softmax"})


@pytest.mark.parametrize("sampling", ["box", "first-voxel"])
def test_a_crop_and_a_pad_leave_boxes_where_they_were(sampling: str, tmp_path: Path) -> None:
    # Given spots in a block of tissue that is cropped to, on a padded grid of the source's own voxels
    volume = _volume()
    volume.array[2:18, 4:22, 3:25] = np.maximum(volume.array[2:18, 4:22, 3:25], -600)
    entry = build.entry(
        sampling=sampling,
        spacing_mm=[2.5, 0.8, 0.7],
        steps=[{"kind": "crop", "above": -700}, {"kind": "pad", "at_least": [30, 30, 30], "value": 0}],
    )
    found = _predicted(_package(tmp_path, nets.bright_spots(0.5, REACH), inputs=[entry]), volume)
    assert len(found.boxes) == 2
    for box, place in zip(found.boxes, SPOTS, strict=True):
        np.testing.assert_allclose(_ends(box), _around(place), atol=1e-4)
