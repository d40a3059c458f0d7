"""How an attempt at a job ends that brought no answer: another one follows later, or a person is told."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from db import events, leases, studies
from db.models import Job
from db.states import JobState

#: Wait before the second attempt; each further one waits so many times as long, up to the longest.
_FIRST_WAIT = timedelta(seconds=10)
_TIMES, _LONGEST_WAIT = 3, timedelta(minutes=5)


@dataclass(frozen=True, kw_only=True)
class Trouble:
    """Why an attempt brought no answer."""

    #: A stable word.
    reason: str
    #: The sentence for people. No patient data.
    error: str
    #: How long the job waits before its second attempt.
    first_wait: timedelta = _FIRST_WAIT
    #: Whether it counts as an attempt; a full disk, or a database that is away, says nothing of the job.
    counts: bool = True


def failed(
    session: Session,
    job: Job,
    trouble: Trouble,
    *where: Any,
    owner: str,
    max_attempts: int,
    now: datetime,
    **values: Any,
) -> JobState | None:
    """RUNNING -> QUEUED for a while, or FAILED after the last attempt that counts; None where `owner` has it no more.

    `where` adds conditions to the compare-and-swap, `values` columns to what it writes.
    """
    values |= {"reason": trouble.reason, "error": trouble.error}
    to = JobState.QUEUED if job.attempts < max_attempts or not trouble.counts else JobState.FAILED
    if not trouble.counts:
        values |= {"attempts": job.attempts - 1}
    if to is JobState.QUEUED:
        wait = wait_after(job.attempts, trouble.first_wait) if trouble.counts else trouble.first_wait
        values |= {"not_before": now + wait, "nudged_at": None}
    else:
        values |= {"finished_at": now}
    if not leases.leave_running(session, job.id, to, *where, owner=owner, **values):
        return None
    if trouble.counts:
        message = f"attempt {job.attempts}: {trouble.error}"
        events.note(session, trouble.reason, message, study_id=job.study_id, job_id=job.id)
    if to is JobState.FAILED:
        studies.finish_if_ended(session, job.study_id, now)
    return to


def wait_after(attempts: int, first: timedelta) -> timedelta:
    """How long a job waits after so many attempts, so that others go first."""
    grown: timedelta = first * _TIMES ** min(attempts - 1, 10)
    return min(grown, _LONGEST_WAIT)


def out_of_time(limit: timedelta) -> Trouble:
    """An attempt that took longer than it may."""
    error = (
        f"it was stopped because it took longer than {limit.total_seconds():g} s; "
        "if the model needs longer for such a study, set work.hard_seconds higher and retry the job"
    )
    return Trouble(reason="time-limit", error=error)


def of_silence(job: Job, now: datetime) -> Trouble:
    """An attempt whose worker let its lease end."""
    if job.deadline_at is not None and job.started_at is not None and now >= job.deadline_at:
        return out_of_time(job.deadline_at - job.started_at)
    error = "its worker died or fell silent; the worker's log, or the kernel's (out of memory), may say why"
    return Trouble(reason="worker-lost", error=error)
