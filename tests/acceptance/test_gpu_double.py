"""`secondread up` with a GPU that is pretended: what answers until a plan is there, when it is, and when it is lost.

One installation goes through it all, in this order; each test begins where the one before ended.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import installation
from tests.acceptance.installation import Installation, children, command_line, until
from tests.support import gpu_worker, phantoms
from tests.support.double import Machine
from tests.support.phantoms import Phantom
from tests.worker import journey as journeys

pytestmark = pytest.mark.peer("dcmtk")

GPU = "tensorrt 11.4.0.106 Pretended GPU float32"


@dataclass(kw_only=True)
class Clinic:
    """An installation beside its pretended GPU."""

    node: Installation
    machine: Machine
    folder: Path

    def study(self, patient_id: str) -> dict[str, Any]:
        """The job of a study that is sent now, once it is done."""
        made = phantoms.datasets(Phantom(shape=(6, 32, 40), patient_id=patient_id))
        assert self.node.dcmsend(*phantoms.write(made, self.folder / patient_id)).returncode == 0
        (job,) = self.node.done(str(made[0].StudyInstanceUID), seconds=120)["jobs"]
        return dict(job)

    def looking(self) -> list[int]:
        """The processes that build plans just now."""
        return [pid for pid in children(self.node.role("cli plans")) if "plans --once" in command_line(pid)]


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clinic]:
    """`up` whose compiler is slow."""
    folder = tmp_path_factory.mktemp("gpu")
    machine = Machine(folder / "gpu.json")
    machine.change(seconds_of_build=600)
    journeys.write_model(folder / "models" / "tiny", gpu=gpu_worker.FLOAT32)
    node = installation.configure(
        folder,
        models=[str(folder / "models")],
        routes=[{"name": "ct", "when": {"Modality": "CT"}, "run": ["tiny"]}],
        work={"engine": "tensorrt"},
    )
    node.more = {**machine.environment}
    with installation.running(node) as running:
        yield Clinic(node=running, machine=machine, folder=folder)


def numbers(job: dict[str, Any]) -> list[tuple[str, Any]]:
    """What a job answered."""
    return [
        *((each["label"], each["voxels"]) for each in job["segments"]),
        *((each["key"], each["value"]) for each in job["measurements"]),
    ]


def test_until_a_plan_is_there_the_fallback_answers_and_says_so(clinic: Clinic) -> None:
    until(clinic.looking, "a plan to be built")
    job = clinic.study("WAITING1")
    assert (job["state"], job["attempts"]) == ("done", 1)
    assert job["engine"].startswith("openvino ")
    assert ", in place of tensorrt: tiny has no plan for Pretended GPU (9.0)" in job["engine"]
    assert clinic.node.events("fallback") == []  # Told with its study, not among all
    # The objects say it too, without what an admin is to do about it
    paths = {each["kind"]: clinic.node.folder / "data" / "results" / each["path"] for each in job["objects"]}
    told_to_readers = job["engine"].partition(": tiny has no plan")[0]
    assert told_to_readers.endswith(", in place of tensorrt")
    for kind in ("sr", "seg"):
        content = paths[kind].read_bytes()
        assert told_to_readers.encode() in content and b"has no plan" not in content
    assert f"engine: {told_to_readers}".encode() in paths["sr"].read_bytes()
    # And the page of everything
    told = clinic.node.get("/metrics")
    assert "secondread_jobs_on_fallback 1.0" in told
    assert 'processes{role="gpu"} 1.0' in told and 'processes{role="plans"} 1.0' in told


def test_a_build_that_is_killed_costs_nothing(clinic: Clinic) -> None:
    (building,) = clinic.looking()
    os.kill(building, signal.SIGKILL)
    os.kill(clinic.node.role("cli plans"), signal.SIGKILL)
    clinic.machine.change(seconds_of_build=0)
    # `up` starts it again, which begins anew
    said = until(lambda: clinic.node.events("plan"), "the plan", seconds=120)
    assert said == ["the plan of tiny 1.0.0 for Pretended GPU (9.0), tensorrt 11.4.0.106: verified"]
    listed = clinic.node.ask("engines", "list")
    assert [(plan["model"], plan["serves"]) for plan in listed["plans"]] == [("tiny", True)]


def test_then_the_gpu_answers_as_the_cpu_did(clinic: Clinic) -> None:
    job = clinic.study("SERVED22")
    assert job["engine"] == GPU
    (before,) = [each for each in clinic.node.get("/api/jobs") if each["engine"].startswith("openvino")]
    assert numbers(job) == numbers(clinic.node.get(f"/api/jobs/{before['id']}"))
    assert "secondread_jobs_on_fallback 0.0" in clinic.node.get("/metrics")


def test_a_device_that_is_lost_in_mid_job_costs_no_answer_and_comes_back(clinic: Clinic) -> None:
    # Given a device that breaks at the next patch
    clinic.machine.change(lost_after=0)
    (worker,) = children(clinic.node.role("work --queue gpu"))
    job = clinic.study("BROKEN33")
    # Then the fallback answers in the same attempt
    assert (job["state"], job["attempts"], len(job["objects"])) == ("done", 1, 2)
    assert ", in place of tensorrt: Pretended GPU is lost to this process" in job["engine"]
    # And its process ends in order; the next one has the device again
    until(lambda: not installation.alive(worker), "the worker process to end")
    assert [said for said in clinic.node.events("process-lost") if said.startswith("gpu")] == []
    clinic.machine.change(lost_after=None)
    job = clinic.study("AGAIN444")
    assert (job["engine"], job["attempts"]) == (GPU, 1)
    assert len(clinic.node.get("/api/jobs")) == 4
