"""Models that need other models: on their way through an installation, and through `secondread run`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engines import package
from engines.errors import PackageError
from engines.package import ModelPackage
from engines.plans import Plans
from tests.engines import build
from tests.support import gpu_worker, phantoms
from tests.support.double import Machine
from tests.support.gpu_worker import FLOAT32
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from worker import stand_in
from worker.shelf import Shelf

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def _write(folder: Path, **changes: Any) -> ModelPackage:
    """The tiny model of all journeys, under its folder's name."""
    return package.open_package(journeys.write_model(folder, name=folder.name, **changes))


def _after(earlier: ModelPackage, **use: Any) -> dict[str, Any]:
    wanted = {"kind": "crop", "labels": ["bone"], "margin_mm": 2} | use
    return {"model": earlier.manifest.name, "digest": earlier.digest, "use": wanted}


def _two_stages(folder: Path, threshold_hu: float = 500) -> ModelPackage:
    """The second looks where the first found what is above the threshold: all of that is bone."""
    share = (threshold_hu + 1000) / 2000
    outputs = [{"name": "logits", "labels": [build.label(1, "bone")]}]
    plain: dict[str, Any] = {"measurements": [], "findings": [], "outputs": outputs}
    path = build.write(
        folder / "finder",
        build.thresholds((share,)),
        name="finder",
        inputs=[build.entry(series={"Modality": "CT"})],
        **plain,
    )
    return _write(folder / "tiny", after=[_after(package.open_package(path))])


@pytest.fixture
def cascade(journey: Journey, tmp_path: Path) -> Iterator[Journey]:
    """An installation whose one route asks for the second of two models."""
    _two_stages(tmp_path / "models")
    journey.shelf = Shelf([tmp_path / "models"], threads=1)
    assert not journey.shelf.problems
    yield journey
    journey.shelf.close()


def test_a_routed_job_asks_the_first_model_too(cascade: Journey) -> None:
    cascade.run(journeys.datasets())
    job = cascade.job()
    assert (job.state, job.error) == ("done", "")
    assert [made.problem for made in job.objects] == ["", ""]
    assert job.seconds["finder"] > 0
    (sr,) = [file for file in cascade.sent() if file.path.name == "sr.dcm"]
    finder = cascade.shelf.package("finder")
    assert f"after: finder sha256:{finder.digest}".encode() in sr.path.read_bytes()
    # And both are warm: the second model of the next job finds the first one's network open
    assert cascade.shelf.stage("tiny").earlier["finder"].runner is cascade.shelf.runner("finder")


def test_nothing_to_look_at_is_an_answer_and_its_report_says_so(journey: Journey, tmp_path: Path) -> None:
    _two_stages(tmp_path / "models", threshold_hu=990)
    journey.shelf = Shelf([tmp_path / "models"], threads=1)
    made = journeys.datasets()
    for ds in made:
        ds.RescaleSlope = 0.1
    journey.run(made)
    journey.shelf.close()
    job = journey.job()
    assert (job.state, job.error) == ("done", "")
    assert (job.measurements, job.findings) == ([], [])
    said = "tiny had nothing to look at: finder 1.0.0 found no Bone"
    assert said in job.notes
    [sr] = journey.sent()
    assert said.encode() in sr.path.read_bytes()


def run_command(folder: Path, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "worker.cli", *map(str, arguments)]
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(Path(__file__).parents[2]), **environ}
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env=environment, timeout=120)


def test_run_finds_the_first_model_beside_the_second(tmp_path: Path) -> None:
    package_folder = _two_stages(tmp_path / "models").folder
    phantoms.write(journeys.datasets(), tmp_path / "in")
    done = run_command(tmp_path, "run", package_folder, tmp_path / "in", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "findings.json").read_text())
    voxels = {segment["label"]: segment["voxels"] for segment in found["segments"]}
    assert voxels["Bone"] > 0
    assert "finder" in done.stdout


def test_run_names_each_model_that_took_the_gpu_s_place(tmp_path: Path) -> None:
    package_folder = _two_stages(tmp_path / "models").folder
    phantoms.write(journeys.datasets(), tmp_path / "in")
    words = ("run", package_folder, tmp_path / "in", "--out", tmp_path / "out")
    done = run_command(tmp_path, *words, SECONDREAD_WORK__ENGINE="tensorrt")
    assert done.returncode == 0, done.stderr
    engine = json.loads((tmp_path / "out" / "findings.json").read_text())["engine"]
    own, finder = engine.split("; finder on ")
    assert "CPU float32, in place of tensorrt: " in own and "CPU float32, in place of tensorrt: " in finder
    # The terminal has all of it, brackets too; what radiologists read has nothing for admins
    assert engine in done.stdout and "secondread[gpu]" in engine
    report = " ".join((tmp_path / "out" / "report.txt").read_text().split())
    sr = (tmp_path / "out" / "sr.dcm").read_bytes()
    for said in (report, sr.decode(errors="replace")):
        assert "in place of tensorrt; finder on openvino" in said
        assert "pip install" not in said and "is not installed" not in said


def test_the_members_of_an_earlier_ensemble_are_named_where_they_took_the_gpu_s_place(
    machine: Machine, tmp_path: Path
) -> None:
    """All have a plan but one network of the first model's two."""
    kept, models = Plans(folder=tmp_path / "plans"), tmp_path / "models"
    member = _write(models / "fold", gpu=FLOAT32)
    beside = [{"model": "fold", "digest": member.digest}]
    first = _write(models / "first", gpu=FLOAT32, ensemble=beside)
    last = _write(models / "last", gpu=FLOAT32, after=[_after(first)])
    for each in (first, last):
        gpu_worker.accept(each, kept)
    shelf = gpu_worker.shelf([models], kept)
    own, others = stand_in.ran_on(shelf.stage("last")).split("; fold on ")
    assert own == "tensorrt 11.4.0.106 Pretended GPU float32"
    assert "CPU float32, in place of tensorrt: fold has no plan" in others
    shelf.close()


def test_the_list_shows_what_a_model_needs_and_what_it_lacks(tmp_path: Path) -> None:
    _two_stages(tmp_path / "models")
    _write(tmp_path / "models" / "many", ensemble=[{"model": "gone", "digest": "0" * 64}])
    (tmp_path / "secondread.yaml").write_text("models: [models]\n")
    done = run_command(tmp_path, "models", "list", "--json", "--config", "secondread.yaml")
    assert {line["name"]: line["needs"] for line in json.loads(done.stdout)} == {
        "finder": [],
        "tiny": ["finder"],
    }
    assert done.returncode == 1
    assert "many/model.yaml: ensemble[0].model: there is no usable model gone" in done.stderr


def test_a_route_to_a_model_that_lacks_another_is_told_which(tmp_path: Path) -> None:
    _write(
        tmp_path / "tiny",
        after=[{"model": "gone", "digest": "0" * 64, "use": {"kind": "crop", "labels": ["a"]}}],
    )
    shelf = Shelf([tmp_path])
    assert shelf.packages == {} and shelf.rules == {}
    with pytest.raises(PackageError, match="there is no usable model gone"):
        shelf.package("tiny")


def test_an_ensemble_s_networks_are_shared_with_the_models_that_they_are(tmp_path: Path) -> None:
    member = _write(tmp_path / "fold1")
    _write(tmp_path / "tiny", ensemble=[{"model": "fold1", "digest": member.digest}])
    shelf = Shelf([tmp_path], threads=1)
    assert shelf.stage("tiny").members == (shelf.runner("fold1"),)
    shelf.close()
