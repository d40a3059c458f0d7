"""`models add` and `models import-monai` in the shell: what was made, what is left to do, and every failure a sentence."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from tests.engines import build, nets
from worker import cli

pytestmark = pytest.mark.usefixtures("contained")


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["models", *map(str, arguments)])


def test_an_onnx_file_becomes_a_package_and_check_says_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a plain ONNX file, added as a package
    monkeypatch.chdir(tmp_path)
    (tmp_path / "network.onnx").write_bytes(build.network(shape=(8, 16, 16)))
    added = _run("add", "network.onnx", "--out", "made")
    # Then it says what it took it for, and what its author must fill in
    assert added.exit_code == 0, added.stderr
    assert "task: segmentation, guessed from the outputs logits: float32 (any, 3, 8, 16, 16)" in added.stdout
    assert "made: network\n" in added.stdout
    assert "line 4: fill in the licence of the weights, and remove this line" in added.stderr
    # When it is checked, the backends agree, and what is left stands there, file and line
    (tmp_path / "secondread.yaml").write_text(f"models: [{tmp_path / 'made'}]\n")
    checked = _run("check", "network", "--config", "secondread.yaml", "--data", tmp_path / "storage")
    assert checked.exit_code == 1
    assert "model.yaml: line 4: fill in the licence of the weights" in checked.stderr
    # So it does where the network does not even fit
    manifest = tmp_path / "made" / "model.yaml"
    whole = manifest.read_text()
    manifest.write_text(whole.replace("name: logits", "name: other"))
    checked = _run("check", "network", "--config", "secondread.yaml", "--data", tmp_path / "storage")
    assert checked.exit_code == 1 and "nothing" not in checked.stdout
    assert 'the manifest names "other"' in checked.stderr
    assert "model.yaml: line 4: fill in the licence of the weights" in checked.stderr
    # And once it is filled in, it passes
    manifest.write_text(whole)
    manifest.write_text("\n".join(line for line in manifest.read_text().splitlines() if "# TODO" not in line))
    checked = _run("check", "network", "--config", "secondread.yaml", "--data", tmp_path / "storage")
    assert checked.exit_code == 0, checked.stderr


@pytest.mark.parametrize(
    ("task", "keys"),
    [
        ("classification", ["classes.class_0.code: IMPORTED-0", "classes.class_1.code: IMPORTED-1"]),
        ("regression", ["values.value_0.name: IMPORTED-0", "values.value_1.name: IMPORTED-1"]),
        ("segmentation", ["labels.label_1.type: IMPORTED-1", "labels.label_2.type: IMPORTED-2"]),
    ],
)
def test_codes_that_only_stand_for_others_are_warned_of_whatever_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, keys: list[str]
) -> None:
    # Given a package of a plain ONNX file, whose codes nobody knows
    monkeypatch.chdir(tmp_path)
    network = (
        build.network(shape=(8, 16, 16)) if task == "segmentation" else nets.pooled((0.0,) * 2, (1.0,) * 2)
    )
    (tmp_path / "network.onnx").write_bytes(network)
    (tmp_path / "secondread.yaml").write_text(f"models: [{tmp_path / 'made'}]\n")
    added = _run("add", "network.onnx", "--out", "made", "--task", task)
    # When it is made, and when it is checked
    checked = _run("check", "network", "--config", "secondread.yaml", "--data", tmp_path / "storage")
    # Then each of them is named
    for said in (added.stderr, checked.stderr):
        lines = [line.split("outputs[0].")[1] for line in said.splitlines() if "is a placeholder" in line]
        assert lines == [f"{key} is a placeholder: give the code that others know" for key in keys]


def test_a_failure_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "text.onnx").write_text("no network")
    refused = _run("add", tmp_path / "text.onnx", "--out", tmp_path / "made")
    assert refused.exit_code == 1
    assert "text.onnx: this is no network that can be run" in refused.stderr
    refused = _run("import-monai", tmp_path, "--out", tmp_path / "made")
    assert refused.exit_code == 1
    assert "there is no inference.json: give the folder of a MONAI bundle" in refused.stderr
    assert not (tmp_path / "made").exists()


@pytest.mark.skipif(importlib.util.find_spec("monai") is not None, reason="MONAI is installed here")
def test_without_the_import_extra_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "metadata.json").write_text("{}")
    config = {"inferer": {"_target_": "SlidingWindowInferer", "roi_size": 32}}
    (tmp_path / "configs" / "inference.json").write_text(json.dumps(config))
    refused = _run("import-monai", tmp_path, "--out", tmp_path / "made")
    assert refused.exit_code == 1
    assert (
        "requirements-import.lock .venv-import` makes, or pip install 'secondread[import]'" in refused.stderr
    )
