"""A package's example: how it is kept, and what counts as the same answer."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import example, golden, loader, package, predict
from engines.errors import PackageError
from engines.example import Example, Expected, ExpectedBox, ExpectedFinding, ExpectedMeasurement
from engines.findings import Box, Code, Findings
from engines.volume import Geometry, Scale, Volume
from tests.engines import build

CODE = Code(value="1", scheme="99T", meaning="thing")


@pytest.fixture
def opened(tmp_path: Path) -> package.ModelPackage:
    """A package with a measurement and a finding."""
    rule = {"key": "large", "code": build.code("18720000", "Large"), "measurement": "v", "above": 0.1}
    return package.open_package(
        build.write(
            tmp_path / "tiny",
            build.thresholds((0.5, 0.75)),
            measurements=[build.measurement("v", "volume", of=["label1", "label2"])],
            findings=[rule],
        )
    )


def _volume() -> Volume:
    array = np.full((9, 20, 24), -900, np.int16)
    array[2:7, 4:15, 5:12] = 200
    array[3:5, 6:9, 8:20] = 800
    return build.volume(array)


def _found(opened: package.ModelPackage) -> Findings:
    with loader.open_runner(opened, engine="onnxruntime", threads=1) as runner:
        return predict.predict(opened, runner, _volume(), threads=1)


def _example(found: Findings, **terms: Any) -> Example:
    expected = golden.expected_of(found, Expected(**terms))
    return Example(volumes={"image": _volume()}, expected=expected, mask=found.mask)


def test_an_example_comes_back_as_it_was_written(opened: package.ModelPackage) -> None:
    found = _found(opened)
    made = _example(found)
    example.write(opened.folder, made)
    kept = example.read(opened.folder, opened.manifest)
    assert kept is not None and kept.expected == made.expected and kept.image is None
    assert kept.mask is not None and np.array_equal(kept.mask, found.mask)
    volume = kept.volumes["image"]
    assert np.array_equal(volume.array, _volume().array) and volume.array.dtype == np.int16
    assert volume.unit == "[hnsf'U]" and volume.geometry.agrees_with(_volume().geometry, 0)
    assert golden.compare(kept, found) == golden.Comparison(dice=1.0, differences=())
    # Once more, it is the same bytes; and it makes no other model of the package
    before = {path.name: path.read_bytes() for path in (opened.folder / "example").iterdir()}
    example.write(opened.folder, kept)
    assert before == {path.name: path.read_bytes() for path in (opened.folder / "example").iterdir()}
    assert package.open_package(opened.folder).digest == opened.digest


def test_an_image_without_a_place_comes_back_without_one(tmp_path: Path) -> None:
    entry = build.entry(planar=True)
    opened = package.open_package(
        build.write(
            tmp_path / "flat", build.thresholds((0.5, 0.75)), inputs=[entry], tiling={"patch": [1, 8, 8]}
        )
    )
    geometry = Geometry(shape=(1, 8, 9), affine=np.eye(4), scale=Scale.NONE, in_patient=False)
    volume = Volume(array=np.zeros((1, 8, 9), np.uint8), geometry=geometry)
    example.write(opened.folder, Example(volumes={"image": volume}, expected=Expected()))
    kept = example.read(opened.folder, opened.manifest)
    assert kept is not None and kept.mask is None
    came = kept.volumes["image"].geometry
    assert (came.scale, came.in_patient, came.shape) == (Scale.NONE, False, (1, 8, 9))


def test_a_package_without_an_example_has_none(opened: package.ModelPackage) -> None:
    assert example.read(opened.folder, opened.manifest) is None


def test_every_difference_is_named(opened: package.ModelPackage) -> None:
    found = _found(opened)
    made = _example(found)
    first, *rest = found.measurements
    mask = found.mask.copy()
    mask[:4][mask[:4] == 2] = 1
    other = replace(
        found,
        mask=mask,
        measurements=(replace(first, value=first.value * 1.1), replace(first, key="new")),
        findings=tuple(replace(one, present=not one.present) for one in found.findings),
    )
    said = golden.compare(made, other).differences
    assert said[0].startswith("label Label1: Dice 0.") and said[1].startswith("label Label2: Dice 0.")
    assert any(line.startswith("measurement v of segment 1: ") and "expected" in line for line in said)
    assert sum(line.endswith(": missing") for line in said) == len(rest)
    assert "measurement new of segment 1: not expected" in said
    assert any(line.startswith("finding large: absent, expected present") for line in said)


def test_numbers_may_differ_as_much_as_the_example_says(opened: package.ModelPackage) -> None:
    found = _found(opened)
    moved = replace(
        found, measurements=tuple(replace(one, value=one.value * 1.01) for one in found.measurements)
    )
    assert golden.compare(_example(found, relative=0.02), moved).differences == ()
    assert golden.compare(_example(found, relative=0.001), moved).differences != ()
    # One number may have a tolerance of its own
    expected = golden.expected_of(found, Expected(relative=0))
    own = tuple(one.model_copy(update={"tolerance": abs(one.value)}) for one in expected.measurements)
    loose = replace(_example(found), expected=expected.model_copy(update={"measurements": own}))
    assert golden.compare(loose, moved).differences == ()


def test_a_number_that_is_not_one_is_a_difference(opened: package.ModelPackage) -> None:
    found = _found(opened)
    broken = replace(
        found, measurements=tuple(replace(one, value=float("nan")) for one in found.measurements)
    )
    assert len(golden.compare(_example(found), broken).differences) == len(found.measurements)


def _box(low: tuple[float, float, float], score: float, key: str = "thing") -> Box:
    high = (low[0] + 4, low[1] + 4, low[2] + 4)
    return Box(key=key, label=key, code=CODE, score=score, low=low, high=high)


@pytest.mark.parametrize(
    ("boxes", "words"),
    [
        ([_box((1, 1, 1), 0.9), _box((5, 5, 5), 0.8)], []),
        # In another order, and a little beside it
        ([_box((5, 5, 5.05), 0.8), _box((1, 1, 1), 0.9)], []),
        ([_box((1, 1, 1), 0.9)], ["box thing at (7, 7, 7): missing"]),
        ([_box((1, 1, 1), 0.9), _box((5, 5, 6), 0.8)], ["missing", "not expected"]),
        ([_box((1, 1, 1), 0.9), _box((5, 5, 5), 0.8, "other")], ["missing", "not expected"]),
        ([_box((1, 1, 1), 0.7), _box((5, 5, 5), 0.8)], ["score 0.7, expected 0.9"]),
    ],
)
def test_boxes_are_held_against_those_that_were_expected(
    opened: package.ModelPackage, boxes: list[Box], words: list[str]
) -> None:
    found = _found(opened)
    wanted = replace(found, boxes=(_box((1, 1, 1), 0.9), _box((5, 5, 5), 0.8)))
    said = golden.compare(_example(wanted), replace(found, boxes=tuple(boxes))).differences
    assert len(said) == len(words)
    for line, part in zip(said, words, strict=True):
        assert part in line


def test_an_image_that_was_made_is_held_against_the_expected_one(opened: package.ModelPackage) -> None:
    found, volume = _found(opened), _volume()
    made = replace(_example(found, absolute=1), image=volume.array)
    assert golden.compare(made, replace(found, image=volume)).differences == ()
    array = volume.array.copy()
    array[0, 0, 0] += 50
    changed = replace(found, image=replace(volume, array=array))
    assert golden.compare(made, changed).differences == ("image: a voxel differs by 50, 9.5 is allowed",)
    assert golden.compare(made, found).differences == ("image: missing",)
    assert golden.compare(_example(found), changed).differences == ("image: not expected",)


#: Arrays that make an input unusable; None is left out.
SPOILT: dict[str, dict[str, Any]] = {
    "objects": {"image.voxels": np.array([[[{}]]], dtype=object)},
    "no affine": {"image.affine": None},
    "singular": {"image.affine": np.zeros((4, 4))},
    "flat": {"image.voxels": np.zeros((4, 4))},
    "scale": {"image.scale": np.array("huge")},
}
#: What stands in a file in place of what belongs there; None takes the file away.
WRITTEN: dict[str, tuple[str, bytes | None]] = {
    "no archive": ("input.npz", b"not an archive"),
    "no input": ("input.npz", None),
    "no values": ("expected.json", None),
    "values": ("expected.json", json.dumps({"format": 1, "minimum_dice": 2}).encode()),
    "newer": ("expected.json", json.dumps({"format": 2}).encode()),
}


def _spoilt(folder: Path, how: str) -> None:
    """An example with something wrong in it."""
    place = folder / "example"
    with np.load(place / "input.npz") as file:
        arrays = {name: file[name] for name in file.files} | SPOILT.get(how, {})
    np.savez(place / "input.npz", **{name: array for name, array in arrays.items() if array is not None})
    if how == "mask":
        np.savez(place / "expected.npz", mask=np.zeros((2, 2, 2), np.uint8))
    name, content = WRITTEN.get(how, ("", None))
    if name and content is None:
        (place / name).unlink()
    elif content is not None:
        (place / name).write_bytes(content)


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("objects", "input.npz: it holds objects, which are code"),
        ("no affine", "input.npz: there is no image.affine"),
        ("singular", "input.npz: image: the affine is singular"),
        ("flat", "input.npz: image: voxels are numbers along"),
        ("scale", "input.npz: image: 'huge' is not a valid Scale"),
        ("no archive", "input.npz: this is no .npz of arrays"),
        ("no input", "input.npz: there is no such file"),
        ("mask", "expected.npz: mask (2, 2, 2): only mask and image belong there"),
        ("no values", "expected.json: No such file"),
        ("values", "expected.json: minimum_dice: "),
        ("newer", "expected.json: format: "),
    ],
)
def test_what_is_wrong_with_an_example_is_named(opened: package.ModelPackage, how: str, words: str) -> None:
    example.write(opened.folder, _example(_found(opened)))
    _spoilt(opened.folder, how)
    with pytest.raises(PackageError) as error:
        example.read(opened.folder, opened.manifest)
    assert words in str(error.value)


def test_an_archive_that_claims_to_be_huge_is_not_unpacked(
    opened: package.ModelPackage, monkeypatch: pytest.MonkeyPatch
) -> None:
    example.write(opened.folder, _example(_found(opened)))
    monkeypatch.setattr(example, "_MOST_BYTES", 1000)
    with pytest.raises(PackageError, match="give a smaller example"):
        example.read(opened.folder, opened.manifest)


def test_values_say_what_they_are() -> None:
    content = Expected(
        measurements=(ExpectedMeasurement(key="v", value=1.5),),
        findings=(ExpectedFinding(key="f", present=True),),
        boxes=(ExpectedBox(key="b", score=0.5, low=(0, 0, 0), high=(1, 1, 1)),),
    )
    assert Expected.model_validate_json(content.model_dump_json()) == content
