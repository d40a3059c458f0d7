"""What came before a job: what its answer takes the place of, and the earlier study that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from db import announcements, comparisons, purging, supersession
from db.models import Job
from dicom_node.results.context import EarlierValue, EarlierValues, Predecessor, Report
from worker import records


@dataclass(frozen=True, kw_only=True, slots=True)
class Antecedents:
    """As a result's context has them; None, or nothing, where there is none."""

    #: The answer whose place this job's takes.
    predecessor: Predecessor | None
    #: What told destinations that there is none.
    announced: tuple[Report, ...]
    comparison: EarlierValues | None


def settle(session: Session, job: Job, now: datetime) -> Antecedents:
    """Fix them with the claim of a job; once it has results they stay, and what it replaces no longer leaves."""
    purging.spare_results(session, job.identity)
    supersession.settle_predecessor(session, job)
    announcements.withdraw(session, job, now)
    comparisons.settle(session, job)
    return Antecedents(
        predecessor=records.predecessor(session, job),
        announced=records.announced(session, job),
        comparison=_comparison(job),
    )


def _comparison(job: Job) -> EarlierValues | None:
    """What was kept of the earlier study's answer."""
    kept = job.compared
    if kept is None:
        return None
    return EarlierValues(
        study_date=kept["study_date"],
        series_description=kept["series_description"],
        model_version=kept["model_version"],
        values=tuple(EarlierValue(**value) for value in kept["values"]),
    )
