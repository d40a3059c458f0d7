"""A crop leaves background away and is undone exactly, however the volume lies in the patient."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.ndimage
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines import crop, package, predict, preprocess
from engines.errors import PackageError, VolumeError
from engines.manifest_inputs import Input
from engines.manifest_steps import Crop
from engines.testing import threshold_runner
from engines.volume import Volume
from tests.engines import build
from tests.support import phantoms

ORIENTATIONS = [
    "".join(letters)
    for pairs in itertools.permutations(("LR", "PA", "HF"))
    for letters in itertools.product(*pairs)
]
#: In the normalised window, for 200 and 600 HU.
THRESHOLDS = (0.6, 0.8)


def _crop(**changes: Any) -> Crop:
    return Crop.model_validate({"kind": "crop"} | changes)


def _input(**changes: Any) -> Input:
    return Input.model_validate(build.entry(**changes))


def _phantom() -> Volume:
    return build.volume(phantoms.asymmetric((24, 48, 40)))


def _scanned(volume: Volume, orientation: str) -> Volume:
    """The same patient scanned another way: other memory order, other geometry, same places."""
    turned = volume.reoriented(orientation)
    return Volume(array=np.ascontiguousarray(turned.array), geometry=turned.geometry, unit=volume.unit)


def _mask(folder: Path, volume: Volume, **entry: Any) -> NDArray[Any]:
    """The label map of a network that thresholds each voxel."""
    written = build.write(folder, build.thresholds(THRESHOLDS), inputs=[build.entry(**entry)])
    opened = package.open_package(written)
    with threshold_runner(opened, THRESHOLDS) as runner:
        return predict.predict(opened, runner, volume).mask


def _box_of_nnunet(arrays: list[NDArray[Any]]) -> list[tuple[int, int]]:
    """nnU-Net's box: of the voxels that are not zero in any channel, after its holes are filled."""
    there = scipy.ndimage.binary_fill_holes(np.logical_or.reduce([array != 0 for array in arrays]))
    (found,) = scipy.ndimage.find_objects(there.astype(np.uint8))
    return [(part.start, part.stop) for part in found]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.tuples(*[st.integers(1, 21)] * 3), st.integers(1, 3))
def test_the_box_is_that_of_nnunet(seed: int, shape: tuple[int, int, int], channels: int) -> None:
    rng = np.random.default_rng(seed)
    arrays = [np.where(rng.random(shape) < 0.02, rng.integers(-5, 5, shape), 0) for _ in range(channels)]
    arrays[0][tuple(rng.integers(0, shape))] = -3
    for threads in (1, 3):
        found = crop.region(arrays, _crop(), threads=threads)
        assert [(part.start, part.stop) for part in found] == _box_of_nnunet(arrays)


def test_a_margin_stays_within_the_image() -> None:
    array = np.zeros((10, 20, 30), np.int16)
    array[1:4, 9:12, 29] = 100
    assert crop.region([array], _crop(above=99.5)) == (slice(1, 4), slice(9, 12), slice(29, 30))
    assert crop.region([array], _crop(margin=3)) == (slice(0, 7), slice(6, 15), slice(26, 30))


def test_without_foreground_the_volume_is_refused() -> None:
    array = np.zeros((4, 5, 6), np.int16)
    array[0, 0, 0] = 7
    with pytest.raises(VolumeError, match="no voxel of the volume is above 7: there is nothing to crop to"):
        preprocess.prepare(build.volume(array), _input(steps=[{"kind": "crop", "above": 7}]))


def test_what_a_crop_leaves_must_be_an_image() -> None:
    array = np.zeros((4, 5, 6), np.int16)
    array[1:3, 1:3, 1:3] = 7
    with pytest.raises(VolumeError, match=r"after its steps every voxel .* has the same value, 7"):
        preprocess.prepare(build.volume(array), _input(steps=[{"kind": "crop"}]))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_a_crop_is_undone_exactly_whatever_way_it_was_scanned(tmp_path: Path, orientation: str) -> None:
    # Given a crop that cuts off a part of what the network would find
    volume = _phantom()
    step = {"kind": "crop", "above": 900, "margin": 1}
    region = crop.region([volume.array], _crop(above=900, margin=1))
    whole = _mask(tmp_path / "whole", volume)
    expected = np.zeros_like(whole)
    expected[region] = whole[region]
    assert 0 < np.count_nonzero(expected) < np.count_nonzero(whole)
    # When the same patient is scanned another way
    scanned = _scanned(volume, orientation)
    found = _mask(tmp_path / "cropped", scanned, steps=[step])
    # Then within the box each voxel has its label, and outside it none has one
    back = Volume(array=found, geometry=scanned.geometry).reoriented("HPL")
    np.testing.assert_array_equal(back.array, expected)


def test_a_cropped_grid_keeps_its_place_in_the_patient() -> None:
    volume = _phantom()
    prepared = preprocess.prepare(
        volume, _input(steps=[{"kind": "crop", "above": 500}], spacing_mm=[2, 1, 1], orientation="RAF")
    )
    cut = volume.reoriented("RAF").geometry.within(prepared.region)
    for own, its in (
        (np.full(3, -0.5), np.full(3, -0.5)),
        (np.array(cut.shape), np.array(prepared.geometry.shape)),
    ):
        corner = own if own[0] < 0 else own - 0.5
        same = its if its[0] < 0 else its - 0.5
        np.testing.assert_allclose(cut.to_patient(corner), prepared.geometry.to_patient(same), atol=1e-9)
    assert prepared.source.shape == volume.reoriented("RAF").geometry.shape


def test_channels_are_cropped_together() -> None:
    first, second = np.zeros((2, 8, 9, 10), np.float32)
    first[2:4, 3:5, 4:6] = np.arange(8).reshape(2, 2, 2) + 1
    second[5, 6, 7] = 3
    volumes = build.volume(first), build.volume(second)
    entry = _input(steps=[{"kind": "crop"}])
    one = preprocess.prepare(volumes[0], entry, beside=volumes[1:])
    assert one.region == (slice(2, 6), slice(3, 7), slice(4, 8))
    other = preprocess.prepare(volumes[1], _input(), region=one.region)
    assert other.geometry.agrees_with(one.geometry)
    assert other.array.shape == one.array.shape == (4, 4, 4)


def test_statistics_are_those_of_what_is_left() -> None:
    array = np.zeros((4, 12, 12), np.float32)
    array[:, 3:9, 3:9] = np.random.default_rng(5).normal(100, 20, (4, 6, 6))
    prepared = preprocess.prepare(
        build.volume(array), _input(steps=[{"kind": "crop"}], intensity={"kind": "z-score"})
    )
    assert prepared.array.mean() == pytest.approx(0, abs=1e-5)
    assert prepared.array.std() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize(
    ("steps", "complaint"),
    [
        ([{"kind": "crop"}, {"kind": "crop"}], r"inputs\[0\]: .*one crop is enough"),
        ([{"kind": "crop", "margin": -1}], r"inputs\[0\]\.steps\[0\]\.crop\.margin: "),
        ([{"kind": "mangle"}], r"inputs\[0\]\.steps\[0\]: .*'mangle'.*'crop'"),
    ],
)
def test_a_wrong_step_is_named(tmp_path: Path, steps: list[dict[str, Any]], complaint: str) -> None:
    written = build.write(tmp_path, b"", inputs=[build.entry(steps=steps)])
    with pytest.raises(PackageError, match=complaint):
        package.open_package(written)
