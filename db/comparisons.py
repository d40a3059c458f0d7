"""Which earlier result of the same patient a job's is compared with, fixed before it has results of its own."""

from __future__ import annotations

import math
from datetime import date
from typing import Any

from sqlalchemy import Select, func, or_, select
from sqlalchemy.orm import Session

from db import results
from db.models import Job, ResultObject, Series, Study
from db.states import UNDELIVERED, JobState

#: Such a job's findings are final, as are those of one that a destination did not take.
_ANSWERED = tuple(state.value for state in (JobState.DELIVERING, JobState.DONE))

#: Earlier answers that are looked at, lest their study's date is no day of the calendar.
_MOST = 20

#: Characters of a date (PS3.5 6.2, DA).
_DATE = 8


def settle(session: Session, job: Job) -> None:
    """Keep with a job, which was just claimed, the numbers that its report compares its own with.

    Copied and not referred to: a job that is run again may measure anew. Once the job has results they
    stay as they are, since the results hold them and are made again byte for byte.
    """
    made = select(ResultObject.id).where(ResultObject.job_id == job.id)
    if session.scalar(made.limit(1)) is None:
        found = earlier(session, job)
        job.compared = None if found is None else _snapshot(session, found)


def earlier(session: Session, job: Job) -> Job | None:
    """The same model's answer about the same patient's latest earlier study; None where there is none.

    A patient is Patient ID and its issuer, both equal; without a Patient ID nobody is compared with anybody.
    Earlier is a Study Date before this one's: of two studies of one day none is. Of several series of that
    study the one of the same description counts, then the newest answer.
    """
    study = job.study
    if not study.patient_id.strip() or not _is_date(study.study_date):
        return None
    description = session.get_one(Series, job.series_id).series_description
    found = session.scalars(_statement(job, study, description))
    return next((each for each in found if _is_date(each.study.study_date)), None)


def _statement(job: Job, study: Study, description: str) -> Select[Job]:
    """Found by the index of patients and dates; what is sorted is one patient's."""
    return (
        select(Job)
        .join(Study, Study.id == Job.study_id)
        .join(Series, Series.id == Job.series_id)
        .where(
            Study.patient_id == study.patient_id,
            Study.issuer_of_patient_id == study.issuer_of_patient_id,
            Study.study_date < study.study_date,
            func.length(Study.study_date) == _DATE,
            Study.problem == "",
            Job.model == job.model,
            # Numbers that were asked for otherwise are not compared.
            Job.parameters == job.parameters,
            or_(Job.state.in_(_ANSWERED), Job.reason == UNDELIVERED),
        )
        .order_by(Study.study_date.desc(), (Series.series_description == description).desc(), Job.id.desc())
        .limit(_MOST)
    )


def _snapshot(session: Session, found: Job) -> dict[str, Any]:
    """What is kept of an earlier answer; numbers that are none have no place in JSON."""
    return {
        "job": found.id,
        "study_date": found.study.study_date,
        "series_description": session.get_one(Series, found.series_id).series_description,
        "model_version": found.model_version,
        "values": [
            {
                "key": row.key,
                "segment": row.segment_label,
                "value": row.value,
                "unit": row.unit,
            }
            for row in results.measurements_of(session, found.id)
            if math.isfinite(row.value)
        ],
    }


def _is_date(text: str) -> bool:
    """Whether it is a day of the calendar (PS3.5 6.2, DA)."""
    try:
        date.fromisoformat(f"{text[:4]}-{text[4:6]}-{text[6:]}")
    except ValueError:
        return False
    return len(text) == _DATE and text.isascii()
