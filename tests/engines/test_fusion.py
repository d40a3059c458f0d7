"""Several series as one network sees them: each at the same place in the patient, whatever grid it was acquired on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
import pydantic
import pytest
from numpy.typing import NDArray

from engines import fusion, registration
from engines.errors import RoleError, VolumeError
from engines.manifest import Manifest
from engines.volume import Geometry, Volume
from tests.engines import build

FRAME = "1.2.3.4"
#: Of the linear image: per LPS mm, and at the origin.
SLOPE, START = np.array([2.0, -3.0, 5.0]), 400.0
#: Leaves the linear images below as they are, but for the scale.
WINDOW = {"kind": "window", "low": -2000, "high": 2000}


def _affine(
    spacing: tuple[float, float, float], origin: tuple[float, float, float], degrees: float = 0
) -> NDArray[np.float64]:
    """Of an axial stack, turned about two axes of the patient."""
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, spacing[2]], [0, spacing[1], 0], [spacing[0], 0, 0]])
    a, b = np.radians(degrees), np.radians(degrees / 2)
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    affine[:3, :3] = about_z @ about_x @ affine[:3, :3]
    affine[:3, 3] = origin
    return affine


def _linear(shape: tuple[int, int, int], affine: NDArray[np.float64], frame: str | None = FRAME) -> Volume:
    """An image whose value is a linear function of the place in the patient."""
    geometry = Geometry(shape=shape, affine=affine, frame_of_reference_uid=frame)
    return Volume(array=_expected(geometry).astype(np.float32), geometry=geometry)


def _expected(geometry: Geometry) -> NDArray[np.float64]:
    """The linear image at the voxels of a grid."""
    index = np.stack(np.meshgrid(*map(np.arange, geometry.shape), indexing="ij"), axis=-1).astype(np.float64)
    return geometry.to_patient(index) @ SLOPE + START


def _manifest(*roles: str, name: str | None = "image", **changes: Any) -> Manifest:
    """A model of these roles: channels of one input, or an input each."""
    inputs = [build.entry(name=name or role, role=role, intensity=WINDOW) for role in roles]
    inputs[0] |= changes
    return build.validated(inputs=inputs)


FIRST = _affine((3.0, 1.0, 1.0), (-20, -22, 5))
SHAPE = (16, 44, 40)


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        (SHAPE, FIRST),
        (SHAPE, _affine((3.0, 1.0, 1.0), (-20.4, -21.7, 3.9))),
        ((30, 30, 30), _affine((2.0, 1.9, 1.7), (-24, -26, 0))),
        ((60, 110, 90), _affine((1.0, 0.5, 0.6), (-26, -26, 0))),
        ((60, 110, 90), _affine((1.0, 0.5, 0.6), (-26, -26, 0), degrees=14)),
        ((30, 40, 40), _affine((2.4, 1.6, 1.6), (-30, -28, -4), degrees=-33)),
    ],
    ids=["the same", "shifted", "coarser", "finer", "finer and oblique", "coarser and oblique"],
)
def test_a_linear_image_stays_the_same_line(shape: tuple[int, int, int], affine: NDArray[np.float64]) -> None:
    other = _linear(shape, affine)
    seen = fusion.prepare(_manifest("t1", "t2"), _linear(SHAPE, FIRST), {"t2": other})
    found = seen.arrays["image"]
    assert found.shape == (2, *SHAPE) and found.dtype == np.float32
    # Away from the other's edge by two of its voxels, or of the grid's where those are larger
    inner = _well_inside(seen.geometry, other.geometry)
    assert inner.mean() > 0.4
    expected = (_expected(seen.geometry) + 2000) / 4000
    np.testing.assert_allclose(found[1][inner], expected[inner], atol=2e-6)
    np.testing.assert_allclose(found[0], expected, atol=1e-6)


def _well_inside(grid: Geometry, other: Geometry) -> NDArray[np.bool_]:
    index = np.stack(np.meshgrid(*map(np.arange, grid.shape), indexing="ij"), axis=-1).astype(np.float64)
    place = other.to_index(grid.to_patient(index))
    margin = 2 * max(1.0, *(large / small for large, small in zip(grid.spacing, other.spacing, strict=True)))
    inside = (place >= margin) & (place <= np.array(other.shape) - 1 - margin)
    return np.asarray(inside.all(axis=-1))


@pytest.mark.parametrize("orientation", ["HPL", "FAR", "LPH", "PHL", "RHA"])
def test_how_the_other_was_scanned_does_not_matter(orientation: str) -> None:
    other = _linear((30, 50, 52), _affine((1.7, 0.9, 0.8), (-19, -24, 3)))
    turned = other.reoriented(orientation)
    scanned = Volume(array=np.ascontiguousarray(turned.array), geometry=turned.geometry)
    manifest, first = _manifest("t1", "t2"), _linear(SHAPE, FIRST)
    np.testing.assert_allclose(
        fusion.prepare(manifest, first, {"t2": scanned}).arrays["image"],
        fusion.prepare(manifest, first, {"t2": other}).arrays["image"],
        atol=1e-6,
    )


@pytest.mark.parametrize("turn", [0.0, 0.5])
def test_it_lies_on_the_model_s_grid_and_outside_of_it_is_its_own_least_value(turn: float) -> None:
    # Given a model grid of other voxels and axes, and a PET that ends in the middle of the CT
    first = _linear((20, 40, 40), _affine((2, 1, 1), (0, 0, 0)))
    other = _linear((13, 44, 44), _affine((2.0, 1.0, 1.0), (-2, -2, 0), degrees=turn))
    manifest = _manifest("ct", "pet", spacing_mm=[1.5, 1.5, 2.0], orientation="LPH")
    seen = fusion.prepare(manifest, first, {"pet": other})
    shape = seen.geometry.shape
    assert seen.arrays["image"].shape == (2, *shape) and shape == (27, 27, 20)
    # Then each of its voxels is where it lies in the patient
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1).astype(np.float64)
    place = other.geometry.to_index(seen.geometry.to_patient(index))[..., 0]
    inner, outer = _well_inside(seen.geometry, other.geometry), place > 12.5 + 1e-3
    expected = (_expected(seen.geometry) + 2000) / 4000
    np.testing.assert_allclose(seen.arrays["image"][1][inner], expected[inner], atol=2e-6)
    assert outer.any()
    least = (other.array.min() + 2000) / 4000
    np.testing.assert_allclose(seen.arrays["image"][1][outer], least, rtol=1e-6)


def test_the_coarser_of_two_grids_holds_no_stripes() -> None:
    """A pattern of single slices is its mean on a grid eight times as coarse, oblique or not."""
    stripes = np.where(np.arange(160)[:, None, None] % 2, 1000, -1000) * np.ones((160, 40, 40))
    first = _linear((16, 30, 30), _affine((8, 1, 1), (5, 5, 15)))
    for degrees, most in ((0, 0.01), (10, 0.08)):
        geometry = Geometry(
            shape=stripes.shape, affine=_affine((1, 1, 1), (0, 0, 0), degrees), frame_of_reference_uid=FRAME
        )
        other = Volume(array=stripes.astype(np.int16), geometry=geometry)
        found = fusion.prepare(_manifest("t1", "t2"), first, {"t2": other}).arrays["image"][1]
        inner = _well_inside(first.geometry, geometry)
        assert np.abs(found[inner] - 0.5).max() < most


@pytest.mark.parametrize("degrees", [0, 11])
def test_threads_do_not_change_a_bit(degrees: float) -> None:
    other = _linear((40, 60, 52), _affine((1.3, 0.9, 0.8), (-22, -26, 0), degrees))
    one, three = (
        fusion.prepare(_manifest("t1", "t2"), _linear(SHAPE, FIRST), {"t2": other}, threads=threads)
        for threads in (1, 3)
    )
    np.testing.assert_array_equal(one.arrays["image"], three.arrays["image"])


def test_separate_inputs_go_by_name_and_channels_in_order() -> None:
    inputs = [
        build.entry(name="mr", role="t1", intensity=WINDOW),
        build.entry(name="pet", intensity={"kind": "min-max"}),
        build.entry(name="mr", role="t2", intensity={"kind": "window", "low": 0, "high": 4000}),
    ]
    first = _linear(SHAPE, FIRST)
    seen = fusion.prepare(build.validated(inputs=inputs), first, {"t2": first, "pet": first})
    assert {name: array.shape for name, array in seen.arrays.items()} == {
        "mr": (2, *SHAPE),
        "pet": (1, *SHAPE),
    }
    np.testing.assert_allclose(seen.arrays["mr"][0], (first.array + 2000) / 4000, atol=1e-6)
    np.testing.assert_allclose(seen.arrays["mr"][1], np.clip(first.array, 0, None) / 4000, atol=1e-6)
    assert (seen.arrays["pet"].min(), seen.arrays["pet"].max()) == (0, 1)


class _Read(Mapping[str, Volume]):
    """Volumes that are read when they are asked for."""

    def __init__(self, made: Mapping[str, Volume]) -> None:
        self._made = made
        self.asked: list[str] = []

    def __getitem__(self, role: str) -> Volume:
        self.asked.append(role)
        return self._made[role]

    def __contains__(self, role: object) -> bool:
        return role in self._made

    def __iter__(self) -> Iterator[str]:
        return iter(self._made)

    def __len__(self) -> int:
        return len(self._made)


def test_each_series_is_asked_for_once_in_the_order_of_the_inputs() -> None:
    first = _linear(SHAPE, FIRST)
    others = _Read({"flair": first, "t2": first})
    fusion.prepare(_manifest("t1", "t2", "flair"), first, others)
    assert others.asked == ["t2", "flair"]


@pytest.mark.parametrize(("frame", "named"), [("1.2.3.5", "1.2.3.4 and 1.2.3.5"), (None, "1.2.3.4 and none")])
def test_series_of_two_frames_of_reference_are_refused(frame: str | None, named: str) -> None:
    with pytest.raises(RoleError, match=f"t1 and t2 are not in one Frame of Reference .{named}") as caught:
        fusion.prepare(
            _manifest("t1", "t2"), _linear(SHAPE, FIRST), {"t2": _linear(SHAPE, FIRST, frame=frame)}
        )
    assert caught.value.roles == ("t1", "t2")


@pytest.mark.parametrize(
    ("shape", "origin", "complaint"),
    [
        ((5, 44, 40), (-20, -22, 5), "t2: it covers 31% of what the first series shows; at least 50%"),
        (SHAPE, (500, -22, 5), "t2: it covers 0% of"),
        ((1, 44, 40), (-20, -22, 5), "t2: the volume has 1 slices; the model needs at least 2"),
    ],
)
def test_a_series_of_another_part_of_the_body_is_refused(
    shape: tuple[int, int, int], origin: tuple[float, float, float], complaint: str
) -> None:
    other = _linear(shape, _affine((3.0, 1.0, 1.0), origin))
    with pytest.raises(RoleError, match=complaint) as caught:
        fusion.prepare(_manifest("t1", "t2"), _linear(SHAPE, FIRST), {"t2": other})
    assert caught.value.roles == ("t2",)


def test_who_is_no_image_is_named() -> None:
    first = _linear(SHAPE, FIRST)
    blank = replace(first, array=np.zeros(SHAPE, np.int16))
    with pytest.raises(RoleError, match="t2: every voxel of the volume has the same value, 0"):
        fusion.prepare(_manifest("t1", "t2"), first, {"t2": blank})
    with pytest.raises(RoleError, match="t1: every voxel"):
        fusion.prepare(_manifest("t1", "t2"), blank, {"t2": first})
    with pytest.raises(RoleError, match="the model needs further series: t2, flair"):
        fusion.prepare(_manifest("t1", "t2", "flair"), first, {})
    with pytest.raises(VolumeError, match=r"^every voxel"):
        fusion.prepare(_manifest("t1"), blank, {})


def _view(shape: tuple[int, int]) -> Volume:
    """A mammogram: no place in the patient, no Frame of Reference."""
    geometry = Geometry(shape=(1, *shape), affine=np.eye(4), in_patient=False)
    return Volume(array=np.arange(shape[0] * shape[1], dtype=np.int16).reshape(1, *shape), geometry=geometry)


def test_two_views_are_brought_to_one_size() -> None:
    def views(**second: Any) -> Manifest:
        inputs = [
            build.entry(name="cc", role="cc", planar=True, size=[8, 6], intensity={"kind": "min-max"}),
            build.entry(planar=True, size=[8, 6], intensity={"kind": "min-max"}) | second,
        ]
        return build.validated(inputs=inputs, tiling={"patch": [1, 8, 6]})

    seen = fusion.prepare(views(name="mlo"), _view((16, 12)), {"mlo": _view((30, 9))})
    assert {name: array.shape for name, array in seen.arrays.items()} == {
        "cc": (1, 1, 8, 6),
        "mlo": (1, 1, 8, 6),
    }
    stacked = fusion.prepare(views(name="cc", role="mlo"), _view((16, 12)), {"mlo": _view((30, 9))})
    assert stacked.arrays["cc"].shape == (2, 1, 8, 6)
    for other in ({"size": [10, 4]}, {"size": None, "spacing_mm": [1, 1]}):
        with pytest.raises(ValueError, match="seen at one `size`; give all the same"):
            views(name="mlo", **other)


def test_coverage_counts_what_is_inside_the_outer_faces() -> None:
    shift = np.eye(4)
    shift[0, 3] = 5
    assert registration.coverage(np.eye(4), (10, 10, 10), (10, 10, 10)) == 1
    assert registration.coverage(shift, (10, 10, 10), (10, 10, 10)) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            {"spacing_mm": [1, 1, 1]},
            r"inputs\[1\].spacing_mm: every input is brought to the grid of the first",
        ),
        ({"orientation": "LPH"}, r"inputs\[1\].orientation: every input"),
        (
            {"sampling": "nnunet", "splines": {"order": 1, "order_apart": 0}},
            r"inputs\[1\].sampling: all inputs have nnunet, or none",
        ),
    ],
)
def test_a_manifest_says_of_further_inputs_what_is_its_own(change: dict[str, Any], complaint: str) -> None:
    inputs = [build.entry(role="t1", spacing_mm=[2, 2, 2]), build.entry(role="t2") | change]
    with pytest.raises(pydantic.ValidationError, match=complaint):
        build.validated(inputs=inputs)


def test_planar_images_are_not_cropped_together() -> None:
    entry = build.entry(planar=True, size=[8, 8])
    inputs = [
        entry | {"role": "cc", "steps": [{"kind": "crop"}]},
        entry | {"role": "mlo"},
    ]
    with pytest.raises(
        pydantic.ValidationError, match=r"inputs\[0\].steps: planar images have no place in common"
    ):
        build.validated(inputs=inputs, tiling={"patch": [1, 8, 8]})


def test_channels_of_an_nnunet_are_of_one_frame_of_reference_too() -> None:
    array = np.random.default_rng(5).normal(size=(6, 10, 12)).astype(np.float32)
    first = build.volume(array)
    second = replace(first, geometry=replace(first.geometry, frame_of_reference_uid="1.9"))
    entry = {"intensity": {"kind": "none"}, "sampling": "nnunet", "splines": {"order": 1, "order_apart": 0}}
    manifest = build.validated(inputs=[build.entry(role=role, **entry) for role in "ab"])
    with pytest.raises(RoleError, match="a and b are not in one Frame of Reference"):
        fusion.prepare(manifest, first, {"b": second})


def test_the_body_is_found_in_all_series_however_they_are_handed_over() -> None:
    # Given a body that only the second series shows whole, read beforehand or just when it is asked for
    array = np.zeros((6, 10, 12), np.float32)
    array[1:5, 2:5, 2:10] = np.random.default_rng(5).normal(100, 9, (4, 3, 8))
    whole = array.copy()
    whole[1:5, 5:8, 2:10] = 50
    entry = {
        "intensity": {"kind": "z-score", "nonzero": "filled"},
        "sampling": "nnunet",
        "splines": {"order": 1, "order_apart": 0},
    }
    manifest = build.validated(inputs=[build.entry(role=role, **entry) for role in "ab"])
    held = {"b": build.volume(whole)}
    found = [
        fusion.prepare(manifest, build.volume(array), others).arrays["image"]
        for others in (held, MappingProxyType(held))
    ]
    np.testing.assert_array_equal(*found)
    values = array[whole != 0]
    assert found[0][0].min() == pytest.approx((values.min() - values.mean()) / values.std(), abs=1e-4)


def test_a_model_of_one_series_prefers_none() -> None:
    with pytest.raises(pydantic.ValidationError, match=r"inputs\[0\].prefer: a model of one series"):
        build.validated(inputs=[build.entry(prefer=[{"Modality": "CT"}])])


def test_a_further_series_follows_the_first_in_all_that_it_leaves_out() -> None:
    # nnU-Net's channels on one grid, the second one saying nothing of axes and spacing
    array = np.random.default_rng(5).normal(size=(6, 10, 12)).astype(np.float32)
    first, second = build.volume(array), build.volume(array * 2)
    entry = {"intensity": {"kind": "none"}, "sampling": "nnunet", "splines": {"order": 1, "order_apart": 0}}
    inputs = [
        build.entry(role="a", orientation="HAR", spacing_mm=[2.5, 0.8, 0.7], **entry),
        build.entry(role="b", **entry),
    ]
    manifest = build.validated(inputs=inputs)
    seen = fusion.prepare(manifest, first, {"b": second}).arrays["image"]
    np.testing.assert_allclose(seen[1], 2 * seen[0], atol=1e-5)


def test_a_further_series_is_scaled_after_it_is_moved_where_the_manifest_says_so() -> None:
    array = np.random.default_rng(6).normal(size=(8, 12, 12)).astype(np.float32)
    volume = replace(
        build.volume(array), geometry=replace(build.volume(array).geometry, frame_of_reference_uid="1.2")
    )
    entry = {"intensity": {"kind": "min-max"}, "scaled": "after"}
    inputs = [build.entry(role="a", spacing_mm=[5, 2, 2], **entry), build.entry(role="b", **entry)]
    seen = fusion.prepare(build.validated(inputs=inputs), volume, {"b": volume}).arrays["image"]
    assert (seen[0].min(), seen[0].max()) == pytest.approx((0, 1), abs=1e-6)
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-5)


def test_padding_is_of_all_series_and_counts_as_none_of_their_cover() -> None:
    array = np.random.default_rng(7).normal(size=(6, 8, 8)).astype(np.float32)
    volume = replace(
        build.volume(array), geometry=replace(build.volume(array).geometry, frame_of_reference_uid="1.2")
    )
    pad = [{"kind": "pad", "at_least": [24, 32, 32], "value": -3}]
    inputs = [
        build.entry(role="a", steps=pad, intensity={"kind": "none"}),
        build.entry(role="b", intensity={"kind": "none"}),
    ]
    seen = fusion.prepare(build.validated(inputs=inputs), volume, {"b": volume}).arrays["image"]
    assert seen.shape == (2, 24, 32, 32)
    np.testing.assert_allclose(seen[1], seen[0], atol=1e-6)
    assert seen[1, 0, 0, 0] == -3


@pytest.mark.parametrize("sampling", ["box", "nnunet"])
def test_statistics_of_a_further_series_are_of_what_the_crop_of_the_first_leaves(sampling: str) -> None:
    # Given two series on one grid, of which the crop keeps 4 x 6 x 6 voxels, and a second one that is bright elsewhere
    rng = np.random.default_rng(8)
    first, second = np.zeros((2, 6, 10, 10), np.float32)
    box = (slice(1, 5), slice(2, 8), slice(2, 8))
    first[box] = rng.uniform(100, 200, (4, 6, 6))
    second[box] = rng.uniform(100, 200, (4, 6, 6))
    second[5] = 40
    volumes = []
    for array in (first, second):
        volume = build.volume(array)
        volumes.append(replace(volume, geometry=replace(volume.geometry, frame_of_reference_uid="1.2")))
    entry = {"intensity": {"kind": "z-score"}, "sampling": sampling}
    inputs = [
        build.entry(role="a", steps=[{"kind": "crop", "above": 50}], **entry),
        build.entry(role="b", **entry),
    ]
    # When the network sees them
    seen = fusion.prepare(build.validated(inputs=inputs), volumes[0], {"b": volumes[1]})
    # Then each is scaled by its own values in the crop
    for array, channel in zip((first, second), seen.arrays["image"], strict=True):
        kept = array[box].astype(np.float64)
        np.testing.assert_allclose(channel.mean(), 0, atol=1e-5)
        np.testing.assert_allclose(
            np.sort(channel, axis=None), np.sort((kept - kept.mean()) / kept.std(), axis=None), atol=1e-4
        )


def test_a_further_series_on_another_grid_keeps_the_statistics_of_its_whole() -> None:
    # Given a crop of the first, and a second series that begins half a voxel aside
    array = np.random.default_rng(9).uniform(100, 200, (6, 10, 10)).astype(np.float32)
    first = replace(
        build.volume(array), geometry=Geometry(shape=array.shape, affine=FIRST, frame_of_reference_uid=FRAME)
    )
    cropped = first.array.copy()
    cropped[:2] = 0
    moved = FIRST.copy()
    moved[:3, 3] += (0.5, 0.5, 0)
    second = Volume(
        array=array, geometry=Geometry(shape=array.shape, affine=moved, frame_of_reference_uid=FRAME)
    )
    inputs = [
        build.entry(role="a", steps=[{"kind": "crop", "above": 50}], intensity={"kind": "none"}),
        build.entry(role="b", intensity={"kind": "min-max"}),
    ]
    manifest = build.validated(inputs=inputs)
    # When it is brought to the crop's grid
    seen = fusion.prepare(manifest, replace(first, array=cropped), {"b": second})
    whole = fusion.prepare(_uncropped(inputs), replace(first, array=cropped), {"b": second})
    # Then it is the same as without the crop, in what is left
    np.testing.assert_array_equal(seen.arrays["image"][1], whole.arrays["image"][1][seen.region])


def _uncropped(inputs: list[dict[str, Any]]) -> Manifest:
    """The same without steps."""
    return build.validated(inputs=[{key: entry[key] for key in entry if key != "steps"} for entry in inputs])
