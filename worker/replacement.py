"""A model package that took another's place while a job waited: the job ends, the present package's follows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from db import jobs, leases, studies
from db.models import Job
from db.states import JobState
from worker import casting, profiles, records, routing
from worker.bench import Bench
from worker.subjects import Subject

logger = logging.getLogger(__name__)


def hand_over(
    session: Session, bench: Bench, job: Job, *, about: Mapping[str, Subject], now: datetime
) -> bool:
    """Whether the package that a job, just claimed, was made for is not here: the job has then ended.

    Its identity and UIDs stand for one package's answer. Where another bears the name now, a job of that
    one waits, about the same images; whoever sends lost messages again tells the workers.
    """
    rule = bench.shelf.rules.get(job.model)
    if rule is not None and rule.digest == job.model_digest:
        return False
    values: dict[str, Any] = {"owner": bench.owner, "finished_at": now}
    if rule is None:
        error = (
            f"there is no usable model {job.model} any more: put its package back "
            "(`secondread models list` says what is wrong with one), then retry the job"
        )
        leases.leave_running(session, job.id, JobState.FAILED, reason="no-model", error=error, **values)
    else:
        error = f"made for {_named(job.model, job.model_version, job.model_digest)}; " + _follow(
            session, job, rule, about=about, now=now
        )
        # Half of a set may have left: the other half would be another answer's.
        jobs.drop_deliveries(session, job.id, now)
        leases.leave_running(
            session, job.id, JobState.CANCELLED, reason="model-changed", error=error, **values
        )
    studies.finish_if_ended(session, job.study_id, now)
    logger.warning("job %s: %s", job.id, error)
    return True


def _follow(
    session: Session, job: Job, rule: routing.ModelRule, *, about: Mapping[str, Subject], now: datetime
) -> str:
    """Make the job of the package that is here now; say what follows."""
    present = f"{_named(rule.name, rule.version, rule.digest)} is in its place now"
    made = casting.cast(rule.inputs, [subject.view for subject in about.values()])
    if made.problem:
        return f"{present}, and does not take {'this' if len(about) == 1 else 'these'} series"
    said = routing.Decision(
        route=job.route,
        model=rule.name,
        series=None,
        matched=True,
        reason=made.reason,
        trace=made.trace,
        taken=made.taken,
    )
    sends = profiles.sends_of_another(job.sends, rule.results)
    values = records.job(job.study, said, rule, sends=sends, announce_to=job.announce_to, now=now)
    # Newer images than these may be there: the routes decide about those when they are complete.
    values |= {"revision": job.revision, "priority": job.priority}
    successor = jobs.create(session, values, records.roles(said))
    return f"{present}: see job {successor.id}"


def _named(name: str, version: str, digest: str) -> str:
    return f"{name} {version} ({digest[:8]})"
