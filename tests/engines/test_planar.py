"""Models of single images: what their manifest must say, and what they answer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from engines import loader, overlay, package, predict
from engines.errors import PackageError, VolumeError
from engines.findings import Findings
from engines.testing import threshold_runner
from engines.volume import Geometry, Scale, Volume
from tests.engines import build
from tests.support import planar

MM2 = {"value": "mm2", "scheme": "UCUM", "meaning": "square millimeter"}
NONE = {"value": "1", "scheme": "UCUM", "meaning": "no units"}
#: In the normalised window of 0 to 250: the block and its arm, and the arm.
THRESHOLDS = (0.6, 0.9)
SPACING = (0.2, 0.25)


def _changes(**changes: Any) -> dict[str, Any]:
    """What a manifest of a planar model says otherwise than that of volumes."""
    entry = {"planar": True, "intensity": {"kind": "window", "low": 0, "high": 250}}
    return {
        "inputs": [build.entry(**entry | changes.pop("entry", {}))],
        "tiling": {"patch": [1, 32, 32], "mirror_axes": [2]},
        "measurements": [
            build.measurement("a", "area", of=["label1", "label2"], combined=True, unit=MM2),
            build.measurement("v", "volume", of=["label1"]),
            build.measurement("m", "mean", of=["label1"], unit=NONE),
        ],
        "findings": [
            {"key": "large", "code": build.code("18720000", "Large"), "measurement": "a", "above": 1}
        ],
    } | changes


def _package(folder: Path, **changes: Any) -> package.ModelPackage:
    return package.open_package(build.write(folder, build.thresholds(THRESHOLDS), **_changes(**changes)))


def _image(scale: Scale = Scale.PLANE, array: NDArray[Any] | None = None) -> Volume:
    """The marker as a radiograph: no place in the patient."""
    values = planar.marker() if array is None else array
    affine = np.zeros((4, 4))
    affine[[0, 1, 2, 3], [2, 1, 0, 3]] = (1, 1, 1, 1)
    if scale is not Scale.NONE:
        affine[1, 1], affine[0, 2] = SPACING
    shape = (1, values.shape[0], values.shape[1])
    geometry = Geometry(shape=shape, affine=affine, in_patient=False, scale=scale)
    return Volume(array=values[None].astype(np.int16), geometry=geometry)


def _predicted(opened: package.ModelPackage, volume: Volume) -> Findings:
    with threshold_runner(opened, THRESHOLDS) as runner:
        return predict.predict(opened, runner, volume)


BLOCK, ARM = planar.marker() == 180, planar.marker() == 250


def test_the_mask_lies_on_the_image_s_own_pixels(tmp_path: Path) -> None:
    found = _predicted(_package(tmp_path), _image())
    assert found.mask.shape == (1, planar.ROWS, planar.COLUMNS)
    np.testing.assert_array_equal(found.mask[0], BLOCK + 2 * ARM)


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_real_engines_find_the_same(engine: str, tmp_path: Path) -> None:
    opened = _package(tmp_path)
    runner = loader.open_runner(opened, engine=engine)
    np.testing.assert_array_equal(predict.predict(opened, runner, _image()).mask[0], BLOCK + 2 * ARM)
    runner.close()


def test_an_area_is_that_of_the_pixels(tmp_path: Path) -> None:
    found = _predicted(_package(tmp_path), _image())
    pixel = SPACING[0] * SPACING[1]
    values = {(one.key, one.segment_number): one.value for one in found.measurements}
    assert values == pytest.approx({
        ("a", 1): BLOCK.sum() * pixel,
        ("a", 2): ARM.sum() * pixel,
        ("a", None): (BLOCK.sum() + ARM.sum()) * pixel,
        ("m", 1): 180,
    })  # fmt: skip
    assert found.impossible == (
        "Volume (milliliter) cannot be measured: a single image has no known thickness",
    )
    assert [finding.present for finding in found.findings] == [True]


def test_without_a_size_there_is_no_number_and_no_statement(tmp_path: Path) -> None:
    found = _predicted(_package(tmp_path), _image(Scale.NONE))
    assert [one.key for one in found.measurements] == ["m"]
    assert len(found.impossible) == 2
    assert "does not say how large its pixels are" in found.impossible[0]
    # A rule about a number that does not exist must not read as a negative finding
    assert found.findings == ()


def test_a_slice_of_known_thickness_has_a_volume(tmp_path: Path) -> None:
    volume = build.volume(planar.marker()[None].astype(np.int16), unit="1")
    found = _predicted(_package(tmp_path), volume)
    assert found.impossible == ()
    [millilitres] = [one.value for one in found.measurements if one.key == "v"]
    assert millilitres == pytest.approx(BLOCK.sum() * 2.5 * 0.8 * 0.7 / 1000)


def test_a_slice_is_taken_as_it_was_acquired_however_it_lies(tmp_path: Path) -> None:
    # A sagittal slice: in the patient's axes its one slice would be the last axis
    volume = build.volume(planar.marker()[None].astype(np.int16), unit="1")
    affine = volume.geometry.affine[[2, 0, 1, 3]]
    turned = replace(volume, geometry=replace(volume.geometry, affine=affine))
    assert turned.geometry.orientation != volume.geometry.orientation
    opened = _package(tmp_path)
    np.testing.assert_array_equal(_predicted(opened, turned).mask, _predicted(opened, volume).mask)


@pytest.mark.parametrize(
    ("entry", "shape"),
    [({"size": [31, 42]}, (31, 42)), ({"size": [64, 64]}, (64, 64)), ({"spacing_mm": [0.4, 0.5]}, (31, 42))],
)
def test_the_image_is_brought_to_the_model_s_pixels_and_the_mask_back(
    entry: dict[str, Any], shape: tuple[int, int], tmp_path: Path
) -> None:
    opened = _package(tmp_path, entry=entry, tiling={"patch": [1, *shape], "overlap": 0})
    with threshold_runner(opened, THRESHOLDS) as runner:
        found = predict.predict(opened, runner, _image())
        # One window: the whole image has the network's shape
        assert runner.calls == 1
    wanted = BLOCK | ARM
    differing = np.count_nonzero((found.mask[0] > 0) != wanted)
    assert differing < 0.25 * wanted.sum()
    inside = np.argwhere(found.mask[0] > 0).mean(axis=0) - np.argwhere(wanted).mean(axis=0)
    np.testing.assert_allclose(inside, 0, atol=0.6)


def test_a_model_that_must_know_the_size_refuses_an_image_without(tmp_path: Path) -> None:
    opened = _package(tmp_path, entry={"spacing_mm": [0.4, 0.5]})
    with pytest.raises(VolumeError, match="does not say how large its pixels are"):
        _predicted(opened, _image(Scale.NONE))


def test_a_planar_model_refuses_a_stack_and_another_model_a_single_image(tmp_path: Path) -> None:
    stack = build.volume(np.repeat(planar.marker()[None], 3, axis=0).astype(np.int16), unit="1")
    with pytest.raises(VolumeError, match="3 slices; the model takes single images"):
        _predicted(_package(tmp_path / "planar"), stack)
    other = package.open_package(build.write(tmp_path / "other", build.thresholds(THRESHOLDS)))
    with pytest.raises(VolumeError, match="1 slices; the model needs at least 2"):
        _predicted(other, _image())


def test_an_image_without_a_patient_cannot_be_turned_in_it() -> None:
    with pytest.raises(VolumeError, match="no place in the patient"):
        _image().reoriented("HPL")
    with pytest.raises(VolumeError, match="no volume"):
        Geometry(shape=(2, 3, 4), affine=np.eye(4), scale=Scale.PLANE)


def test_a_picture_of_it_has_its_aspect() -> None:
    image = _image(array=planar.marker()[:, :62])
    assert image.geometry.shape == (1, 62, 62)
    assert overlay.picture_shape(image.geometry, 500) == (400, 500)
    assert overlay.picture_shape(_image(Scale.NONE, planar.marker()[:, :62]).geometry, 500) == (500, 500)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"entry": {"orientation": "HPL"}}, "orientation says nothing where planar is true"),
        ({"entry": {"min_slices": 1}}, "min_slices says nothing where planar is true"),
        ({"entry": {"spacing_mm": [1, 1, 1]}}, "spacing_mm has 2 numbers where planar is true"),
        ({"entry": {"spacing_mm": [1, 1], "size": [9, 9]}}, "spacing_mm or size, not both"),
        ({"entry": {"planar": False, "size": [9, 9]}}, "size has 3 numbers where planar is false"),
        (
            {"entry": {"planar": False, "spacing_mm": [1, 1]}},
            "spacing_mm has 3 numbers where planar is false",
        ),
        ({"entry": {"planar": False}}, "measurements.a: an area is of one slice"),
        ({"tiling": {"patch": [8, 32, 32]}}, "a patch of one slice"),
        ({"tiling": {"patch": [1, 32, 32], "mirror_axes": [0]}}, "mirrored along axes 1 and 2 only"),
        (
            {"outputs": [{"name": "logits", "labels": [build.label(1, "label1", min_component_ml=1)]}]},
            "labels.label1: a planar image has no volume",
        ),
        (
            {"measurements": [build.measurement("a", "area", unit=build.ML)], "findings": []},
            'area cannot be given in "mL": use cm2 or mm2',
        ),
    ],
)
def test_what_a_manifest_may_not_say(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(PackageError) as caught:
        _package(tmp_path, **changes)
    assert words in str(caught.value)
