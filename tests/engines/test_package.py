"""A package is checked before anything in it is used, and every complaint says where and what to do."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from engines import package
from engines.errors import PackageError
from tests.engines import build

WEIGHTS = b"not looked into by the package"


def _open_changed(folder: Path, **changes: Any) -> str:
    """The complaint about a package whose manifest has `changes`."""
    build.write(folder, WEIGHTS, **changes)
    with pytest.raises(PackageError) as caught:
        package.open_package(folder)
    return str(caught.value)


def test_a_good_package_opens_with_its_identity(tmp_path: Path) -> None:
    opened = package.open_package(build.write(tmp_path, WEIGHTS))
    assert opened.identity.name == "tiny"
    assert opened.identity.digest == opened.digest
    assert opened.weights == tmp_path / "model.onnx"
    assert opened.read_weights() == WEIGHTS
    assert [segment.number for segment in opened.segments] == [1, 2]


def test_the_digest_covers_manifest_and_weights(tmp_path: Path) -> None:
    first = package.open_package(build.write(tmp_path / "a", WEIGHTS))
    same = package.open_package(build.write(tmp_path / "b", WEIGHTS))
    other_weights = package.open_package(build.write(tmp_path / "c", WEIGHTS + b"!"))
    other_manifest = package.open_package(build.write(tmp_path / "d", WEIGHTS, version="1.0.1"))
    assert first.digest == same.digest
    assert len({first.digest, other_weights.digest, other_manifest.digest}) == 3


def test_changed_weights_are_refused_on_open_and_on_read(tmp_path: Path) -> None:
    build.write(tmp_path, WEIGHTS)
    opened = package.open_package(tmp_path)
    opened.weights.write_bytes(WEIGHTS[:-1])
    with pytest.raises(
        PackageError, match=r"model\.yaml: weights\.sha256: model\.onnx has .* fetch the package again"
    ):
        package.open_package(tmp_path)
    with pytest.raises(PackageError, match=r"weights\.sha256"):
        opened.read_weights()


def _probable(count: int) -> dict[str, Any]:
    """An output whose labels all have their probability given."""
    labels = [build.label(number, f"label{number}", probability=True) for number in range(1, count + 1)]
    return {"name": "logits", "labels": labels}


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        (
            {"wieghts": {}},
            "model.yaml: wieghts: Extra inputs are not permitted: remove it or correct its spelling",
        ),
        ({"version": 1.0}, "model.yaml: version: Input should be a valid string: put it in quotes"),
        (
            {"task": "guess"},
            "model.yaml: task: Input should be 'segmentation', 'classification', 'detection', 'regression' or 'image': correct it",
        ),
        ({"tiling": {"patch": [8, 8]}}, "model.yaml: tiling.patch[2]: Field required: add it"),
        (
            {"inputs": [build.entry(intensity={"kind": "windw"})]},
            "model.yaml: inputs[0].intensity: Input tag 'windw'",
        ),
        (
            {"inputs": [build.entry(orientation="HHL")]},
            "model.yaml: inputs[0].orientation: Value error, it must name one of L and R, one of A and P",
        ),
        (
            {"format": 2},
            "model.yaml: format: 2 is newer than this secondread understands (1): update secondread",
        ),
        (
            {"outputs": [{"name": "logits", "labels": [{**build.label(1, "a"), "label": "a\\b"}]}]},
            "outputs[0].labels[0].label: Value error, write it without backslash, control characters",
        ),
        (
            {"outputs": [{"name": "logits", "labels": [{**build.label(1, "a"), "label": "a" * 65}]}]},
            "outputs[0].labels[0].label: String should have at most 64 characters",
        ),
        (
            {"outputs": [{"name": "logits", "labels": [{**build.label(1, "a"), "type": None}]}]},
            "outputs[0].labels[0].type: Input should be a valid dictionary",
        ),
        (
            {"measurements": [build.measurement("v", "volume", name=build.code("1", "Vol\x1b[31mume"))]},
            "measurements[0].name.meaning: Value error, write it without backslash, control characters",
        ),
        (
            {"measurements": [build.measurement("d", "longest_diameter", unit=build.ML)]},
            'measurements.d.unit.value: longest_diameter cannot be given in "mL": use cm or mm (UCUM)',
        ),
        (
            {"measurements": [build.measurement("v", "volume", unit=build.HU)]},
            'measurements.v.unit.value: volume cannot be given in "[hnsf\'U]": use',
        ),
        (
            {"measurements": [build.measurement("p", "percent_below", threshold=1, unit=build.ML)]},
            'measurements.p.unit.value: percent_below cannot be given in "mL": use % (UCUM)',
        ),
        (
            {
                "measurements": [build.measurement("v", "volume")],
                "findings": [
                    {"key": "f", "code": build.code(), "measurement": "v", "above": 9, "below": 3},
                ],
            },
            "findings.f: no value is above 9 and below 3: write two rules to find either",
        ),
        ({"measurements": [build.measurement("v", "volume", of=["heart"])]}, "no label is called ['heart']"),
        ({"results": ["fractional"]}, "results: fractional needs a label with probability: true"),
        (
            {"results": ["parametric-map"], "outputs": [_probable(2)]},
            "mark one label with probability: true, not 2, or ask for fractional",
        ),
    ],
)
def test_a_wrong_manifest_names_file_key_and_remedy(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    assert complaint in _open_changed(tmp_path, **changes)


def test_a_list_with_a_wrong_entry_is_not_called_too_short(tmp_path: Path) -> None:
    complaint = _open_changed(tmp_path, outputs=[{"name": "logits", "labels": [build.label(0, "lung")]}])
    (line,) = complaint.splitlines()
    assert "outputs[0].labels[0].index: Input should be greater than or equal to 1" in line


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    complaint = _open_changed(tmp_path, task="guess", version=1.0)
    assert len(complaint.splitlines()) == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"format: [1", "line 1:"),
        (b"format: 1\nname: a\nname: b\n", 'line 3: "name" is given twice'),
        (b"- 1\n", "must be a mapping"),
        (b"", "must be a mapping"),
        (b"\x00\xff\xfe", "not YAML"),
        (b"!!python/object/apply:os.system [true]", "could not determine a constructor"),
        (b"? [1, 2]\n: x\n", "unhashable"),
        (b"version: 2026-13-45\n", "a value that is none (month must be in 1..12)"),
        (b"format: 0b_\n", "a value that is none"),
        (b"format: " + b"[" * 3000, "a value that is none"),
    ],
)
def test_what_is_not_a_manifest_is_refused(tmp_path: Path, text: bytes, complaint: str) -> None:
    (tmp_path / "model.yaml").write_bytes(text)
    with pytest.raises(PackageError) as caught:
        package.open_package(tmp_path)
    assert complaint in str(caught.value)
    assert "model.yaml" in str(caught.value)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="there is no such folder"):
        package.open_package(tmp_path / "nowhere")
    with pytest.raises(PackageError, match=r"model\.yaml: there is no such file"):
        package.open_package(tmp_path)
    (build.write(tmp_path, WEIGHTS) / "model.onnx").unlink()
    with pytest.raises(PackageError, match=r"weights\.file: there is no .*model\.onnx"):
        package.open_package(tmp_path)


@pytest.mark.parametrize("name", ["pre.py", "lib.so", "setup.SH", "old.pth", "deep/er/a.pkl", "model.zip"])
def test_code_is_refused_wherever_it_lies(tmp_path: Path, name: str) -> None:
    path = build.write(tmp_path, WEIGHTS) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    with pytest.raises(PackageError, match="holds no code: remove the file"):
        package.open_package(tmp_path)


@pytest.mark.parametrize("content", [b"\x7fELF\x02", b"MZ\x90", b"#!/bin/sh\n"])
def test_a_program_is_refused_whatever_it_is_called(tmp_path: Path, content: bytes) -> None:
    (build.write(tmp_path, WEIGHTS) / "README.md").write_bytes(content)
    with pytest.raises(PackageError, match="holds no code"):
        package.open_package(tmp_path)


def test_nothing_outside_the_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "outside.onnx").write_bytes(WEIGHTS)
    weights = {"file": "../outside.onnx", "sha256": hashlib.sha256(WEIGHTS).hexdigest()}
    assert "weights.file: ../outside.onnx is outside the package" in _open_changed(
        tmp_path / "a", weights=weights
    )
    (build.write(tmp_path / "b", WEIGHTS) / "link.onnx").symlink_to(tmp_path / "outside.onnx")
    with pytest.raises(PackageError, match="leads out of the package"):
        package.open_package(tmp_path / "b")
    (build.write(tmp_path / "c", WEIGHTS) / "loop").symlink_to("loop")
    with pytest.raises(PackageError, match=r"loop: it cannot be read .*: mend or remove it"):
        package.open_package(tmp_path / "c")


def test_a_broken_package_does_not_hide_the_good_ones(tmp_path: Path) -> None:
    # Given two good packages, a broken one, a namesake, and a folder that is no package
    build.write(tmp_path / "models" / "one", WEIGHTS, name="one")
    build.write(tmp_path / "models" / "broken", WEIGHTS, task="guess")
    build.write(tmp_path / "models" / "two", WEIGHTS, name="two")
    (tmp_path / "models" / "notes").mkdir()
    build.write(tmp_path / "elsewhere", WEIGHTS, name="one", version="2.0.0")
    # When they are discovered, one folder being a package itself and one missing
    found, errors = package.discover([tmp_path / "models", tmp_path / "elsewhere", tmp_path / "gone"])
    # Then the good ones are there, and each other one is an error that names it
    assert [opened.manifest.name for opened in found] == ["one", "two"]
    complaints = [str(error) for error in errors]
    assert len(complaints) == 3
    assert "broken" in complaints[0]
    assert "elsewhere" in complaints[1] and "rename or remove" in complaints[1]
    assert "gone" in complaints[2]


def test_a_folder_given_twice_is_one_package(tmp_path: Path) -> None:
    build.write(tmp_path / "one", WEIGHTS)
    found, errors = package.discover([tmp_path, tmp_path / "one"])
    assert len(found) == 1
    assert errors == []


def test_words_of_another_language_reach_the_model_s_identity(tmp_path: Path) -> None:
    words = {"zh": {"intended_use": "测试", "labels": {"label2": "右肺"}}}
    made = package.open_package(build.write(tmp_path, WEIGHTS, words=words)).identity.words["zh"]
    assert made.intended_use == "测试"
    assert dict(made.segments) == {2: "右肺"}
    assert dict(made.measurements) == {}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"zh": {"labels": {"spleen": "脾"}}}, "words.zh.labels: there is no ['spleen']"),
        ({"zh": {"findings": {"x": "y"}}}, "words.zh.findings: there is no ['x']"),
        ({"zh": {"labels": {"label1": ""}}}, "at least 1 character"),
        ({"fr": {}}, "words.fr"),
    ],
)
def test_words_must_be_of_what_is_there(words: dict[str, Any], complaint: str, tmp_path: Path) -> None:
    assert complaint in _open_changed(tmp_path, words=words)


def test_the_shipped_model_speaks_chinese_of_all_that_it_says() -> None:
    shipped = package.open_package(Path(__file__).parents[2] / "models" / "chest-ct")
    words, manifest = shipped.identity.words["zh"], shipped.manifest
    assert set(words.segments) == {segment.number for segment in shipped.segments}
    assert set(words.measurements) == {entry.key for entry in manifest.measurements}
    assert set(words.findings) == {rule.key for rule in manifest.findings}
