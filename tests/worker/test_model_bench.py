"""`models check` with an example, and `models bench`: what they say of a package."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.engines import build
from tests.support import phantoms
from tests.worker import journey as journeys
from worker import assets, pace
from worker.cli import app

pytestmark = pytest.mark.usefixtures("contained")

STAGES = ["read", "preprocess", "infer", "postprocess", "measure", "encode", "total"]


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package without an example; the images are in `in`."""
    monkeypatch.chdir(tmp_path)
    phantoms.write(journeys.datasets(), tmp_path / "in")
    return journeys.write_model(tmp_path / "tiny")


def _run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["models", *map(str, arguments)])


def _recorded(tiny: Path) -> Path:
    result = _run("check", tiny, "--record", "in")
    assert result.exit_code == 0, result.stderr
    return tiny


def test_an_example_is_recorded_and_then_holds_on_every_engine(tiny: Path) -> None:
    _recorded(tiny)
    assert sorted(path.name for path in (tiny / "example").iterdir()) == [
        "expected.json",
        "expected.npz",
        "input.npz",
    ]
    (line,) = json.loads(_run("check", tiny, "--json").stdout)
    assert line["agrees"] and [verdict["agrees"] for verdict in line["example"]] == [True, True]
    assert [verdict["engine"].split()[0] for verdict in line["example"]] == ["openvino", "onnxruntime"]
    assert {verdict["dice"] for verdict in line["example"]} == {1.0}
    assert "dice" in _run("check", tiny).stdout
    # Nobody's name is in it
    for path in (tiny / "example").iterdir():
        assert not [token for token in journeys.TOKENS if token.encode() in path.read_bytes()]


def test_an_answer_that_is_not_the_expected_one_fails_the_check(tiny: Path) -> None:
    values = _recorded(tiny) / "example" / "expected.json"
    content: dict[str, Any] = json.loads(values.read_text())
    content["measurements"][0]["value"] += 100
    values.write_text(json.dumps(content))
    result = _run("check", tiny)
    assert result.exit_code == 1
    assert "tiny: its example, on openvino" in result.stderr and "measurement volume" in result.stderr


def test_a_recording_keeps_the_tolerances_that_its_author_chose(tiny: Path) -> None:
    values = _recorded(tiny) / "example" / "expected.json"
    content = json.loads(values.read_text()) | {"minimum_dice": 0.9, "relative": 0.25}
    values.write_text(json.dumps(content))
    # From its own input, as well
    assert _run("check", tiny, "--record", tiny / "example" / "input.npz").exit_code == 0
    kept = json.loads(values.read_text())
    assert (kept["minimum_dice"], kept["relative"]) == (0.9, 0.25)


def test_what_cannot_be_recorded_says_why(tiny: Path, tmp_path: Path) -> None:
    phantoms.write(journeys.datasets(modality="MR"), tmp_path / "other")
    refused = _run("check", tiny, "--record", "other")
    assert refused.exit_code == 1 and "takes 0 of the series there" in refused.stderr
    np.savez(tmp_path / "half.npz", **{"image.voxels": np.zeros((2, 2, 2))})
    half = _run("check", tiny, "--record", "half.npz")
    assert half.exit_code == 1 and "there is no image.affine" in half.stderr
    assert not (tiny / "example").exists()
    assert _run("check", "--record", "in").exit_code == 2


@pytest.mark.parametrize(("source", "stages"), [(("in",), STAGES), ((), STAGES[1:5] + STAGES[6:])])
def test_a_model_is_measured_stage_by_stage(tiny: Path, source: tuple[str, ...], stages: list[str]) -> None:
    _recorded(tiny)
    result = _run("bench", tiny, *source, "--repeats", 3, "--json", "--plot", "plot.png")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert [stage["stage"] for stage in found["stages"]] == stages
    assert (found["model"], found["rounds"]) == ("tiny", 3) and found["input"].startswith("6 x 32 x 40")
    total = found["stages"][-1]
    for stage in found["stages"]:
        assert 0 <= stage["median"] <= stage["p90"] <= stage["longest"] <= total["longest"]
        assert 0 < stage["peak_megabytes"] <= total["peak_megabytes"]
    assert found["per_minute"] == pytest.approx(60 / total["median"])
    with Image.open("plot.png") as picture:
        # Something of each kind of bar is drawn
        colours = {colour for _, colour in picture.getcolors(1 << 20) or []}
        assert {(0, 114, 178), (230, 159, 0)} <= colours


def test_what_is_measured_is_shown_as_a_table(tiny: Path) -> None:
    result = _run("bench", tiny, "in", "--repeats", 1)
    assert result.exit_code == 0
    assert all(word in result.stdout for word in (*STAGES, "median s", "peak MB", "a minute"))


def test_what_cannot_be_measured_says_why(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    result = _run("bench", tiny)
    assert result.exit_code == 1 and "tiny has no example" in result.stderr
    # A picture that has no place is refused before minutes of measuring
    monkeypatch.setattr(pace, "measure", lambda *_, **__: pytest.fail("it was measured first"))
    result = _run("bench", tiny, "in", "--repeats", 1, "--plot", "gone/plot.png")
    assert result.exit_code == 1 and "--plot gone/plot.png: there is no folder" in result.stderr


def test_the_shipped_model_gives_the_answer_of_its_example() -> None:
    result = _run("check", assets.models() / "chest-ct", "--json")
    assert result.exit_code == 0, result.stderr
    (line,) = json.loads(result.stdout)
    assert [verdict["agrees"] for verdict in line["example"]] == [True, True]
    size = sum(path.stat().st_size for path in (assets.models() / "chest-ct" / "example").iterdir())
    assert size < 300_000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"labels": 4}, "the manifest's labels and the background need (1, 5, "),
        ({"inputs": [build.entry(name="other")]}, "the network has the inputs ["),
    ],
)
def test_a_network_that_the_manifest_does_not_describe_is_refused_with_what_to_do(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    # Given a package whose manifest means another network
    folder = build.write(tmp_path / "odd", build.network(), **changes)
    # When it is checked
    result = _run("check", folder)
    # Then the file and the remedy are named
    assert result.exit_code == 1
    [line] = [line for line in result.stderr.splitlines() if said in line]
    assert f"{folder / 'model.yaml'}: " in line
    assert line.endswith("correct the manifest, or export the network again")
