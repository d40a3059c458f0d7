"""A process may die at any point of the journey: what follows ends in the same rows and the same bytes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from db import migrate, models
from db.base import Database
from dicom_node import series as dicom_series
from dicom_node.archive import Archive
from dicom_node.senders import Destination, open_sender
from dicom_node.senders.memory import MemorySender
from tests.worker import journey as journeys
from tests.worker.journey import Crash, Journey, crash_after, crash_before
from worker.shelf import Shelf


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, shelf: Shelf) -> Iterator[dict[str, Any]]:
    """What a journey without any crash leaves behind."""
    storage = tmp_path_factory.mktemp("undisturbed")
    with Database(f"sqlite:///{storage / 'secondread.db'}") as database:
        migrate.upgrade(database)
        journey = Journey(database=database, storage=storage, shelf=shelf)
        journey.run(journeys.datasets())
        yield journey.facts()


def test_two_undisturbed_journeys_end_alike(journey: Journey, undisturbed: dict[str, Any]) -> None:
    journey.run(journeys.datasets())
    facts = journey.facts()
    assert facts == undisturbed
    assert facts["study"]["state"] == "done" and len(facts["files"]) == 2


@pytest.mark.parametrize(
    "crash",
    [
        crash_before("db.intake.record_instances"),
        crash_after("db.intake.record_instances"),
        crash_after("worker.records.new_instance", calls=3),
        crash_after("worker.pipeline.receive"),
    ],
    ids=["before the rows", "before their commit", "at the third file", "after their commit"],
)
def test_receive(journey: Journey, undisturbed: dict[str, Any], crash: Any) -> None:
    stored = journey.store(journeys.datasets())
    with crash:
        journey.die(lambda: journey.receive(stored))
    # The start-up scan reports all files again
    journey.receive(stored)
    journey.recover()
    assert journey.facts() == undisturbed


def test_receive_half_of_a_series_and_die(journey: Journey, undisturbed: dict[str, Any]) -> None:
    stored = journey.store(journeys.datasets())
    journey.receive(stored[:2])
    journey.receive(stored[2:])
    journey.recover()
    assert journey.facts() == undisturbed


@pytest.mark.parametrize(
    "crash",
    [
        crash_before("db.studies.close"),
        crash_after("db.studies.close"),
        crash_before("db.decisions.record"),
        crash_after("db.jobs.create"),
        crash_after("db.supersession.supersede"),
        crash_after("db.studies.finish_if_ended"),
        crash_after("worker.pipeline.close"),
    ],
    ids=[
        "before it is closed",
        "after it is closed",
        "before a decision is written",
        "after a job is made",
        "after the older jobs are cancelled",
        "before the commit",
        "after the commit, before the message",
    ],
)
def test_close(journey: Journey, undisturbed: dict[str, Any], crash: Any) -> None:
    journey.receive(journey.store(journeys.datasets()))
    with crash:
        journey.die(journey.close)
    journey.recover()
    assert journey.facts() == undisturbed


@pytest.mark.parametrize(
    "crash",
    [
        crash_after("db.leases.claim"),
        crash_before("dicom_node.series.read_series"),
        crash_before("engines.predict.predict"),
        crash_before("dicom_node.results.make_results"),
        crash_before("dicom_node.results.sr.build"),
        crash_before("dicom_node.results.files._sync_folder"),
        crash_after("dicom_node.results.make_results"),
        crash_before("worker.pictures.draw"),
        crash_after("db.leases.leave_running"),
        crash_after("db.results.replace_findings"),
        crash_after("db.results.replace_objects"),
        crash_after("worker.outcomes.conclude"),
        crash_after("worker.pipeline.analyse"),
    ],
    ids=[
        "before the claim's commit",
        "before reading",
        "before inference",
        "before the objects",
        "after the first object",
        "while a file gets its name",
        "after the objects",
        "at the pictures",
        "after the state, before the commit",
        "after the findings, before the commit",
        "after all rows, before the commit",
        "after the commit",
        "after all, before the message",
    ],
)
def test_analyse(journey: Journey, undisturbed: dict[str, Any], crash: Any) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    with crash:
        journey.die(lambda: journey.analyse(job_id))
    journey.recover()
    assert journey.facts() == undisturbed
    assert len({file.sop_instance_uid for file in journey.sent()}) == 2


@pytest.mark.parametrize(
    "crash",
    [
        crash_after("db.deliveries.claim"),
        crash_before("dicom_node.senders.memory.MemorySender.send"),
        crash_before("worker.receipts.settle"),
        crash_after("db.deliveries.sent"),
        crash_after("worker.receipts.settle"),
        crash_after("worker.receipts.settle", calls=2),
    ],
    ids=[
        "before the claim's commit",
        "before sending",
        "sent, before the answer is written",
        "before the answer's commit",
        "after the first answer",
        "after the last answer",
    ],
)
def test_deliver(journey: Journey, undisturbed: dict[str, Any], crash: Any) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    first, _ = journey.analyse(job_id)
    with crash:
        journey.die(lambda: journey.deliver(first))
    journey.recover()
    assert journey.facts() == undisturbed
    assert {file.sop_instance_uid for file in journey.sent()} == {
        row.sop_instance_uid for row in journey.rows(models.ResultObject)
    }


def test_what_is_sent_twice_is_the_same_object(journey: Journey, tmp_path: Path) -> None:
    """A PACS that got an object before the crash gets the same bytes under the same UID after it."""
    with Archive(tmp_path / "pacs", ae_title="PACS") as archive:
        peer = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=archive.port)
        journey.destinations, journey.open_sender = {"pacs": peer}, open_sender
        (job_id,) = journey.arrive(journeys.datasets())
        first, _ = journey.analyse(job_id)
        with crash_before("worker.receipts.settle"):
            journey.die(lambda: journey.deliver(first))
        before = {received.sop_instance_uid: received.path.read_bytes() for received in archive.received}
        assert before
        # The worker that comes next even has to make the objects anew
        journey.recover()
        after = {received.sop_instance_uid: received.path for received in archive.received}
    assert len(after) == 2
    assert len(archive.received) > len(after)
    assert all(after[uid].read_bytes() == content for uid, content in before.items())
    # Other bytes under a known UID would lie beside the first, under another name.
    assert len(list((tmp_path / "pacs").glob("[0-9]*/*/*.dcm"))) == 2


def test_a_job_that_is_run_again_by_a_person_makes_the_same_objects(journey: Journey) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    journey.pacs["pacs"] = MemorySender(answer=lambda file: 0xA900)
    journey.follow([job_id])
    assert journey.job().state == "failed"
    before = journey.facts()["files"]
    journey.pacs["pacs"] = MemorySender()
    with journey.database.write() as session:
        assert journeys.jobs.retry(session, job_id)
    journey.follow([job_id])
    assert journey.facts()["files"] == before
    assert (journey.job().state, journey.why().study.state) == ("done", "done")
    assert len(journey.rows(models.ResultObject)) == len(journey.sent()) == 2


def test_every_step_may_die_in_one_journey(journey: Journey, undisturbed: dict[str, Any]) -> None:
    stored = journey.store(journeys.datasets())
    with crash_after("db.intake.record_instances"):
        journey.die(lambda: journey.receive(stored))
    journey.receive(stored)
    with crash_after("db.jobs.create"):
        journey.die(journey.close)
    (job_id,) = journey.close()
    with crash_before("dicom_node.results.sr.build"):
        journey.die(lambda: journey.analyse(job_id))
    with crash_before("worker.receipts.settle"):
        journey.die(journey.recover)
    journey.recover()
    assert journey.facts() == undisturbed
    assert journey.job().attempts == 2


def test_a_crash_is_caught_by_nobody(journey: Journey) -> None:
    """Else the tests above would prove nothing."""
    (job_id,) = journey.arrive(journeys.datasets())
    with crash_before("dicom_node.series.read_series"), pytest.raises(Crash):
        dicom_series.read_series([])
    with crash_before("engines.predict.predict"), pytest.raises(Crash):
        journey.analyse(job_id)
    assert journey.job().state == "running"
