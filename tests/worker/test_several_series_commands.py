"""Trying a model of several series by hand: `run` on a folder, `routes test`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pydicom
import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from tests.support import phantoms
from tests.worker import pair
from tests.worker.pair import FIRST, SECOND, THIRD
from worker.cli import app

pytestmark = pytest.mark.usefixtures("contained")

OTHER = "1.2.826.0.1.3680043.8.498.72"


def _secondread(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a model, a configuration, and the two series of a study among others of it."""
    pair.write_model(tmp_path / "models" / "pair")
    route = {"name": "brain", "when": {"Modality": "MR"}, "run": ["pair"]}
    content: dict[str, Any] = {"storage": "data", "models": ["models"], "routes": [route]}
    (tmp_path / "secondread.yaml").write_text(yaml.safe_dump(content))
    phantoms.write(pair.series(FIRST, "t1 tse"), tmp_path / "in" / "a")
    phantoms.write(pair.series(SECOND, "t2 flair", like=pair.COARSE), tmp_path / "in" / "b")
    phantoms.write(pair.series(THIRD, "survey"), tmp_path / "in" / "c")
    return tmp_path


def _run(folder: Path) -> Result:
    config = folder / "secondread.yaml"
    return _secondread("run", "pair", folder / "in", "--out", folder / "out", "--config", config)


def test_run_finds_the_series_of_each_role(folder: Path) -> None:
    result = _run(folder)
    assert result.exit_code == 0, result.output
    assert f"looks at t1 {FIRST}, t2 {SECOND}" in result.output.replace("\n", "")
    made = pydicom.dcmread(folder / "out" / "seg.dcm")
    assert [str(each.SeriesInstanceUID) for each in made.ReferencedSeriesSequence] == [FIRST, SECOND]
    assert "with t2, MR" in (folder / "out" / "report.txt").read_text()


def test_run_answers_about_each_study_and_says_of_others_what_is_missing(folder: Path) -> None:
    phantoms.write(pair.series(f"{OTHER}.1", "t1 tse", study_uid=OTHER), folder / "in" / "d")
    result = _run(folder)
    assert result.exit_code == 1
    assert f"study {OTHER}: pair cannot look at it: no series fits the role t2" in result.stderr.replace(
        "\n", " "
    )
    assert (folder / "out" / "seg.dcm").exists()
    # With its T2 both have an answer
    phantoms.write(pair.series(f"{OTHER}.2", "t2", study_uid=OTHER), folder / "in" / "e")
    result = _run(folder)
    assert result.exit_code == 0, result.output
    assert {path.parent.name for path in (folder / "out").glob("*/seg.dcm")} == {"study-1", "study-2"}


def test_run_says_of_each_series_which_role_it_does_not_fit(folder: Path) -> None:
    for name in ("a", "b"):
        for path in (folder / "in" / name).iterdir():
            path.unlink()
    result = _run(folder)
    assert result.exit_code == 1
    said = " ".join(result.stderr.split())
    assert f"series {THIRD}: as t1 SeriesDescription is survey, wanted t1*; as t2 SeriesDescription" in said


def test_routes_test_casts_each_study_by_itself(folder: Path) -> None:
    phantoms.write(pair.series(f"{OTHER}.1", "t1 tse", study_uid=OTHER), folder / "in" / "d")
    result = _secondread("routes", "test", folder / "in", "--config", folder / "secondread.yaml", "--json")
    assert result.exit_code == 0, result.output
    said = [line for line in json.loads(result.stdout) if not line["series_instance_uid"]]
    assert sorted((line["matched"], line["reason"][:26]) for line in said) == [
        (False, "no job: no series fits the"),
        (True, "each role has its series: "),
    ]
