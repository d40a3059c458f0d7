"""What came before a job: the answer whose place its own takes, and the earlier study that it is compared with."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.orm import Session

from db import comparisons, supersession
from db.models import Job
from dicom_node.results.context import EarlierValue, EarlierValues, Predecessor
from worker import records


@dataclass(frozen=True, kw_only=True, slots=True)
class Antecedents:
    """Both as a result's context has them; None where there is none."""

    predecessor: Predecessor | None
    comparison: EarlierValues | None


def settle(session: Session, job: Job) -> Antecedents:
    """Fix both for a job that was just claimed; once it has results, they stay what they were."""
    supersession.settle_predecessor(session, job)
    comparisons.settle(session, job)
    return Antecedents(predecessor=records.predecessor(session, job), comparison=_comparison(job))


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
