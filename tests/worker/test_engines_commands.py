"""`secondread engines`: on a pretended GPU, as an admin would, and on a machine that has none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from click.testing import Result
from PIL import Image
from typer.testing import CliRunner

from engines import package as model_package
from engines import plans
from engines.plans import Plans
from tests.engines import build
from tests.support.double import Machine
from tests.worker.compiled import H200
from worker.cli import app

ROOT = Path(__file__).resolve().parents[2]

Run = Callable[..., Result]
GPU = "Pretended GPU (9.0), tensorrt 11.4.0.106"

pytestmark = pytest.mark.usefixtures("contained")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Two models, "tiny" and "after", which needs it."""
    _write(tmp_path / "models" / "tiny")
    first = model_package.open_package(tmp_path / "models" / "tiny")
    use = {"kind": "crop", "labels": ["label1"], "margin_mm": 2}
    _write(tmp_path / "models" / "after", after=[{"model": "tiny", "digest": first.digest, "use": use}])
    path = tmp_path / "config.yaml"
    path.write_text(f"storage: {tmp_path / 'data'}\nmodels: [{tmp_path / 'models'}]\nwork: {{threads: 1}}\n")
    return path


@pytest.fixture
def run(config: Path) -> Run:
    """A command in this process."""

    def invoke(*arguments: str) -> Result:
        return CliRunner().invoke(app, ["engines", *arguments, "--config", str(config)])

    return invoke


def _write(folder: Path, **changes: Any) -> Path:
    return build.write(folder, build.thresholds((0.6, 0.8)), name=folder.name, **changes)


def _plans(run: Run) -> list[dict[str, Any]]:
    """What `engines list` says of the plans."""
    listed = run("list", "--json")
    assert listed.exit_code == 0, listed.stderr
    found: list[dict[str, Any]] = json.loads(listed.stdout)["plans"]
    return found


def test_a_model_is_built_with_those_that_it_needs_and_judged(
    run: Run, machine: Machine, config: Path
) -> None:
    # Given a process of its own, as an admin has it
    command = [sys.executable, "-m", "worker.cli", "engines", "build", "after", "--config", str(config)]
    environment = {**os.environ, **machine.environment}
    built = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    # Then
    assert built.returncode == 0, built.stderr
    assert f"for {GPU}" in built.stderr and "tiny: " in built.stderr
    assert "tiny 1.0.0 float16  verified" in built.stdout and "after 1.0.0 float16  verified" in built.stdout
    assert "compared on a patch of noise with onnxruntime" in built.stdout
    plans = _plans(run)
    assert [(plan["model"], plan["serves"], plan["here"], plan["current"]) for plan in plans] == [
        ("after", True, True, True),
        ("tiny", True, True, True),
    ]
    assert all(0 <= plan["largest_difference"] < 0.02 and plan["megabytes"] > 0 for plan in plans)


def test_what_is_built_stays_and_is_judged_anew_when_that_is_asked_for(run: Run, machine: Machine) -> None:
    assert run("build").exit_code == 0
    plans = _plans(run)
    assert run("build", "tiny").exit_code == 0 and _plans(run) == plans
    verified = json.loads(run("verify", "--json").stdout)
    assert sorted(plan["model"] for plan in verified) == ["after", "tiny"]
    assert {plan["built_at"] for plan in verified} == {plan["built_at"] for plan in plans}
    assert min(plan["judged_at"] for plan in verified) > max(plan["judged_at"] for plan in plans)


def test_a_plan_whose_file_is_gone_or_cut_short_is_not_said_to_serve(
    run: Run, machine: Machine, tmp_path: Path
) -> None:
    assert run("build", "tiny").exit_code == 0
    (path,) = (tmp_path / "data" / "plans").glob("*.plan")
    path.write_bytes(path.read_bytes()[:-1])
    for _ in ("cut short", "gone"):
        [plan] = _plans(run)
        assert not plan["serves"]
        assert plan["state"] == "its file is gone or cut short: run `secondread engines build tiny`"
        path.unlink(missing_ok=True)
    assert run("build", "tiny").exit_code == 0
    assert [(plan["serves"], plan["state"]) for plan in _plans(run)] == [(True, "verified")]


def test_a_plan_that_differs_is_refused_with_what_to_do_and_is_found_again(
    run: Run, machine: Machine
) -> None:
    # Given a plan that was right
    assert run("build", "tiny", "--precision", "fp32").exit_code == 0
    # When the GPU computes something else
    machine.change(bias=40.0)
    verified = run("verify", "tiny")
    # Then
    assert verified.exit_code == 1
    assert "tiny, float32: differs from the reference: output" in verified.stderr
    assert "gpu.tolerance" in verified.stderr and "precision: float32" in verified.stderr
    [plan] = _plans(run)
    assert not plan["serves"] and plan["precision"] == "float32"
    assert "differs from the reference" in run("list").stdout
    assert run("build", "tiny", "--precision", "float32").exit_code == 1
    machine.change(bias=0.0)
    assert run("build", "tiny", "--precision", "float32", "--again").exit_code == 0


def test_what_the_compiler_refuses_is_said_in_its_words(run: Run, machine: Machine) -> None:
    machine.change(refuses=["Conv"])
    built = run("build", "tiny")
    assert built.exit_code == 1
    assert "tiny: TensorRT cannot read the network: node" in built.stderr and "Conv" in built.stderr
    [plan] = _plans(run)
    assert (plan["size"], plan["serves"]) == (0, False) and plan["state"].startswith("not built: TensorRT")
    verified = run("verify")
    assert verified.exit_code == 1 and "not built: TensorRT cannot read the network" in verified.stderr


def test_a_gpu_that_has_no_memory_left_fails_the_build_and_is_not_remembered(
    run: Run, machine: Machine
) -> None:
    machine.change(full_at_build=True)
    built = run("build", "tiny")
    assert built.exit_code == 1 and "memory does not suffice" in built.stderr
    machine.change(full_at_build=False)
    assert run("build", "tiny").exit_code == 0


def test_plans_of_another_gpu_and_of_an_earlier_package_are_told_apart(
    run: Run, machine: Machine, tmp_path: Path
) -> None:
    tiny = model_package.open_package(tmp_path / "models" / "tiny")
    Plans(folder=tmp_path / "data" / "plans").build_once(
        tiny, plans.key_for(tiny, H200), lambda: b"a plan that is for another GPU"
    )
    _write(tmp_path / "models" / "tiny", gpu={"tolerance": 0.5})
    [plan] = _plans(run)
    assert (plan["here"], plan["current"]) == (False, False)
    listed = run("list").stdout
    assert "it is for another GPU or compiler than this machine's" in listed
    assert "`secondread engines build tiny` makes the present one's" in listed
    assert f"{GPU}; 4096 of 4096 MB are free" in listed
    missing = run("verify", "tiny")
    assert missing.exit_code == 1 and "tiny: there is no plan for Pretended GPU" in missing.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"devices": 0}, "no CUDA-capable device is detected: install or update the NVIDIA driver"),
        ({"driver": 11080}, "update the NVIDIA driver"),
    ],
)
def test_a_machine_that_lacks_something_says_what(
    run: Run, machine: Machine, change: dict[str, Any], said: str
) -> None:
    machine.change(**change)
    _says_what_is_missing(run, said)


def test_a_machine_without_the_libraries_says_how_to_install_them(run: Run) -> None:
    _says_what_is_missing(
        run, "is not installed: install it beside the NVIDIA driver: pip install 'secondread[gpu]'"
    )


def _says_what_is_missing(run: Run, said: str) -> None:
    listed = run("list")
    assert listed.exit_code == 0, listed.stderr
    assert "no GPU can be used: " in listed.stdout and said in listed.stdout
    assert "CPUExecutionProvider" in listed.stdout and "analyses run on openvino" in listed.stdout
    for command in ("build", "verify"):
        refused = run(command)
        assert refused.exit_code == 1 and said in refused.stderr


def test_where_nothing_is_compiled_there_is_nothing_to_verify(run: Run, machine: Machine) -> None:
    none = run("verify")
    assert none.exit_code == 0 and "`secondread engines build` makes them" in none.stderr


def test_a_precision_that_there_is_not_is_bad_usage(run: Run) -> None:
    refused = run("build", "tiny", "--precision", "int8")
    assert refused.exit_code == 2 and "no precision 'int8'" in refused.stderr


def test_a_plan_is_measured_beside_the_fallback_and_the_reference(
    run: Run, machine: Machine, tmp_path: Path
) -> None:
    assert run("build", "tiny").exit_code == 0
    plot = tmp_path / "plot.svg"
    measured = run("bench", "tiny", "--rounds", "3", "--json", "--plot", str(plot))
    assert measured.exit_code == 0, measured.stderr
    found = json.loads(measured.stdout)
    assert (found["model"], found["patch"], found["rounds"]) == ("tiny", "8 x 16 x 16", 3)
    plan, fallback, reference = found["engines"]
    assert plan["engine"] == "tensorrt 11.4.0.106 Pretended GPU float16" and plan["megabytes"] > 0
    assert list(plan["stages"]) == ["stage", "copy in", "compute", "copy out"]
    assert all(0 < each["p50"] <= each["p90"] <= each["p99"] for each in found["engines"])
    assert (fallback["asked"], fallback["stages"], fallback["megabytes"]) == ("openvino", {}, None)
    assert reference["engine"].startswith("onnxruntime") and reference["speed_up"] == 1.0
    assert plan["speed_up"] == pytest.approx(plan["per_second"] / reference["per_second"])
    drawn = ElementTree.parse(plot).getroot()
    words = [each.text or "" for each in drawn.iter("{http://www.w3.org/2000/svg}text")]
    assert "tensorrt 11.4.0.106 Pretended GPU float16" in words and len(list(drawn)) > 15


def test_without_a_gpu_the_others_are_measured_and_it_is_said(run: Run, tmp_path: Path) -> None:
    plot = tmp_path / "plot.png"
    measured = run("bench", "tiny", "--rounds", "1", "--plot", str(plot))
    assert measured.exit_code == 0, measured.stderr
    assert "tensorrt is missing: " in measured.stdout and "openvino" in measured.stdout
    with Image.open(plot) as picture:
        colours = {colour for _, colour in picture.getcolors(1 << 20) or []}
        assert {(0, 114, 178), (230, 159, 0)} <= colours
    refused = run("bench", "tiny", "--rounds", "1", "--plot", "plot.gif")
    assert refused.exit_code == 1 and "--plot plot.gif: write a name that ends with" in refused.stderr
