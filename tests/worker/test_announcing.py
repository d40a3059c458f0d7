"""A job that fails is announced where its route asks for it, and what is announced gives way to an answer."""

from __future__ import annotations

import errno
from datetime import UTC, datetime
from pathlib import Path

import pydicom
import pytest

from db import announcements, dead_letters, events, jobs, models
from dicom_node import results
from dicom_node.results import not_performed
from dicom_node.senders import Outcome, Verdict
from tests.worker import journey as journeys
from tests.worker.journey import ID, NAME, SERIES, STUDY, Journey
from worker import announcing, explain, station


@pytest.fixture
def telling(journey: Journey) -> Journey:
    """A journey whose route announces failures."""
    journey.routes = [journeys.route(announce_to=("pacs",))]
    return journey


def gap() -> list[pydicom.Dataset]:
    """A series of which an image is missing."""
    made = journeys.datasets()
    return made[:2] + made[3:]


def kinds(journey: Journey) -> list[str]:
    return [made.kind for made in journey.rows(models.ResultObject)]


def received(journey: Journey, number: int = -1) -> pydicom.Dataset:
    """What the PACS got."""
    wanted = journey.sent()[number].sop_instance_uid
    [path] = [
        path
        for path in (journey.storage / "results").rglob("*.dcm")
        if pydicom.dcmread(path).SOPInstanceUID == wanted
    ]
    return pydicom.dcmread(path)


def words(journey: Journey) -> str:
    return "\n".join(item.TextValue for item in received(journey).ContentSequence if item.ValueType == "TEXT")


def test_a_missing_slice_is_announced(telling: Journey) -> None:
    telling.run(gap())
    assert telling.sent() == []
    telling.announce()
    ds = received(telling)
    assert (ds.StudyInstanceUID, ds.PatientID, str(ds.PatientName)) == (STUDY, ID, NAME)
    assert ds.SeriesDescription.startswith("AI not performed")
    job = telling.job()
    assert (job.state, job.reason, job.notes) == ("failed", "missing-slice", [])
    assert [(one.kind, one.state) for one in job.deliveries] == [("not-performed", "sent")]
    assert any("NOT-PERFORMED" in str(child.label) for child in explain.job_tree(job).children)
    assert telling.why().study.state == "done"
    # Once
    telling.announce()
    assert (len(telling.sent()), kinds(telling)) == (1, ["not-performed"])


def test_nothing_is_announced_where_no_route_asks_for_it(journey: Journey) -> None:
    journey.run(gap())
    journey.announce()
    assert (journey.sent(), journey.job().objects, journey.job().notes) == ([], [], [])


def test_of_two_routes_only_the_destinations_of_the_one_that_asks_are_told(telling: Journey) -> None:
    telling.routes.append(journeys.route("other", send_to=("workstation",)))
    telling.run(gap())
    telling.announce()
    assert (len(telling.sent()), telling.sent("workstation")) == (1, [])


def test_a_retry_that_fails_alike_sends_nothing_new(telling: Journey) -> None:
    telling.run(gap())
    telling.announce()
    retry(telling)
    telling.announce()
    assert (telling.job().state, len(telling.sent()), kinds(telling)) == ("failed", 1, ["not-performed"])


def retry(journey: Journey) -> None:
    with journey.database.write() as session:
        assert jobs.retry(session, journey.job().id)
    journey.follow([journey.job().id])


def test_another_failure_is_another_document(telling: Journey, tmp_path: Path) -> None:
    telling.run(gap())
    telling.announce()
    shelf, telling.shelf = telling.shelf, station.Shelf([tmp_path])
    retry(telling)
    telling.announce()
    telling.shelf = shelf
    first, second = telling.sent()
    assert first.sop_instance_uid != second.sop_instance_uid
    assert "the model was not available" in words(telling)


def test_a_retry_that_succeeds_takes_back_what_has_not_left(telling: Journey, tmp_path: Path) -> None:
    (job_id,) = telling.arrive(journeys.datasets())
    shelf, telling.shelf = telling.shelf, station.Shelf([tmp_path])
    telling.analyse(job_id)
    announcing.announce(telling.bench, datetime.now(UTC))
    telling.shelf = shelf
    assert [one.state for one in telling.job().deliveries] == ["pending"]
    retry(telling)
    job = telling.job()
    assert (job.state, sorted(one.kind for one in job.deliveries)) == ("done", ["seg", "sr"])
    assert [one.kind for one in job.objects] == ["not-performed", "seg", "sr"]
    assert len(telling.sent()) == 2
    with telling.database.read() as session:
        assert "withdrawn" in [event.kind for event in events.of_study(session, telling_study(telling))]


def telling_study(journey: Journey) -> int:
    [study] = journey.rows(models.Study)
    return int(study.id)


def test_late_images_make_an_answer_that_names_what_was_announced(telling: Journey) -> None:
    telling.run(gap())
    telling.announce()
    said = received(telling)
    telling.run(journeys.datasets()[2:3], association="a2")
    telling.announce()
    assert len(telling.sent()) == 3
    [report] = [pydicom.dcmread(path) for path in (telling.storage / "results").rglob("sr.dcm")]
    [series] = report.PredecessorDocumentsSequence[0].ReferencedSeriesSequence
    assert series.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == said.SOPInstanceUID
    # It is no answer: the new one is the first, and nobody's second revision
    assert report.SeriesDescription.startswith("AI unverified")


def test_a_failure_in_whose_place_a_newer_job_answers_is_not_announced(telling: Journey) -> None:
    telling.run(gap())
    telling.arrive(journeys.datasets()[2:3], association="a2")
    telling.announce()
    assert telling.sent() == []
    assert any("answers in its place" in note for job in telling.why().jobs for note in job.notes)


def test_a_study_of_two_patients_is_announced_nowhere(telling: Journey) -> None:
    made = journeys.datasets()
    for ds in made[3:]:
        ds.PatientID = f"{ID}-other"
    telling.arrive(made)
    telling.announce()
    assert telling.sent() == []
    assert telling.job().state == "skipped"
    assert any("announced nowhere" in note for note in telling.job().notes)


def test_two_orders_in_a_series_are_announced_nowhere(telling: Journey) -> None:
    made = journeys.datasets()
    made[0].AccessionNumber = "another"
    telling.run(made)
    telling.announce()
    assert telling.job().reason == "gate"
    assert telling.sent() == []
    assert any("differ in AccessionNumber" in note for note in telling.job().notes)


def test_files_that_are_gone_are_said_in_the_notes(telling: Journey) -> None:
    (job_id,) = telling.arrive(journeys.datasets())
    for path in (telling.storage / "spool").glob("[0-9]*/*/*.dcm"):
        path.unlink()
    telling.analyse(job_id)
    telling.announce()
    assert telling.sent() == []
    [note] = telling.job().notes
    assert "no file of the series has a readable header" in note


def unlucky(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    """Let no document be made about the series `SERIES`; of every other it is."""
    build = not_performed.build

    def raising(failure: results.Failure) -> pydicom.Dataset:
        if failure.headers[0].SeriesInstanceUID == SERIES:
            raise error
        return build(failure)

    monkeypatch.setattr(not_performed, "build", raising)


def two_failures(telling: Journey) -> list[models.Job]:
    """Two series that fail, the one of `SERIES` first."""
    for suffix in ("", ".9"):
        made = journeys.datasets(study_uid=f"{STUDY}{suffix}", series_uid=f"{SERIES}{suffix}")
        telling.run(made[:2] + made[3:], association=f"a{suffix}")
    return telling.rows(models.Job)


@pytest.mark.parametrize("kind", [AttributeError, KeyError, TypeError, ValueError, OSError])
def test_headers_of_which_no_document_can_be_made_are_said_once_and_hold_up_nobody(
    telling: Journey, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, kind: type[Exception]
) -> None:
    # pydicom quotes what it stumbles over; AttributeError names attributes only
    unlucky(monkeypatch, kind("no attribute" if kind is AttributeError else f"not valid: {NAME}"))
    two_failures(telling)
    telling.announce()
    first, second = telling.rows(models.Job)
    assert (first.state, first.unannounced) == ("failed", False)
    [note] = first.notes
    assert "announced nowhere" in note and kind.__name__ in note
    assert (second.unannounced, second.notes, len(telling.sent())) == (False, None, 1)
    # Not again
    caplog.clear()
    telling.announce()
    assert (len(telling.sent()), caplog.messages) == (1, [])


def test_what_the_disk_refuses_is_announced_later_and_holds_up_nobody(
    telling: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_failures(telling)
    monkeypatch.setattr(announcing, "_BATCH", 1)
    with monkeypatch.context() as refusing:
        unlucky(refusing, PermissionError(errno.EACCES, "Permission denied", f"/storage/{ID}"))
        telling.announce()
        first, second = telling.rows(models.Job)
        assert (first.unannounced, first.notes, second.unannounced) == (True, None, False)
        assert len(telling.sent()) == 1
    telling.announce()
    assert [job.unannounced for job in telling.rows(models.Job)] == [False, False]
    assert len(telling.sent()) == 2


def test_a_series_with_one_broken_file_takes_its_header_from_another(telling: Journey) -> None:
    (job_id,) = telling.arrive(journeys.datasets())
    sorted((telling.storage / "spool").glob("[0-9]*/*/*.dcm"))[0].write_bytes(b"nothing")
    telling.analyse(job_id)
    telling.announce()
    assert telling.job().reason == "not-dicom"
    assert "a file cannot be read as DICOM" in words(telling)


def test_a_result_that_failed_the_gate_is_announced(
    telling: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = telling.arrive(journeys.datasets())
    monkeypatch.setattr("dicom_node.results.verify_seg.check", _refuse)
    telling.analyse(job_id)
    telling.announce()
    assert telling.job().reason == "gate"
    assert len(telling.sent()) == 1
    assert "was kept back" in words(telling)


def _refuse(*_: object) -> None:
    raise results.verify.GateError("shifted")


def test_a_dead_announcement_can_be_revived_and_its_job_stays_failed(telling: Journey) -> None:
    telling.run(gap())
    announcing.announce(telling.bench, datetime.now(UTC))
    [delivery] = telling.job().deliveries
    with telling.database.write() as session:
        session.get_one(models.Delivery, delivery.id).state = "dead"
    with telling.database.write() as session:
        assert dead_letters.revivable(session) == [delivery.id]
        assert dead_letters.revive(session, delivery.id)
    telling.deliver(delivery.id)
    assert (telling.job().state, telling.job().reason) == ("failed", "missing-slice")
    assert len(telling.sent()) == 1


def test_a_job_that_went_on_is_not_announced_by_a_sweep_that_looked_before(telling: Journey) -> None:
    telling.run(gap())
    job = telling.job()
    with telling.database.write() as session:
        assert jobs.retry(session, job.id)
    with telling.database.write() as session:
        row = jobs.get(session, job.id)
        assert not announcements.record(
            session, job.id, failed_at=row.finished_at, made=None, note="", at=datetime.now(UTC)
        )


def test_undelivered_is_no_failure_of_the_model(telling: Journey) -> None:
    class Refusing:
        def send(self, paths: list[Path], on_outcome: object) -> None:
            for path in paths:
                uid = str(pydicom.dcmread(path).SOPInstanceUID)
                outcome = Outcome(
                    path=path, sop_instance_uid=uid, verdict=Verdict.REFUSED, status=0xA900, comment="no"
                )
                on_outcome(outcome)  # type: ignore[operator]

    telling.open_sender = lambda _: Refusing()  # type: ignore[assignment,return-value]
    telling.run(journeys.datasets())
    assert (telling.job().state, telling.job().reason) == ("failed", "undelivered")
    telling.open_sender = None
    telling.announce()
    assert telling.sent() == []
