"""Models in a row: the second looks where the first found something, or sees what it found beside the image."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import numpy_helper
from scipy import ndimage

from engines import cascade, grids, lineage, loader, package
from engines.cascade import Stage
from engines.errors import PackageError, VolumeError
from engines.fusion import Seen
from engines.given import Given, LabelMap, wanted_part
from engines.intensity import Scaling
from engines.manifest_inputs import Input
from engines.manifest_stages import LabelChannels
from engines.package import ModelPackage
from engines.volume import Geometry, Volume
from tests.engines import build
from tests.support import phantoms

SHAPE = (24, 48, 40)
#: In the normalised window, for 200 and 600 HU.
THRESHOLDS = (0.6, 0.8)


def _package(folder: Path, *after: dict[str, Any], weights: bytes = b"", **changes: Any) -> ModelPackage:
    settings: dict[str, Any] = {"name": folder.name, "after": list(after)}
    return package.open_package(
        build.write(folder, weights or build.thresholds(THRESHOLDS), **(settings | changes))
    )


def _after(earlier: ModelPackage, kind: str, *labels: str, **more: Any) -> dict[str, Any]:
    use = {"kind": kind, "labels": list(labels)} | more
    return {"model": earlier.manifest.name, "digest": earlier.digest, "use": use}


@contextmanager
def _opened(*packages: ModelPackage) -> Iterator[Stage]:
    """The last of the packages on real networks, with the others before it."""
    with ExitStack() as stack:
        stages: dict[str, Stage] = {}
        for each in packages:
            earlier = {entry.model: stages[entry.model] for entry in each.manifest.after}
            runner = stack.enter_context(loader.open_runner(each, engine="onnxruntime", threads=1))
            stages[each.manifest.name] = Stage(package=each, runner=runner, earlier=earlier)
        yield stages[packages[-1].manifest.name]


def _two_organs() -> Volume:
    """Two bright blocks in air, each with a brighter core; the first model is to find the second block only."""
    array = np.full(SHAPE, -900, np.int16)
    array[3:9, 5:15, 6:14] = 300
    array[4:6, 8:11, 9:11] = 700
    array[12:20, 25:40, 20:34] = 300
    array[14:17, 28:33, 24:29] = 700
    return build.volume(array)


def _finder(folder: Path, **changes: Any) -> ModelPackage:
    """Of what is bright the largest component."""
    labels = [build.label(1, "organ", keep_largest=True)]
    weights = build.thresholds(THRESHOLDS[:1])
    outputs = [{"name": "logits", "labels": labels}]
    return _package(folder, weights=weights, outputs=outputs, inputs=[build.entry(**changes)])


@pytest.mark.parametrize("spacing", [None, [3.1, 1.7, 1.3]])
def test_the_second_model_answers_only_where_the_first_found_something(tmp_path: Path, spacing: Any) -> None:
    first = _finder(tmp_path / "finder", spacing_mm=spacing)
    volume = _two_organs()
    second = _package(
        tmp_path / "second",
        _after(first, "crop", "organ", margin_mm=5),
        measurements=[build.measurement("v", "volume"), build.measurement("d", "mean", of=["label2"])],
    )
    with _opened(first, second) as stage:
        found = cascade.predict_all(stage, volume)
    # Then what it says lies on the grid of the source, and the other block is not in it
    expected = np.digitize(volume.array, [200, 600])
    expected[:11] = 0
    np.testing.assert_array_equal(found.mask, expected)
    assert found.geometry is volume.geometry
    # And the measurements are of the source's values there
    millilitres = (expected == 1).sum() * volume.geometry.voxel_volume_mm3 / 1000  # type: ignore[operator]
    assert [one.value for one in found.measurements] == [pytest.approx(millilitres), 700]
    assert found.seconds["finder"] > 0 and found.seconds["infer"] > 0


@pytest.mark.parametrize("orientation", ["HPL", "FAR", "LPH", "AFL"])
def test_a_crop_lies_at_the_same_place_of_the_patient_whatever_way_it_was_scanned(
    tmp_path: Path, orientation: str
) -> None:
    first = _finder(tmp_path / "finder")
    second = _package(tmp_path / "second", _after(first, "crop", "organ", margin_mm=3))
    volume = _two_organs()
    turned = volume.reoriented(orientation)
    scanned = Volume(array=np.ascontiguousarray(turned.array), geometry=turned.geometry, unit=volume.unit)
    with _opened(first, second) as stage:
        expected, found = (cascade.predict_all(stage, one) for one in (volume, scanned))
    back = Volume(array=found.mask, geometry=scanned.geometry).reoriented("HPL")
    np.testing.assert_array_equal(back.array, expected.mask)
    assert set(np.unique(expected.mask)) == {0, 1, 2}


def test_the_second_model_sees_the_box_and_its_margin_and_no_voxel_more() -> None:
    volume = _two_organs()
    mask = np.zeros(SHAPE, np.uint8)
    mask[12:20, 25:40, 20:34] = 3
    # When a margin of 5 mm is wanted at 2.5 x 0.8 x 0.7 mm
    part = wanted_part(mask, (3,), volume.geometry, margin_mm=5, min_slices=2)
    # Then it is of whole voxels, at least as wide, and ends where the image does
    assert part == (slice(10, 22), slice(18, 47), slice(12, 40))
    cut = Given(part=part).cut(volume)
    np.testing.assert_array_equal(cut.array, volume.array[10:22, 18:47, 12:40])
    corner = volume.geometry.to_patient(np.array([10.0, 18.0, 12.0]))
    np.testing.assert_allclose(cut.geometry.to_patient(np.zeros(3)), corner)


def test_a_box_of_fewer_slices_than_the_model_needs_is_widened() -> None:
    geometry = _two_organs().geometry
    for at, expected in ((12, slice(10, 15)), (0, slice(0, 5)), (23, slice(19, 24))):
        mask = np.zeros(SHAPE, np.uint8)
        mask[at, 3, 3] = 1
        part = wanted_part(mask, (1,), geometry, margin_mm=0, min_slices=5)
        assert part == (expected, slice(3, 4), slice(3, 4))


def test_where_the_first_finds_nothing_that_is_the_answer(tmp_path: Path) -> None:
    first = _finder(tmp_path / "finder")
    second = _package(
        tmp_path / "second",
        _after(first, "crop", "organ"),
        measurements=[build.measurement("v", "volume")],
        findings=[{"key": "big", "code": build.code("1", "Big"), "measurement": "v", "above": 1}],
    )
    array = np.full(SHAPE, -900, np.int16)
    array[0, 0, 0] = -800
    seen: list[float] = []
    with _opened(first, second) as stage:
        found = cascade.predict_all(stage, build.volume(array), progress=seen.append)
    # Then no statement is made about what nobody looked at, and the reason is said
    assert not found.mask.any() and found.mask.shape == SHAPE
    assert (found.measurements, found.findings) == ((), ())
    assert found.impossible == ("second had nothing to look at: finder 1.0.0 found no Organ",)
    assert found.model == second.identity and found.segments == second.segments
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_three_in_a_row_and_each_answers_once(tmp_path: Path) -> None:
    first = _finder(tmp_path / "finder")
    second = _package(tmp_path / "second", _after(first, "crop", "organ", margin_mm=5))
    third = _package(
        tmp_path / "third",
        _after(second, "crop", "label2", margin_mm=1),
        _after(first, "channels", "organ", name="image", encoding="numbers"),
        weights=_adding(2, sharpness=50.0, threshold=1.75),
        outputs=[{"name": "logits", "labels": [build.label(1, "both")]}],
        inputs=[build.entry()],
    )
    with _opened(first, second, third) as stage:
        assert [one.package.manifest.name for one in stage.whole] == ["finder", "second", "third"]
        found = cascade.predict_all(stage, _two_organs())
    expected = np.zeros(SHAPE, np.uint8)
    expected[14:17, 28:33, 24:29] = 1
    np.testing.assert_array_equal(found.mask, expected)


def _adding(channels: int, *, sharpness: float = 1.0, threshold: float = 0.5) -> bytes:
    """A network that marks where the sum of its channels is beyond the threshold."""
    weights = np.stack([np.zeros(channels), np.full(channels, sharpness)]).astype(np.float32)
    tensors = [
        numpy_helper.from_array(weights.reshape(2, channels, 1, 1, 1), "w"),
        numpy_helper.from_array(np.array([0, -sharpness * threshold], np.float32), "b"),
    ]
    nodes = [onnx.helper.make_node("Conv", ["image", "w", "b"], ["logits"])]
    model = onnx.load_from_string(build.serialised(nodes, tensors, classes=2))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = channels
    return bytes(model.SerializeToString())


def _marker(folder: Path, first: ModelPackage, weights: bytes, **changes: Any) -> ModelPackage:
    """A model that sees the image in a window where it is 0, and the first one's two labels as channels."""
    window = {"kind": "window", "low": 5000, "high": 6000}
    return _package(
        folder,
        _after(first, "channels", "label1", "label2", name="image", **changes),
        weights=weights,
        inputs=[build.entry(intensity=window, spacing_mm=[2.5, 1.6, 1.4])],
        outputs=[{"name": "logits", "labels": [build.label(1, "seen")]}],
    )


def test_the_labels_of_the_first_are_channels_of_the_second(tmp_path: Path) -> None:
    first = _package(tmp_path / "first")
    second = _marker(tmp_path / "second", first, _adding(3))
    volume = build.volume(phantoms.asymmetric(SHAPE))
    with _opened(first, second) as stage:
        found = cascade.predict_all(stage, volume)
        assert [spec.shape for spec in stage.runner.inputs] == [(1, 3, 8, 16, 16)]
    # Then what it marks is what the first found, but for the faces that a coarser grid moves
    expected = volume.array >= 200
    assert 2 * (found.mask & expected).sum() / (found.mask.sum() + expected.sum()) > 0.95


def _brought(
    mask: NDArray[Any],
    use: LabelChannels,
    numbers: tuple[int, ...],
    grid: Geometry,
    *,
    spacing: tuple[float, float, float] = (2.5, 0.8, 0.7),
    **seen: Any,
) -> NDArray[np.float32]:
    """The channels of a mask on `grid`."""
    source = build.volume(mask.astype(np.int16), spacing=spacing)
    given = Given(channels=(LabelMap(use=use, mask=mask, numbers=numbers),))
    before = Seen(arrays={}, geometry=grid, source=source.geometry, scaling=Scaling(), **seen)
    entry = Input.model_validate(build.entry(spacing_mm=grid.spacing))
    return given.beside(before, source, entry).arrays[use.name]


def test_channels_keep_to_the_part_that_is_seen_and_leave_its_padding_empty() -> None:
    mask = np.random.default_rng(1).integers(0, 3, (6, 8, 8)).astype(np.uint8)
    region, inner = (slice(1, 5), slice(2, 8), slice(0, 7)), (slice(2, 6), slice(1, 7), slice(0, 7))
    part = build.volume(mask.astype(np.int16)).geometry.within(region)
    grid = part.around((8, 8, 8), inner)
    use = LabelChannels(kind="channels", labels=("a",), name="prior")
    expected = np.zeros((8, 8, 8), np.float32)
    expected[inner] = mask[region] == 2
    np.testing.assert_array_equal(_brought(mask, use, (2,), grid, region=region, inner=inner)[0], expected)


def test_one_hot_channels_are_in_the_order_in_which_the_manifest_lists_them() -> None:
    mask = np.random.default_rng(0).integers(0, 4, (4, 6, 5)).astype(np.uint8)
    grid = build.volume(mask.astype(np.int16)).geometry
    use = LabelChannels(kind="channels", labels=("c", "a"), name="prior")
    np.testing.assert_array_equal(_brought(mask, use, (3, 1), grid), np.stack([mask == 3, mask == 1]))
    numbered = use.model_copy(update={"encoding": "numbers"})
    wanted = np.where(mask == 2, 0, mask)[None]
    np.testing.assert_array_equal(_brought(mask, numbered, (3, 1), grid), wanted)


def _as_scipy(mask: NDArray[Any], zoom: NDArray[Any], *, order: int) -> NDArray[np.bool_]:
    """A mask of 0 and 1 on another grid: what has more than half, and of equal halves the nearest voxel's."""
    share, nearest = (
        ndimage.zoom(mask.astype(float), zoom, order=each, mode="nearest", grid_mode=True)
        for each in (order, 0)
    )
    return np.asarray(np.where(np.abs(share - 0.5) < 1e-9, nearest, share) > 0.5)


@pytest.mark.parametrize("order", [0, 1])
def test_a_mask_comes_to_another_grid_as_scipy_brings_it_there(order: int) -> None:
    rng = np.random.default_rng(3)
    mask = (ndimage.zoom(rng.random((4, 5, 6)), 3, order=1) > 0.5).astype(np.uint8)
    grid = grids.at_spacing(build.volume(mask.astype(np.int16)).geometry, (3.4, 1.1, 0.41))
    splines = {"order": 1, "apart": False} if order else None
    use = LabelChannels.model_validate(
        {"kind": "channels", "labels": ["a"], "name": "prior", "splines": splines}
    )
    got = _brought(mask, use, (1,), grid)[0]
    zoom = np.array(grid.shape) / mask.shape
    expected = _as_scipy(mask, zoom, order=order)
    assert got.shape == expected.shape
    assert np.mean(got != expected) < 0.002


def test_thick_slices_are_brought_to_another_grid_apart() -> None:
    """nnU-Net's way: linear in the plane, and the nearest slice."""
    rng = np.random.default_rng(4)
    mask = (ndimage.zoom(rng.random((3, 6, 6)), (4, 3, 3), order=1) > 0.5).astype(np.uint8)
    source = build.volume(mask.astype(np.int16), spacing=(5.0, 0.8, 0.8)).geometry
    grid = grids.at_spacing(source, (3.0, 1.3, 1.3))
    use = LabelChannels.model_validate(
        {"kind": "channels", "labels": ["a"], "name": "prior", "splines": {"order": 1}}
    )
    got = _brought(mask, use, (1,), grid, spacing=(5.0, 0.8, 0.8))[0]
    flat = [_as_scipy(one, np.array(grid.shape[1:]) / 18, order=1) for one in mask]
    nearest = np.floor((np.arange(grid.shape[0]) + 0.5) * 12 / grid.shape[0]).astype(int)
    assert np.mean(got != np.stack(flat)[nearest]) < 0.002


def test_what_goes_wrong_in_the_first_is_said_with_its_name(tmp_path: Path) -> None:
    first = _finder(tmp_path / "finder", min_slices=100)
    second = _package(tmp_path / "second", _after(first, "crop", "organ"))
    with (
        _opened(first, second) as stage,
        pytest.raises(VolumeError, match=r"^finder, which answers first: the volume has 24 slices"),
    ):
        cascade.predict_all(stage, _two_organs())


def _problem(package: ModelPackage, *others: ModelPackage) -> str:
    known = {one.manifest.name: one for one in (package, *others)}
    with pytest.raises(PackageError) as caught:
        lineage.check(package, known)
    return str(caught.value)


def test_a_model_that_is_missing_or_another_is_named_with_what_to_do(tmp_path: Path) -> None:
    first = _package(tmp_path / "first")
    second = _package(tmp_path / "second", _after(first, "crop", "label1"))
    missing = _problem(second)
    assert missing.startswith(f"{tmp_path / 'second' / 'model.yaml'}: after[0].model: there is no usable")
    other = _package(tmp_path / "first", version="1.0.1")
    assert f"first in {tmp_path / 'first'} has {other.digest}, not {first.digest}" in _problem(second, other)


def test_models_that_need_each_other_are_refused_by_name(tmp_path: Path) -> None:
    use = {"kind": "crop", "labels": ["label1"]}
    one = _package(tmp_path / "one", {"model": "two", "digest": "0" * 64, "use": use})
    two = _package(tmp_path / "two", {"model": "one", "digest": one.digest, "use": use})
    assert "two needs one needs two, so that none can be first" in _problem(two, one)
    usable, errors = lineage.complete([one, two, _package(tmp_path / "three")])
    assert [each.manifest.name for each in usable] == ["three"] and set(errors) == {"one", "two"}


def test_a_label_that_the_first_does_not_have_is_named(tmp_path: Path) -> None:
    first = _package(tmp_path / "first")
    second = _package(tmp_path / "second", _after(first, "crop", "liver", "label1"))
    assert "first has no label liver; its labels: label1, label2" in _problem(second, first)


def test_a_first_model_of_other_values_is_refused(tmp_path: Path) -> None:
    first = _package(tmp_path / "first")
    later = [build.entry(values="SUVbw")]
    second = _package(tmp_path / "second", _after(first, "crop", "label1"), inputs=later)
    assert "first looks at values: source, and second at others" in _problem(second, first)


def test_another_first_model_makes_another_package(tmp_path: Path) -> None:
    first = _package(tmp_path / "first")
    second = _package(tmp_path / "second", _after(first, "crop", "label1"))
    retrained = _package(tmp_path / "again" / "first", intended_use="more tests")
    anew = _package(tmp_path / "anew" / "second", _after(retrained, "crop", "label1"))
    assert second.digest != anew.digest
    assert second.identity.parts == (f"after: first sha256:{first.digest}",)


#: As an nnU-Net's second stage is given labels, but for their splines.
_FILLED: dict[str, Any] = {
    "model": "one",
    "digest": "0" * 64,
    "use": {"kind": "channels", "labels": ["a"], "name": "image", "nonzero": "filled"},
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"after": [{"model": "tiny", "digest": "0" * 64}]}, "after[0].use"),
        (
            {"after": 2 * [{"model": "one", "digest": "0" * 64, "use": {"kind": "crop", "labels": ["a"]}}]},
            "two of them crop",
        ),
        ({"ensemble": [{"model": "tiny", "digest": "0" * 64}]}, "tiny is this model itself"),
        (
            {"ensemble": [{"model": "one", "digest": "0" * 64}, {"model": "one", "digest": "1" * 64}]},
            "named with two digests",
        ),
        ({"after": [_FILLED | {"use": _FILLED["use"] | {"splines": {"order": 1}}}]}, "nonzero: filled goes"),
        (
            {"after": [_FILLED], "inputs": [build.entry(sampling="nnunet", spacing_mm=[2, 1, 1])]},
            "nonzero: filled goes with splines and sampling: nnunet",
        ),
    ],
)
def test_a_manifest_that_names_others_wrongly_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(PackageError) as caught:
        package.open_package(build.write(tmp_path, build.thresholds(THRESHOLDS), **changes))
    assert said in str(caught.value)
