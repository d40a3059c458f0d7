"""Which earlier result is compared: of the same patient and no other, and the same one for good."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy.orm import Session

from db import comparisons, jobs, leases, results
from db.base import Database
from db.models import Job
from db.states import JobState
from tests.db import rows

ATTRIBUTES = {"StudyDate": "20250301", "SeriesDescription": "Lung 1.0", "IssuerOfPatientID": "North"}


def study_with_job(session: Session, number: int, *, patient_id: str = "P1", **attributes: Any) -> Job:
    """A study of one series and one queued job of it."""
    uid = f"1.2.{number}"
    study = rows.receive(session, uid, patient_id=patient_id, attributes={**ATTRIBUTES, **attributes})
    return rows.make_job(session, study, identity=uid)


def answered(
    session: Session, number: int, *, state: JobState = JobState.DONE, value: float = 7.0, **how: Any
) -> Job:
    """An earlier job with one number."""
    job = study_with_job(session, number, **how)
    measured = {"key": "low", "value": value, "unit": "%", "segment_number": 1, "segment_label": "Lung"}
    results.replace_findings(
        session, job.id, segments=[], measurements=[{**measured, **rows.LAA}], findings=[]
    )
    assert leases.claim(session, job.id, owner="w", now=rows.NOW, lease=rows.LEASE) is not None
    assert leases.leave_running(session, job.id, state, owner="w")
    return jobs.get(session, job.id)


def present(session: Session, **how: Any) -> Job:
    """The job whose result is to be compared."""
    return study_with_job(session, 99, **{"StudyDate": "20260101", **how})


def test_the_latest_earlier_study_of_the_patient_is_found(database: Database) -> None:
    with database.write() as session:
        answered(session, 1, StudyDate="20240101")
        latest = answered(session, 2, StudyDate="20250301")
        answered(session, 3, StudyDate="20270101")
        found = comparisons.earlier(session, present(session))
        assert found is not None and found.id == latest.id


def test_a_day_that_there_is_not_hides_no_other(database: Database) -> None:
    with database.write() as session:
        real = answered(session, 1, StudyDate="20240101")
        answered(session, 2, StudyDate="20251399")
        found = comparisons.earlier(session, present(session))
        assert found is not None and found.id == real.id


@pytest.mark.parametrize("state", [JobState.DONE, JobState.DELIVERING])
def test_what_has_an_answer_counts(database: Database, state: JobState) -> None:
    with database.write() as session:
        job = answered(session, 1, state=state)
        found = comparisons.earlier(session, present(session))
        assert found is not None and found.id == job.id


def test_what_a_destination_did_not_take_has_an_answer_all_the_same(database: Database) -> None:
    with database.write() as session:
        job = answered(session, 1, state=JobState.FAILED)
        job.reason = "undelivered"
        found = comparisons.earlier(session, present(session))
        assert found is not None and found.id == job.id


@pytest.mark.parametrize("state", [JobState.FAILED, JobState.QUEUED])
def test_what_has_none_does_not(database: Database, state: JobState) -> None:
    with database.write() as session:
        answered(session, 1, state=state)
        assert comparisons.earlier(session, present(session)) is None


@pytest.mark.parametrize(
    ("then", "now"),
    [
        ({"patient_id": "P2"}, {}),
        ({"patient_id": "p1"}, {}),
        ({"patient_id": ""}, {"patient_id": ""}),
        ({"patient_id": " "}, {"patient_id": " "}),
        ({"IssuerOfPatientID": "South"}, {}),
        ({"IssuerOfPatientID": None}, {}),
        ({}, {"IssuerOfPatientID": None}),
        ({"StudyDate": "20260101"}, {}),
        ({"StudyDate": None}, {}),
        ({"StudyDate": "2025"}, {}),
        ({}, {"StudyDate": None}),
        ({}, {"StudyDate": "yesterday"}),
        ({"StudyDate": "00000000"}, {}),
        ({"StudyDate": "20251399"}, {}),
        ({}, {"StudyDate": "99999999"}),
        ({}, {"StudyDate": "２０２６０１０１"}),
    ],
)
def test_nobody_is_compared_with_somebody_else_or_with_an_unknown_day(
    database: Database, then: dict[str, Any], now: dict[str, Any]
) -> None:
    with database.write() as session:
        answered(session, 1, **then)
        assert comparisons.earlier(session, present(session, **now)) is None


def test_another_model_is_not_compared(database: Database) -> None:
    with database.write() as session:
        answered(session, 1)
        job = present(session)
        job.model = "nodules"
        assert comparisons.earlier(session, job) is None


def test_a_study_of_two_patients_is_not_compared(database: Database) -> None:
    with database.write() as session:
        answered(session, 1).study.problem = "the images carry 2 different Patient IDs"
        assert comparisons.earlier(session, present(session)) is None


def test_of_a_studys_series_the_one_of_the_same_description_counts(database: Database) -> None:
    with database.write() as session:
        alike = answered(session, 1, SeriesDescription="Lung 1.0")
        other = answered(session, 2, SeriesDescription="Soft 5.0")
        found = comparisons.earlier(session, present(session))
        assert found is not None and found.id == alike.id
        last = study_with_job(session, 98, StudyDate="20260101", SeriesDescription="None such")
        found = comparisons.earlier(session, last)
        assert found is not None and found.id == other.id


def test_what_is_compared_is_copied_and_then_stays(database: Database) -> None:
    with database.write() as session:
        earlier = answered(session, 1, value=7.0)
        job = present(session)
        comparisons.settle(session, job)
        kept = job.compared
        assert kept == {
            "job": earlier.id,
            "study_date": "20250301",
            "series_description": "Lung 1.0",
            "model_version": "1",
            "values": [{"key": "low", "segment": "Lung", "value": 7.0, "unit": "%"}],
        }
        # Until it has results a newer answer counts; then none does
        later = answered(session, 2, StudyDate="20251231", value=9.0)
        comparisons.settle(session, job)
        assert job.compared is not None and job.compared["job"] == later.id
        settled = job.compared
        results.replace_objects(session, job.id, [rows.new_object("x", 1)], destinations=(), at=rows.NOW)
        answered(session, 3, StudyDate="20251231")
        comparisons.settle(session, job)
        assert job.compared == settled


def test_a_file_that_takes_anothers_place_says_who_the_patient_is(database: Database) -> None:
    from db import parents

    with database.write() as session:
        job = study_with_job(session, 1)
        parents.describe_anew(
            session,
            rows.new_instance(study="1.2.1", patient_id="P9"),
            {**ATTRIBUTES, "IssuerOfPatientID": "South"},
        )
        assert (job.study.patient_id, job.study.issuer_of_patient_id) == ("P9", "South")
