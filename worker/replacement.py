"""A model package that took another's place while a job waited: the job ends, the present package's follows."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from db import jobs, leases, studies
from db.models import Job
from db.states import JobState
from worker import casting, parameters, profiles, records, routing
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
    end = _end(session, bench, job, rule, about=about, now=now)
    if end.state is JobState.CANCELLED:
        # Half of a set may have left: the other half would be another answer's.
        jobs.drop_deliveries(session, job.id, now)
    leases.leave_running(
        session,
        job.id,
        end.state,
        reason=end.reason,
        error=end.error,
        owner=bench.owner,
        finished_at=now,
    )
    studies.finish_if_ended(session, job.study_id, now)
    logger.warning("job %s: %s", job.id, end.error)
    return True


@dataclass(frozen=True, kw_only=True)
class _End:
    """How such a job ends."""

    state: JobState
    reason: str
    #: For people.
    error: str


def _end(
    session: Session,
    bench: Bench,
    job: Job,
    rule: routing.ModelRule | None,
    *,
    about: Mapping[str, Subject],
    now: datetime,
) -> _End:
    """FAILED where somebody can mend something and retry the job; else CANCELLED, with a successor if one is due."""
    if rule is None:
        error = (
            f"there is no usable model {job.model} any more: put its package back "
            "(`secondread models list` says what is wrong with one), then retry the job"
        )
        return _End(state=JobState.FAILED, reason="no-model", error=error)
    changed = (
        f"made for {_named(job.model, job.model_version, job.model_digest)}; "
        f"{_named(rule.name, rule.version, rule.digest)} is in its place now"
    )
    made = casting.cast(rule.inputs, [subject.view for subject in about.values()])
    if made.problem:
        error = f"{changed}, and does not take {'this' if len(about) == 1 else 'these'} series"
        return _End(state=JobState.CANCELLED, reason="model-changed", error=error)
    wrong = parameters.problem(bench.shelf.manifests[rule.name], parameters.values(job.parameters))
    if wrong:
        error = (
            f"{changed}, and cannot be given the job's parameters: {wrong}: correct "
            f"routes.{job.route}.parameters.{rule.name} for what comes from now on, or put the former package back "
            "and retry the job"
        )
        return _End(state=JobState.FAILED, reason="parameters", error=error)
    successor = _successor(session, job, rule, made, now=now)
    return _End(state=JobState.CANCELLED, reason="model-changed", error=f"{changed}: see job {successor.id}")


def _successor(
    session: Session, job: Job, rule: routing.ModelRule, made: casting.Cast, *, now: datetime
) -> Job:
    """The job of the package that is here now, about the same images."""
    said = routing.Decision(
        route=job.route,
        model=rule.name,
        series=None,
        matched=True,
        reason=made.reason,
        trace=made.trace,
        taken=made.taken,
    )
    values = records.job(
        job.study,
        said,
        rule,
        sends=profiles.sends_of_another(job.sends, rule.results),
        announce_to=job.announce_to,
        given=parameters.values(job.parameters),
        now=now,
    )
    # Newer images than these may be there: the routes decide about those when they are complete.
    values |= {"revision": job.revision, "priority": job.priority}
    return jobs.create(session, values, records.roles(said))


def _named(name: str, version: str, digest: str) -> str:
    return f"{name} {version} ({digest[:8]})"
