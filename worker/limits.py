"""How long a job may take: as configured, or by what its model took before."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from sqlalchemy.orm import Session

from db import leases
from worker.sections import Work

#: So many answers of a model are looked at, and so many it takes to believe them.
_HISTORY, _ENOUGH = 200, 20
#: A model without that history: seconds.
_SOFT_UNKNOWN, _HARD_UNKNOWN = 600.0, 3600.0
#: One with it: times the p99 of what it took, and no less than so many seconds. A study may be far larger
#: than all before it, and to stop a job that would have ended costs its study the answer.
_SOFT_TIMES, _SOFT_LEAST = 3, 60.0
_HARD_TIMES, _HARD_LEAST = 10, 600.0


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How long one attempt at a job may take."""

    #: After it the job is noted.
    soft: timedelta
    #: After it the job is stopped.
    hard: timedelta


def choose(work: Work, took: Sequence[float]) -> Limits:
    """The limits of a model whose last answers took so many seconds each."""
    soft, hard = _SOFT_UNKNOWN, _HARD_UNKNOWN
    if len(took) >= _ENOUGH:
        usual = _p99(took)
        soft, hard = max(_SOFT_TIMES * usual, _SOFT_LEAST), max(_HARD_TIMES * usual, _HARD_LEAST)
    if work.on_gpu and work.cpu_engine is not None:
        # The CPU may have to answer, which takes far longer than the GPU did.
        soft, hard = max(soft, _SOFT_UNKNOWN), max(hard, _HARD_UNKNOWN)
    hard = hard if work.hard_seconds is None else work.hard_seconds
    soft = soft if work.soft_seconds is None else work.soft_seconds
    return Limits(soft=timedelta(seconds=min(soft, hard)), hard=timedelta(seconds=hard))


def _p99(seconds: Sequence[float]) -> float:
    """The nearest-rank 99th percentile."""
    return sorted(seconds)[math.ceil(0.99 * len(seconds)) - 1]


def of_jobs(session: Session, job_ids: Sequence[int], work: Work) -> dict[int, Limits]:
    """The limits of each of these jobs, as things are now."""
    models = leases.models_of(session, job_ids)
    limits = {
        model: choose(work, leases.seconds_taken(session, model, limit=_HISTORY))
        for model in set(models.values())
    }
    unknown = choose(work, ())
    return {job_id: limits.get(models.get(job_id, ("", "")), unknown) for job_id in job_ids}
