"""A model package that is replaced while its jobs wait: each answer bears the name of the model that gave it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest

from db import jobs
from dicom_node.senders.memory import MemorySender
from tests.worker import journey as journeys
from tests.worker.journey import Journey, crash_after
from worker.shelf import Shelf


@pytest.fixture
def other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """Another package under the same name."""
    monkeypatch.setattr(journeys, "HIGH", 0.6)
    journeys.write_model(tmp_path / "models" / "tiny")
    opened = Shelf([tmp_path / "models"], threads=1)
    assert not opened.problems
    yield opened
    opened.close()


def test_a_job_that_waits_goes_over_to_the_model_that_is_there(journey: Journey, other: Shelf) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    before, journey.shelf = journey.shelf, other
    assert journey.analyse(job_id) == []
    old, new = journey.why().jobs
    assert (old.state, old.reason, old.objects) == ("cancelled", "model-changed", [])
    for digest in (before.rules["tiny"].digest, other.rules["tiny"].digest):
        assert digest[:8] in old.error
    assert f"see job {new.id}" in old.error
    assert (new.state, new.revision, journey.why().study.state) == ("queued", 1, "ready")
    assert new.identity != old.identity
    # The sweep finds it
    journey.recover()
    assert (journey.why().jobs[1].state, journey.why().study.state) == ("done", "done")
    assert len(journey.sent()) == 2
    assert not (journey.storage / "results" / old.identity).exists()


def test_a_model_that_comes_back_takes_its_job_back(journey: Journey, other: Shelf) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    before, journey.shelf = journey.shelf, other
    journey.analyse(job_id)
    journey.shelf = before
    journey.recover()
    assert [(job.state, job.reason) for job in journey.why().jobs] == [
        ("done", ""),
        ("cancelled", "model-changed"),
    ]
    assert (journey.why().study.state, len(journey.sent())) == ("done", 2)


def test_half_a_set_that_left_is_not_completed_by_another_model(journey: Journey, other: Shelf) -> None:
    # Given a job whose SEG was sent and whose report was refused
    report = "1.2.840.10008.5.1.4.1.1.88.34"
    journey.pacs["pacs"] = MemorySender(answer=lambda file: 0xA900 if file.sop_class_uid == report else 0)
    journey.run(journeys.datasets())
    # When it is retried after the model was replaced
    journey.pacs["pacs"].answer = lambda file: 0
    journey.shelf = other
    with journey.database.write() as session:
        assert jobs.retry(session, journey.job().id)
    journey.recover()
    # Then the rest of it never leaves, and the present model's set does, under UIDs of its own
    old, new = journey.why().jobs
    assert (old.state, new.state, journey.why().study.state) == ("cancelled", "done", "done")
    assert sorted(delivery.state for delivery in old.deliveries) == ["dead", "sent"]
    assert [delivery.state for delivery in new.deliveries] == ["sent", "sent"]
    assert not {made.sop_instance_uid for made in old.objects} & {
        made.sop_instance_uid for made in new.objects
    }
    made = pydicom.dcmread(
        journey.storage / "results" / next(made.path for made in new.objects if made.kind == "seg")
    )
    assert made.SOPInstanceUID in [file.sop_instance_uid for file in journey.sent()]


def test_a_worker_that_dies_between_changes_nothing(journey: Journey, other: Shelf) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    journey.shelf = other
    with crash_after("worker.replacement.jobs.create"):
        journey.die(lambda: journey.analyse(job_id))
    assert journey.job().state == "queued"
    journey.recover()
    assert [job.state for job in journey.why().jobs] == ["cancelled", "done"]


def test_a_successor_is_of_the_images_that_the_job_was_of(journey: Journey, other: Shelf) -> None:
    made = journeys.datasets()
    (job_id,) = journey.arrive(made[:5])
    # When a late image is there, and its study not complete yet
    journey.receive(journey.store(made[5:], association="a2"))
    journey.shelf = other
    assert journey.analyse(job_id) == []
    assert [(job.state, job.revision) for job in journey.why().jobs] == [("cancelled", 1), ("queued", 1)]
    # Then the study's own successor takes its place
    journey.follow(journey.close())
    assert [job.reason for job in journey.why().jobs] == ["model-changed", "superseded", ""]
    assert journey.why().study.jobs == {"done": 1}
