"""A model package that took another's place while a job waited: the job ends, the present package's follows."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from db import jobs, leases, studies
from db.models import Instance, Job, Series
from db.states import JobState
from worker import profiles, records, routing
from worker.bench import Bench

logger = logging.getLogger(__name__)


def hand_over(session: Session, bench: Bench, job: Job, *, images: Sequence[Instance], now: datetime) -> bool:
    """Whether the package that a job, just claimed, was made for is not here: the job has then ended.

    Its identity and UIDs stand for one package's answer. Where another bears the name now, a job of that
    one waits, about the same `images`; whoever sends lost messages again tells the workers.
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
            session, job, rule, images=images, now=now
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
    session: Session, job: Job, rule: routing.ModelRule, *, images: Sequence[Instance], now: datetime
) -> str:
    """Make the job of the package that is here now; say what follows."""
    present = f"{_named(rule.name, rule.version, rule.digest)} is in its place now"
    view = records.series_view(session.get_one(Series, job.series_id), images)
    trace = rule.series.evaluate(view.attributes)
    if not trace.verdict:
        return f"{present}, and does not take this series"
    said = routing.Decision(
        route=job.route, model=rule.name, series=view, matched=True, reason="", trace=trace
    )
    sends = profiles.sends_of_another(job.sends, rule.results)
    values = records.job(job.study, said, rule, sends=sends, announce_to=job.announce_to, now=now)
    # Newer images than these may be there: the routes decide about those when they are complete.
    successor = jobs.create(session, values | {"revision": job.revision, "priority": job.priority})
    return f"{present}: see job {successor.id}"


def _named(name: str, version: str, digest: str) -> str:
    return f"{name} {version} ({digest[:8]})"
