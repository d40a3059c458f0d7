"""Jobs that hang, freeze, kill their worker or are no longer wanted: each ends, and everybody else is served."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import installation
from tests.acceptance.installation import Installation, alive, children, until
from tests.engines import build
from tests.support import phantoms
from tests.support.phantoms import Phantom

pytestmark = pytest.mark.peer("dcmtk")

#: A real network on honest input, which takes a quarter of an hour at this overlap.
ENDLESS = {"patch": [8, 8, 8], "overlap": 0.95, "mirror_axes": [0, 1, 2]}


def configure(folder: Path, **work: Any) -> Installation:
    """An installation with a quick model for all CT, and an endless one for series that ask for it."""
    values = {"inputs": [build.entry(series={"Modality": "CT"})]}
    build.write(folder / "models" / "quick", build.network(), name="quick", **values)
    build.write(folder / "models" / "endless", build.network(), name="endless", tiling=ENDLESS, **values)
    routes = [
        {"name": "endless", "when": {"SeriesDescription": "endless"}, "run": ["endless"]},
        {"name": "quick", "when": {"SeriesDescription": "quick"}, "run": ["quick"]},
    ]
    return installation.configure(folder, models=[str(folder / "models")], routes=routes, work=work)


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """`secondread up` that gives a job three seconds."""
    with installation.running(configure(tmp_path_factory.mktemp("hasty"), hard_seconds=3)) as running:
        yield running


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """`secondread up` that gives a job as long as it takes."""
    with installation.running(configure(tmp_path_factory.mktemp("patient"))) as running:
        yield running


def send(node: Installation, folder: Path, description: str, patient_id: str) -> str:
    """A study that gets the model of this name."""
    shape = (48, 64, 64) if description == "endless" else (6, 32, 32)
    made = phantoms.datasets(Phantom(shape=shape, series_description=description, patient_id=patient_id))
    assert node.dcmsend(*phantoms.write(made, folder / patient_id)).returncode == 0
    return str(made[0].StudyInstanceUID)


def job(node: Installation, uid: str) -> dict[str, Any]:
    """The study's job; empty before it is made."""
    jobs = node.why(uid).get("jobs", [])
    return dict(jobs[0]) if jobs else {}


def running(node: Installation, uid: str, attempt: int, *, seconds: float = 60) -> int:
    """Wait until the job runs for this time; the process that runs it."""

    def owner() -> str:
        query = f"""SELECT lease_owner FROM jobs JOIN studies ON studies.id = jobs.study_id
            WHERE study_instance_uid = '{uid}' AND jobs.state = 'running' AND attempts = {attempt}"""
        return str(next(iter(node.rows(query)), ("",))[0])

    found = until(owner, f"attempt {attempt} to run", seconds=seconds)
    return int(found.split(":")[1])


def kinds(node: Installation, uid: str) -> list[str]:
    return [event["kind"] for event in node.why(uid)["events"]]


def test_a_job_that_never_ends_is_stopped_and_others_are_served(hasty: Installation, tmp_path: Path) -> None:
    # Given a job that would take a quarter of an hour, whose worker even freezes in its first attempt
    endless = send(hasty, tmp_path, "endless", "TIME-ENDLESS-1")
    frozen = running(hasty, endless, 1)
    os.kill(frozen, signal.SIGSTOP)
    began = time.monotonic()
    # When another study comes
    quick = send(hasty, tmp_path, "quick", "TIME-QUICK-1")
    # Then that one is answered once the frozen process has been replaced, though nothing in it runs
    assert hasty.done(quick, seconds=60)["jobs"][0]["state"] == "done"
    assert not alive(frozen)
    assert time.monotonic() - began < 50
    # And between the attempts of the first
    second = running(hasty, endless, 2)
    began = time.monotonic()
    later = send(hasty, tmp_path, "quick", "TIME-QUICK-2")
    assert hasty.done(later, seconds=30)["jobs"][0]["state"] == "done"
    assert not alive(second)

    # And the first is given up after its third attempt, with the reason and what to do
    hasty.done(endless, seconds=90)
    ended = job(hasty, endless)
    assert (ended["state"], ended["reason"], ended["attempts"]) == ("failed", "time-limit", 3)
    assert "longer than 3 s" in ended["error"] and "work.hard_seconds" in ended["error"]
    assert kinds(hasty, endless).count("time-limit") == 3
    said = hasty.run("why", endless).stdout
    assert "time-limit" in said and "work.hard_seconds" in said
    # The same worker's parent served them all
    assert hasty.log.count("starts again in") == 0


def test_a_cancelled_job_stops_within_seconds(patient: Installation, tmp_path: Path) -> None:
    endless = send(patient, tmp_path, "endless", "TIME-CANCEL-1")
    process = running(patient, endless, 1)
    began = time.monotonic()
    assert patient.run("jobs", "cancel", job(patient, endless)["id"]).returncode == 0
    until(lambda: not alive(process), "the computation to stop", seconds=15)
    quick = send(patient, tmp_path, "quick", "TIME-AFTER-1")
    assert patient.done(quick, seconds=30)["jobs"][0]["state"] == "done"
    assert time.monotonic() - began < 40
    ended = job(patient, endless)
    assert (ended["state"], ended["reason"]) == ("cancelled", "cancelled")


def test_a_study_that_kills_its_workers_holds_up_nobody(patient: Installation, tmp_path: Path) -> None:
    # Given a study at which every worker dies
    poison = send(patient, tmp_path, "endless", "TIME-POISON-1")
    waits = []
    # As the kernel ends them for want of memory, and as native code crashes in the midst of the network
    for attempt, how in enumerate((signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT), start=1):
        process = running(patient, poison, attempt)
        os.kill(process, how)
        # Then a study that comes just then goes first
        began = time.monotonic()
        quick = send(patient, tmp_path, "quick", f"TIME-BESIDE-{attempt}")
        assert patient.done(quick, seconds=40)["jobs"][0]["state"] == "done"
        waits.append(time.monotonic() - began)
    ended = patient.done(poison, seconds=30)["jobs"][0]
    assert (ended["state"], ended["reason"], ended["attempts"]) == ("failed", "worker-lost", 3)
    assert kinds(patient, poison).count("worker-lost") == 3
    assert max(waits) < 25
    assert len(children(patient.role("work --queue cpu"))) == 1
