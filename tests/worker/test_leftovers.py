"""Of results only what a row names stays; what is being made is left alone."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import update

from db import models
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from worker import leftovers
from worker.settings import Settings
from worker.station import Station


@pytest.fixture
def here(journey: Journey) -> Station:
    """A station over the journey."""
    return Station(
        settings=Settings(storage=journey.storage),
        database=journey.database,
        shelf=journey.shelf,
        lightbox=journey.lightbox,
        process_id="sweeper",
        started_at=datetime.now(UTC),
    )


@pytest.fixture
def job_id(journey: Journey) -> int:
    """A job that waits."""
    (made,) = journey.arrive(journeys.datasets())
    return made


def _folder(here: Station, job_id: int, *, state: str = "queued") -> Path:
    with here.database.write() as session:
        session.execute(update(models.Job).where(models.Job.id == job_id).values(state=state))
        folder = here.settings.results / session.get_one(models.Job, job_id).identity
    folder.mkdir(exist_ok=True, parents=True)
    return folder


def _write(path: Path, *, minutes_ago: float = 1) -> None:
    path.write_bytes(b"object")
    at = time.time() - 60 * minutes_ago
    os.utime(path, (at, at))


def test_what_a_dead_worker_was_writing_is_deleted(here: Station, job_id: int) -> None:
    folder = _folder(here, job_id, state="running")
    # Given a file that a worker was writing when it was killed, and one that another is writing now
    script = (
        "import os, pathlib, sys, time; from dicom_node.results import files\n"
        "class Slow:\n"
        "    def save_as(self, file, **how):\n"
        "        file.write(b'half'); file.flush(); print('writing', flush=True); time.sleep(60)\n"
        "files.write(Slow(), pathlib.Path(sys.argv[1]))"
    )
    command = [sys.executable, "-c", script, str(folder / "seg.dcm")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as dead:
        assert dead.stdout is not None and dead.stdout.readline()
        dead.kill()
    with subprocess.Popen(command, stdout=subprocess.PIPE) as writing:
        assert writing.stdout is not None and writing.stdout.readline()
        assert len(list(folder.iterdir())) == 2
        assert leftovers.remove(here) == 1
        assert len(list(folder.iterdir())) == 1
        writing.kill()
    assert leftovers.remove(here) == 1
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("state", ["cancelled", "failed"])
def test_what_no_row_names_of_a_job_that_ended_is_deleted(here: Station, job_id: int, state: str) -> None:
    folder = _folder(here, job_id, state=state)
    _write(folder / "seg.dcm")
    _write(folder / "sr.dcm", minutes_ago=0)
    _write(folder / "axial-1.png")
    assert leftovers.remove(here) == 1
    # The other is fresh: its job may have been revived this moment
    assert sorted(path.name for path in folder.iterdir()) == ["axial-1.png", "sr.dcm"]


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_job_s_files_wait_for_their_rows(here: Station, job_id: int, state: str) -> None:
    folder = _folder(here, job_id, state=state)
    _write(folder / "seg.dcm")
    assert leftovers.remove(here) == 0
    assert (folder / "seg.dcm").exists()


def test_what_a_row_names_stays_and_what_is_nobody_s_too(
    journey: Journey, here: Station, job_id: int
) -> None:
    journey.follow([job_id])
    folder = _folder(here, job_id, state="failed")
    for path in folder.glob("*.dcm"):
        os.utime(path, (0, 0))
    strange = here.settings.results / ("0" * 64)
    strange.mkdir()
    _write(strange / "seg.dcm")
    assert leftovers.remove(here) == 0
    assert sorted(path.name for path in folder.glob("*.dcm")) == ["seg.dcm", "sr.dcm"]
    assert (strange / "seg.dcm").exists()
