"""A job's parameters: from a route or a command line to the network, the job's identity, its page and its report."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console

from db import jobs
from tests.engines import build
from tests.support import phantoms
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from tests.worker.test_cascade import run_command
from worker import explain, parameters, settings, up
from worker.errors import ConfigurationError
from worker.shelf import Shelf


def _network() -> bytes:
    """The journeys' two thresholds, on the image and the sum of the prompt "shift"."""
    slope = 50 * np.arange(3, dtype=np.float32)
    tensors = [
        numpy_helper.from_array(slope.reshape(3, 1, 1, 1, 1), "w"),
        numpy_helper.from_array((-50 * np.cumsum([0, journeys.LOW, journeys.HIGH])).astype(np.float32), "b"),
    ]
    nodes = [
        helper.make_node("ReduceSum", ["shift"], ["sum"], keepdims=0),
        helper.make_node("Add", ["image", "sum"], ["shifted"]),
        helper.make_node("Conv", ["shifted", "w", "b"], ["logits"]),
    ]
    space = ["n", "c", "d", "h", "w"]
    inputs = [
        helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, *space[2:]]),
        helper.make_tensor_value_info("shift", TensorProto.FLOAT, ["numbers"]),
    ]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 3, *space[2:]])]
    graph = helper.make_graph(nodes, "shifting", inputs, outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _write(folder: Path) -> Path:
    outputs = [{"name": "logits", "labels": [build.label(1, "body"), build.label(2, "bone")]}]
    return build.write(
        folder,
        _network(),
        inputs=[build.entry(series={"Modality": "CT"})],
        outputs=outputs,
        prompts=[{"name": "shift", "values": [0]}],
        measurements=[build.measurement("volume", "volume", of=["body", "bone"])],
    )


@pytest.fixture
def shifting(journey: Journey, tmp_path: Path) -> Iterator[Journey]:
    """An installation of the model with a prompt."""
    _write(tmp_path / "models" / "tiny")
    journey.shelf = Shelf([tmp_path / "models"], threads=1)
    assert not journey.shelf.problems
    yield journey
    journey.shelf.close()


def _route(name: str, **given: Any) -> Any:
    return journeys.route(name, parameters={"tiny": given} if given else {})


def test_a_route_s_parameters_reach_the_network_and_the_report(shifting: Journey) -> None:
    shifting.routes = [_route("shifted", shift=[0.1, 0.15])]
    shifting.run(journeys.datasets())
    job = shifting.job()
    assert (job.state, job.error) == ("done", "")
    # With a quarter of the window more, what is above 0 HU counts as bone
    assert [segment.voxels > 0 for segment in job.segments] == [False, True]
    (sr,) = [file for file in shifting.sent() if file.path.name == "sr.dcm"]
    assert b"shift: [0.1, 0.15]" in sr.path.read_bytes()
    # And a person is told
    assert job.parameters == {"shift": [0.1, 0.15]}
    console = Console(width=200)
    with console.capture() as said:
        console.print(explain.job_tree(job))
    assert "given shift: [0.1, 0.15]" in said.get()


def test_other_parameters_are_another_job_that_replaces_none(shifting: Journey) -> None:
    # Given three routes to one model, of which two ask the same
    shifting.routes = [_route("plain"), _route("shifted", shift=[0.25]), _route("as well", shift=[0.25])]
    shifting.run(journeys.datasets())
    plain, shifted = shifting.why().jobs
    # Then there are two jobs, with results of their own
    assert [job.state for job in (plain, shifted)] == ["done", "done"]
    assert plain.identity != shifted.identity
    assert (plain.replaced_by, shifted.replaced_by, shifted.supersedes) == (None, None, None)
    bones = [job.segments[1].voxels for job in (plain, shifted)]
    assert bones[1] == sum(segment.voxels for segment in plain.segments) > bones[0]
    assert len({made.sop_instance_uid for job in (plain, shifted) for made in job.objects}) == 4


def test_a_late_image_replaces_the_answer_to_the_same_question(shifting: Journey) -> None:
    shifting.routes = [_route("plain"), _route("shifted", shift=[0.25])]
    made = journeys.datasets()
    shifting.run(made[:-1])
    shifting.run(made[-1:], association="a2")
    first = {json.dumps(job.parameters): job for job in shifting.why().jobs if job.revision == 1}
    second = {json.dumps(job.parameters): job for job in shifting.why().jobs if job.revision == 2}
    assert set(first) == set(second) == {"{}", '{"shift": [0.25]}'}
    assert {asked: job.supersedes for asked, job in second.items()} == {
        asked: job.id for asked, job in first.items()
    }


@pytest.mark.parametrize(
    ("prompts", "said"),
    [
        ({}, 'the model has no prompt "shift": it takes none'),
        (
            {"prompts": [{"name": "shift", "values": 0}]},
            'prompt "shift" has 1 axes; the model\'s own has the shape ()',
        ),
    ],
    ids=["no prompt", "another shape"],
)
def test_a_package_that_cannot_be_asked_the_same_fails_the_job_by_the_parameter_s_name(
    shifting: Journey, tmp_path: Path, prompts: dict[str, Any], said: str
) -> None:
    # Given a job with parameters that waits, and another package in the place of its own
    shifting.routes = [_route("shifted", shift=[0.25])]
    (job_id,) = shifting.arrive(journeys.datasets())
    journeys.write_model(tmp_path / "other" / "tiny", **prompts)
    before, shifting.shelf = shifting.shelf, Shelf([tmp_path / "other"], threads=1)
    # When its turn comes
    shifting.analyse(job_id)
    # Then no job follows that could only fail, and it says which parameter it is, and of which route
    (job,) = shifting.why().jobs
    assert (job.state, job.reason, job.objects) == ("failed", "parameters", [])
    assert f"cannot be given the job's parameters: {said}" in job.error
    assert "correct routes.shifted.parameters.tiny" in job.error
    assert shifting.why().study.state == "done"
    # And once the former package is back, it can be retried
    shifting.shelf.close()
    shifting.shelf = before
    with shifting.database.write() as session:
        assert jobs.retry(session, job.id)
    shifting.recover()
    assert shifting.job().state == "done"


def test_parameters_are_one_text_in_whatever_order() -> None:
    one, other = {"a": [1], "b": 2}, {"b": 2, "a": [1]}
    assert parameters.text(one) == parameters.text(other) != parameters.text({"a": [1]})
    assert parameters.values(parameters.text(one)) == one
    assert (parameters.text({}), parameters.values("")) == ("", {})


def _config(folder: Path, given: Mapping[str, Any]) -> Path:
    _write(folder / "models" / "tiny")
    route = {"name": "ct", "when": {"Modality": "CT"}, "run": ["tiny"], "parameters": dict(given)}
    path = folder / "secondread.yaml"
    path.write_text(yaml.safe_dump({"storage": "data", "models": ["models"], "routes": [route]}))
    return path


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"other": {"shift": [1]}}, "parameters.other: the route runs tiny only"),
        (
            {"tiny": {"scale": [1]}},
            'routes.ct.parameters.tiny: the model has no prompt "scale": it has shift',
        ),
        ({"tiny": {"shift": ["much"]}}, 'routes.ct.parameters.tiny: prompt "shift": write numbers'),
        ({"tiny": {"shift": 1}}, 'routes.ct.parameters.tiny: prompt "shift" has 0 axes'),
    ],
)
def test_what_a_model_cannot_take_is_refused_as_the_configuration_is_read(
    tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        up.check(settings.load(_config(tmp_path, given)))
    assert said in str(caught.value)


def test_run_takes_parameters(tmp_path: Path) -> None:
    config = _config(tmp_path, {})
    phantoms.write(journeys.datasets(), tmp_path / "in")

    def run(name: str, *more: str) -> tuple[int, str]:
        words = ("run", "tiny", tmp_path / "in", "--out", tmp_path / name, "--config", config)
        done = run_command(tmp_path, *words, *more)
        return done.returncode, done.stderr

    assert run("plain")[0] == 0 and run("shifted", "--parameter", "shift=[0.25]")[0] == 0
    found = [json.loads((tmp_path / name / "findings.json").read_text()) for name in ("plain", "shifted")]
    plain, shifted = ([segment["voxels"] for segment in one["segments"]] for one in found)
    assert shifted == [0, sum(plain)]
    code, said = run("wrong", "--parameter", "scale=1")
    assert code == 2 and '--parameter, for tiny: the model has no prompt "scale": it has shift' in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["shift"], "--parameter shift: write name=value"),
        (["shift=[0]", "shift=[1]"], "--parameter shift: it is given twice"),
        (["shift=[0"], "--parameter shift: [0 is no number and no list"),
    ],
)
def test_a_parameter_is_a_name_and_a_value(tmp_path: Path, words: list[str], said: str) -> None:
    shelf = Shelf([_write(tmp_path / "tiny")])
    with pytest.raises(ConfigurationError) as caught:
        parameters.parse(words, shelf.package("tiny").manifest)
    assert str(caught.value) == said
