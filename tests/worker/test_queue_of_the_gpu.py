"""Analyses wait in the queue of the device that they are to run on, and move where another one is configured."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import get_args

import pytest
from celery import Celery

from db import jobs, leases
from db.states import JobState
from engines import loader
from tests.worker import night
from tests.worker.served import served_broker
from worker import broker, enqueue, nudges, sections, up
from worker.sections import Work
from worker.station import Station


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Station]:
    """A station after a night at a hospital, with a broker of its own."""
    station = night.open_station(tmp_path)
    night.tell(station)
    app = night.queue(station)
    monkeypatch.setattr(enqueue, "app", app)
    with served_broker(station):
        yield station
        app.close()
    station.close()


def on(here: Station, engine: sections.Engine) -> Station:
    """The station with another engine configured."""
    work = here.settings.work.model_copy(update={"engine": engine})
    return replace(here, settings=here.settings.model_copy(update={"work": work}))


def waiting(here: Station) -> dict[str, int]:
    return broker.queue_lengths(here.settings, ["cpu", "gpu"])


def test_the_engines_are_those_that_can_be_opened() -> None:
    assert get_args(sections.Engine) == get_args(loader.Engine)


@pytest.mark.parametrize(
    ("engine", "queue"),
    [
        ("openvino", "cpu"),
        ("onnxruntime", "cpu"),
        ("tensorrt", "gpu"),
        ("onnxruntime-cuda", "gpu"),
        ("onnxruntime-tensorrt", "gpu"),
    ],
)
def test_an_engine_has_its_device_s_queue_and_worker(
    engine: sections.Engine, queue: str, tmp_path: Path
) -> None:
    work = Work(engine=engine, jobs_at_once=2)
    assert work.queue == queue
    configured = night.open_station(tmp_path).settings.model_copy(update={"work": work})
    (worker,) = [role for role in up.roles(configured) if role.name in ("cpu", "gpu")]
    assert (worker.name, list(worker.command[-4:])) == (queue, ["--queue", queue, "--concurrency", "2"])


def test_what_waits_for_the_other_device_is_sent_again_and_done_once(here: Station) -> None:
    # Given a job whose message waits for a worker of the CPU
    gpu, job = on(here, "tensorrt"), night.job_of(here.database, night.GAPPED)
    with here.database.write() as session:
        jobs.retry(session, job)
    enqueue.jobs(here.database, [job], here.settings.work)
    assert waiting(here) == {"cpu": 1, "gpu": 0}

    # When the engine is one of the GPU, and no worker takes the CPU's queue any more
    later = datetime.now(UTC) + nudges.IN_FLIGHT + timedelta(milliseconds=1)
    nudges.send_again(gpu, later)

    # Then it waits in the other queue, and once
    assert waiting(here) == {"cpu": 1, "gpu": 1}
    nudges.send_again(gpu, later + timedelta(seconds=60))
    assert waiting(here) == {"cpu": 1, "gpu": 1}

    # And whoever takes the second message finds nothing to do
    with here.database.write() as session:
        times = {"now": later, "lease": timedelta(60), "deadline_at": later + timedelta(60)}
        taken = leases.claim(session, job, owner="first", **times)
        again = leases.claim(session, job, owner="second", **times)
    assert taken is not None and taken.state == JobState.RUNNING
    assert again is None


def test_a_worker_takes_what_is_sent_to_the_gpu(here: Station) -> None:
    app = enqueue.app
    assert isinstance(app, Celery)
    job = night.job_of(here.database, night.GAPPED)
    enqueue.jobs(here.database, [job], on(here, "onnxruntime-cuda").settings.work)
    enqueue.deliveries(here.database, [1])
    assert broker.queue_lengths(here.settings, ["cpu", "gpu", "deliver"]) == {
        "cpu": 0,
        "gpu": 1,
        "deliver": 1,
    }
