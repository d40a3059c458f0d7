"""What goes wrong on the journey: each time a reason that `why` shows, and nothing wrong leaves."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from rich.console import Console
from sqlalchemy import update

from db import dead_letters, jobs, leases, models
from db.states import JobState
from dicom_node.results import seg, sr
from dicom_node.senders import Destination, open_sender
from dicom_node.senders.memory import MemorySender
from engines import predict
from tests.worker import journey as journeys
from tests.worker.journey import ACCESSION, ID, NAME, STUDY, Journey
from tests.worker.test_retention import finish, purge
from worker import explain, pipeline, station, tasks

Change = Callable[[list[Dataset]], Sequence[Dataset]]


# Bad input ----------------------------------------------------------------------------------------


def _without(*indices: int) -> Change:
    return lambda made: [ds for index, ds in enumerate(made) if index not in indices]


def _repeat(made: list[Dataset]) -> list[Dataset]:
    """Two images at one place, with unlike pixels."""
    made[3].ImagePositionPatient = made[2].ImagePositionPatient
    made[3].PixelData = bytes(len(made[3].PixelData))
    return made


def _each(**values: Any) -> Change:
    def change(made: list[Dataset]) -> list[Dataset]:
        for ds in made:
            for keyword, value in values.items():
                setattr(ds, keyword, value)
        return made

    return change


def _turned(made: list[Dataset]) -> list[Dataset]:
    made[3].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    return made


def _cut(made: list[Dataset]) -> list[Dataset]:
    made[3].PixelData = made[3].PixelData[:100]
    return made


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_without(1, 2, 3, 4, 5), "single-slice"),
        (_without(2), "missing-slice"),
        (_repeat, "repeated-position"),
        (_turned, "mixed-orientation"),
        (_cut, "truncated"),
        (_each(ImagePositionPatient=None), "no-geometry"),
    ],
)
def test_a_series_that_makes_no_volume_fails_with_the_reason(
    journey: Journey, change: Change, reason: str
) -> None:
    # Given a good study beside it
    journey.run(change(journeys.datasets()))
    other = journeys.datasets(study_uid="1.2.9", series_uid="1.2.9.1")
    journey.run(other, association="a2")

    answer = journey.why()
    (job,) = answer.jobs
    assert (job.state, job.reason, job.objects) == ("failed", reason, [])
    assert len(job.error) > 20
    assert (answer.study.state, answer.study.problem) == ("done", job.error)
    assert journey.why("1.2.9").jobs[0].state == "done"
    assert len(journey.sent()) == 2
    # Nothing is lost
    assert len(list((journey.storage / "spool").glob("[0-9]*/*/*.dcm"))) == len(journey.rows(models.Instance))


def test_a_localizer_among_axials_is_set_aside_and_said(journey: Journey) -> None:
    made = journeys.datasets()
    scout = journeys.datasets(series_uid="1.2.3")[0]
    scout.SeriesInstanceUID, scout.SOPInstanceUID = made[0].SeriesInstanceUID, f"{STUDY}.99"
    scout.file_meta.MediaStorageSOPInstanceUID = scout.SOPInstanceUID
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
    journey.run([scout, *made])
    job = journey.job()
    assert job.state == "done"
    assert any("localizer" in note for note in job.notes)


def test_without_a_frame_of_reference_the_report_leaves_alone_and_the_job_says_so(journey: Journey) -> None:
    made = journeys.datasets()
    for ds in made:
        del ds.FrameOfReferenceUID
    journey.run(made)
    job = journey.job()
    assert (job.state, [one.kind for one in job.objects]) == ("done", ["sr"])
    assert [
        note for note in job.notes if note.startswith("no seg: the source images have no Frame of Reference")
    ]
    assert len(journey.sent()) == 1


@pytest.mark.parametrize("name", ["Яковлев^Пётр", "山田^太郎", "Müller^Zoë", "Zyx\u0301wina^Quolliper", ""])
def test_a_name_in_any_script_is_in_the_results_to_the_letter(journey: Journey, name: str) -> None:
    journey.run(journeys.datasets(patient_name=name))
    assert journey.job().state == "done"
    for path in (journey.storage / "results").rglob("*.dcm"):
        assert str(pydicom.dcmread(path).PatientName) == name


def test_two_patients_under_one_study_are_skipped_and_said(journey: Journey) -> None:
    made = journeys.datasets()
    for ds in made[3:]:
        ds.PatientID = f"{ID}-other"
    assert journey.arrive(made) == []
    answer = journey.why()
    (job,) = answer.jobs
    assert (job.state, job.reason, job.objects) == ("skipped", "study-problem", [])
    assert "2 different Patient IDs" in answer.study.problem
    assert answer.study.state == "done"
    assert [decision.matched for decision in answer.decisions] == [True]
    assert pipeline.analyse(journey.bench, job.id) == []


def _of_one_patient(journey: Journey, made: list[Dataset]) -> list[Dataset]:
    """After the images of two patients arrived under one study: all of them, corrected."""
    for ds in made[3:]:
        ds.PatientID = f"{ID}-other"
    assert journey.arrive(made) == []
    for ds in made:
        ds.PatientID = ID
    return made


def test_a_study_that_was_corrected_and_purged_is_analysed(journey: Journey) -> None:
    made = _of_one_patient(journey, journeys.datasets())
    problem = journey.why().study.problem
    assert f"secondread studies purge --study {STUDY}" in problem
    # Sent again alone, the first images stand
    assert journey.arrive(made, association="a2") == []
    assert journey.why().study.problem == problem
    # When it is purged here, as the sentence says, and sent again
    assert purge(journey) == ""
    finish(journey)
    journey.run(made, association="a3")
    job, study = journey.job(), journey.why().study
    assert (job.state, job.reason, job.error, study.problem) == ("done", "", "", "")
    assert (study.state, len(journey.sent())) == ("done", 2)


def test_of_a_corrected_study_the_series_that_was_right_is_analysed_too(journey: Journey) -> None:
    journey.keep_last = True
    right = journeys.datasets()[:3]
    wrong = journeys.datasets(series_uid=f"{STUDY}.2")[:3]
    corrected = _of_one_patient(journey, right + wrong)[3:]
    assert [job.state for job in journey.why().jobs] == ["skipped", "skipped"]
    journey.run(corrected, association="a2")
    assert sorted(job.state for job in journey.why().jobs) == ["done", "done", "skipped"]
    assert journey.why().study.jobs == {"done": 2}
    assert len(journey.sent()) == 4


def test_without_modality_no_route_matches_and_why_says_so(journey: Journey) -> None:
    made = journeys.datasets()
    for ds in made:
        del ds.Modality
    journey.run(made)
    answer = journey.why()
    assert (answer.study.state, answer.jobs) == ("done", [])
    assert answer.series[0].modality == ""
    assert [one.reason for one in answer.decisions] == [
        "the route does not match: Modality is missing, wanted CT"
    ]


def test_a_model_that_is_gone_is_said(journey: Journey) -> None:
    journey.routes = [journeys.route(run=("gone", "tiny"))]
    journey.run(journeys.datasets())
    answer = journey.why()
    assert [(one.model, one.matched) for one in answer.decisions] == [("gone", False), ("tiny", True)]
    assert "no usable model gone" in answer.decisions[0].reason
    assert journey.job().state == "done"


def test_a_model_that_goes_while_its_job_waits_fails_it(journey: Journey, tmp_path: Path) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    shelf, journey.shelf = journey.shelf, station.Shelf([tmp_path])
    assert journey.analyse(job_id) == []
    journey.shelf = shelf
    assert (journey.job().state, journey.job().reason) == ("failed", "no-model")
    assert "no usable model tiny" in journey.job().error
    assert journey.why().study.state == "done"
    # When it is back, and a person retries
    with journey.database.write() as session:
        assert jobs.retry(session, job_id)
    journey.follow([job_id])
    assert journey.job().state == "done"


def test_files_that_left_the_spool_fail_the_job(journey: Journey) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    for path in (journey.storage / "spool").glob("[0-9]*/*/*.dcm"):
        path.unlink()
    journey.analyse(job_id)
    assert (journey.job().state, journey.job().reason) == ("failed", "not-dicom")


def test_other_bytes_under_a_known_uid_are_kept_and_not_analysed(journey: Journey) -> None:
    made = journeys.datasets()
    journey.run(made)
    made[0].PixelData = bytes(len(made[0].PixelData))
    journey.run(made[:1], association="a2")
    answer = journey.why()
    assert (answer.study.revision, len(answer.jobs)) == (1, 1)
    assert "conflicting-duplicate" in [event.kind for event in answer.events]
    assert len(list((journey.storage / "spool").glob("[0-9]*/*/*.dcm"))) == 7


# Workers ------------------------------------------------------------------------------------------


def test_a_worker_that_lost_its_lease_drops_what_it_made(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    slow, original = journey.bench, predict.predict

    def answer(*args: Any, **kwargs: Any) -> Any:
        # Meanwhile the sweep gave the job to another worker
        monkeypatch.setattr(predict, "predict", original)
        with journey.database.write() as session:
            assert leases.leave_running(session, job_id, JobState.QUEUED, owner=slow.owner)
        journey.owner += 1
        journey.follow([job_id])
        return original(*args, **kwargs)

    monkeypatch.setattr(predict, "predict", answer)
    assert pipeline.analyse(slow, job_id) == []
    job = journey.job()
    assert (job.state, job.attempts, len(job.objects), len(job.segments)) == ("done", 2, 2, 2)
    assert len(journey.sent()) == 2


def test_a_cancelled_job_s_result_is_dropped(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    original = predict.predict

    def answer(*args: Any, **kwargs: Any) -> Any:
        with journey.database.write() as session:
            assert jobs.cancel(session, job_id, datetime.now(UTC))
        return original(*args, **kwargs)

    monkeypatch.setattr(predict, "predict", answer)
    assert journey.analyse(job_id) == []
    assert (journey.job().state, journey.job().objects) == ("cancelled", [])


@pytest.fixture
def worker(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """This process as a Celery worker over the journey; what it nudges is kept."""

    class Here:
        database = journey.database
        bench = journey.bench
        post = journey.post
        shelf = journey.shelf

    nudged: list[int] = []
    monkeypatch.setattr(station, "_here", Here)
    monkeypatch.setattr("worker.enqueue.deliveries", lambda database, ids: nudged.extend(ids))
    return nudged


def test_a_task_runs_its_job_and_nudges_what_follows(journey: Journey, worker: list[int]) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    tasks.analyse(job_id)
    assert sorted(worker) == [one.id for one in journey.job().deliveries]
    tasks.deliver(worker[0])
    assert journey.job().state == "done"


@pytest.mark.parametrize(
    "target",
    [
        "dicom_node.series.read_series",
        "engines.predict.predict",
        "dicom_node.results.make_results",
        "db.results.replace_objects",
    ],
)
def test_an_error_that_nobody_foresaw_is_recorded(
    journey: Journey,
    worker: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    target: str,
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError("of all things")

    (job_id,) = journey.arrive(journeys.datasets())
    monkeypatch.setattr(target, fail)
    tasks.analyse(job_id)
    job = journey.job()
    assert (job.state, job.reason, worker) == ("failed", "unexpected", [])
    assert "ZeroDivisionError" in job.error and "log" in job.error
    # The stack trace is where the message says
    assert "of all things" in caplog.text and "Traceback" in caplog.text


def test_pictures_that_fail_do_not_hold_the_results_back(
    journey: Journey, worker: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any, **kwargs: Any) -> Any:
        raise OSError(28, "No space left on device")

    (job_id,) = journey.arrive(journeys.datasets())
    monkeypatch.setattr("worker.pictures.draw", fail)
    tasks.analyse(job_id)
    tasks.deliver(worker[0])
    assert (journey.job().state, journey.job().error, len(journey.sent())) == ("done", "", 2)


def test_a_stack_trace_does_not_name_the_patient(
    journey: Journey, worker: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Libraries quote the value that they stumble over; the journey's fixture looks for it in the log."""

    def fail(*args: Any, **kwargs: Any) -> Any:
        raise ValueError(f"Invalid value {NAME!r} of patient {ID}, accession {ACCESSION}")

    (job_id,) = journey.arrive(journeys.datasets())
    monkeypatch.setattr(seg, "build", fail)
    tasks.analyse(job_id)
    assert journey.job().reason == "unexpected"


# The gate -----------------------------------------------------------------------------------------


def test_a_shifted_mask_is_kept_and_never_sent(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    original = seg.build

    def shifted(context: Any, findings: Any, made: Any) -> Any:
        return original(context, replace(findings, mask=np.roll(findings.mask, 1, axis=2)), made)

    (job_id,) = journey.arrive(journeys.datasets())
    monkeypatch.setattr(seg, "build", shifted)
    assert journey.analyse(job_id) == []
    job = journey.job()
    assert (job.state, job.reason, job.deliveries) == ("failed", "gate", [])
    by_kind = {made.kind: made for made in job.objects}
    assert not by_kind["seg"].verified and by_kind["seg"].problem in job.error
    # The report refers to it, and stays too
    assert not by_kind["sr"].verified
    assert all(
        (journey.storage / "results" / made.path).exists() for made in journey.rows(models.ResultObject)
    )
    assert journey.sent() == []
    assert journey.why().study.state == "done"
    assert "gate" in _printed(explain.job_tree(job))

    # When the fault is mended and a person asks for another try, it leaves
    monkeypatch.setattr(seg, "build", original)
    with journey.database.write() as session:
        assert jobs.retry(session, job_id)
    journey.follow([job_id])
    assert (journey.job().state, len(journey.sent())) == ("done", 2)
    assert journey.job().error == ""


@pytest.mark.parametrize("kind", [seg, sr])
def test_a_header_that_is_not_the_study_s_is_kept_and_nothing_of_the_job_is_sent(
    journey: Journey, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    original = kind.build

    def mislabelled(*args: Any) -> Any:
        made = original(*args)
        # A new element: the old one is shared with the source's header.
        made.add_new("PatientID", "LO", "somebody-else")
        return made

    (job_id,) = journey.arrive(journeys.datasets())
    monkeypatch.setattr(kind, "build", mislabelled)
    journey.analyse(job_id)
    assert (journey.job().reason, journey.job().deliveries, journey.sent()) == ("gate", [], [])


def _printed(tree: Any) -> str:
    console = Console(width=200, file=io.StringIO())
    console.print(tree)
    return str(console.file.getvalue())  # type: ignore[attr-defined]


# Delivery -----------------------------------------------------------------------------------------


@pytest.fixture
def due(journey: Journey) -> list[int]:
    """Two objects that are due."""
    (job_id,) = journey.arrive(journeys.datasets())
    return journey.analyse(job_id)


def _states(journey: Journey) -> list[tuple[str, int, str]]:
    return [(one.state, one.attempts, one.status) for one in journey.job().deliveries]


def test_an_unreachable_pacs_is_tried_again_later_and_later(journey: Journey, due: list[int]) -> None:
    journey.pacs["pacs"] = MemorySender(unreachable="127.0.0.1:4242 refuses the connection")
    waits = []
    for attempt in range(1, 5):
        journey.deliver(due[0])
        assert _states(journey) == [("pending", attempt, "")] * 2
        (first, second) = journey.job().deliveries
        assert first.next_attempt_at is not None and first.comment == "127.0.0.1:4242 refuses the connection"
        assert first.next_attempt_at == pytest.approx(second.next_attempt_at, abs=timedelta(seconds=2))
        waits.append((first.next_attempt_at - datetime.now(UTC)).total_seconds())
        # Before its time it is not tried
        journey.deliver(due[0])
        assert _states(journey) == [("pending", attempt, "")] * 2
        journey.expire()
    assert waits == pytest.approx([30, 60, 120, 240], abs=3)
    assert (journey.job().state, journey.why().study.state) == ("delivering", "ready")

    # When it is back
    journey.pacs["pacs"] = MemorySender()
    journey.deliver(due[1])
    assert _states(journey) == [("sent", 5, "0x0000")] * 2
    assert (journey.job().state, journey.why().study.state) == ("done", "done")


def test_a_pacs_that_is_full_is_tried_again_and_its_answer_kept(journey: Journey, due: list[int]) -> None:
    journey.pacs["pacs"] = MemorySender(answer=lambda file: 0xA700)
    journey.deliver(due[0])
    assert _states(journey) == [("pending", 1, "0xA700")] * 2


def test_what_is_refused_is_dead_and_the_rest_is_not(journey: Journey, due: list[int]) -> None:
    report = "1.2.840.10008.5.1.4.1.1.88.34"
    journey.pacs["pacs"] = MemorySender(answer=lambda file: 0xA900 if file.sop_class_uid == report else 0)
    journey.deliver(due[0])
    assert _states(journey) == [("sent", 1, "0x0000"), ("dead", 1, "0xA900")]
    answer = journey.why()
    assert (journey.job().state, journey.job().reason) == ("failed", "undelivered")
    assert "deliveries list --state dead" in journey.job().error
    assert (answer.study.state, [event.kind for event in answer.events]) == ("done", ["dead-delivery"])

    # When a person revives it
    journey.pacs["pacs"].answer = lambda file: 0
    with journey.database.write() as session:
        assert dead_letters.revive(session, due[1])
    assert (journey.job().state, journey.why().study.state) == ("delivering", "ready")
    journey.deliver(due[1])
    assert _states(journey) == [("sent", 1, "0x0000"), ("sent", 1, "0x0000")]
    assert (journey.job().state, journey.job().error, journey.why().study.state) == ("done", "", "done")
    # What had arrived was not sent again
    assert [file.sop_class_uid for file in journey.pacs["pacs"].sent].count(report) == 2
    assert len(journey.pacs["pacs"].sent) == 3


def test_a_warning_is_an_arrival(journey: Journey, due: list[int]) -> None:
    journey.pacs["pacs"] = MemorySender(answer=lambda file: 0xB000)
    journey.deliver(due[0])
    assert _states(journey) == [("sent", 1, "0xB000")] * 2
    assert journey.job().state == "done"


def test_after_72_hours_it_is_dead(journey: Journey, due: list[int]) -> None:
    journey.pacs["pacs"] = MemorySender(unreachable="nobody is there")
    journey.deliver(due[0])
    journey.expire()
    long_ago = datetime.now(UTC) - timedelta(hours=72, seconds=1)
    with journey.database.write() as session:
        session.execute(update(models.Delivery).values(first_attempt_at=long_ago))
    journey.deliver(due[0])
    assert [state for state, _, _ in _states(journey)] == ["dead", "dead"]
    assert journey.job().reason == "undelivered"
    # A revived one has another 72 hours
    with journey.database.write() as session:
        assert dead_letters.revive(session, due[0])
    journey.deliver(due[0])
    assert [state for state, _, _ in _states(journey)] == ["pending", "dead"]


def test_a_peer_that_is_no_longer_configured_is_said(journey: Journey, due: list[int]) -> None:
    del journey.destinations["pacs"]
    journey.deliver(due[0])
    (first, second) = journey.job().deliveries
    assert (first.state, second.state, first.attempts) == ("dead", "dead", 1)
    assert "no peer is called 'pacs'" in first.comment


def test_nobody_at_the_pacs_s_port(journey: Journey, due: list[int]) -> None:
    journey.destinations["pacs"] = Destination(
        name="pacs", ae_title="PACS", host="127.0.0.1", port=1, timeout_seconds=2
    )
    journey.open_sender = open_sender
    journey.deliver(due[0])
    assert _states(journey) == [("pending", 1, "")] * 2
    assert journey.job().deliveries[0].comment


def test_a_destination_that_forgets_to_answer_is_asked_again(journey: Journey, due: list[int]) -> None:
    class Silent(MemorySender):
        def send(self, paths: Any, on_outcome: Any) -> None:
            super().send(paths[:1], on_outcome)

    journey.pacs["pacs"] = Silent()
    journey.deliver(due[0])
    assert [state for state, _, _ in _states(journey)] == ["sent", "pending"]
    assert "gave no answer" in journey.job().deliveries[1].comment


def test_a_result_file_that_is_gone_is_dead(journey: Journey, due: list[int]) -> None:
    for path in (journey.storage / "results").rglob("seg.dcm"):
        path.unlink()
    journey.deliver(due[0])
    assert [state for state, _, _ in _states(journey)] == ["dead", "sent"]
    assert "cannot be read" in journey.job().deliveries[0].comment


def test_two_workers_do_not_send_the_same(journey: Journey, due: list[int]) -> None:
    class Reentrant(MemorySender):
        def send(self, paths: Any, on_outcome: Any) -> None:
            journey.deliver(due[1])
            super().send(paths, on_outcome)

    journey.pacs["pacs"] = Reentrant()
    journey.deliver(due[0])
    assert len(journey.sent()) == 2


def test_a_cancelled_job_s_objects_stay(journey: Journey, due: list[int]) -> None:
    with journey.database.write() as session:
        assert jobs.cancel(session, journey.job().id, datetime.now(UTC))
    for delivery_id in due:
        journey.deliver(delivery_id)
    assert journey.sent() == []
    assert [state for state, _, _ in _states(journey)] == ["dead", "dead"]
