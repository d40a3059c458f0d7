"""How an analysis ends: in one commit that moves the state and keeps the reason."""

from __future__ import annotations

import logging
import time
from collections import Counter
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from db import announcements, events, jobs, leases, results, studies
from db.models import Job
from db.states import JobState
from dicom_node.errors import NO_SPACE
from engines.errors import DeviceLost
from worker import attempts, profiles, records
from worker.bench import Analysis, Bench
from worker.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

#: How often a job is given back whose results the database did not take, and for how long that is tried.
DATABASE_WAIT, DATABASE_PATIENCE = timedelta(seconds=2), timedelta(hours=1)
#: Wait before a job is tried again whose files could not be read or written.
STORAGE_WAIT = timedelta(seconds=30)


def supersede(session: Session, job: Job, owner: str) -> list[int]:
    """End a job whose images are no longer those of its identity: another answer must not bear its name."""
    now = datetime.now(UTC)
    error = "its series no longer holds just the images that it was made for"
    leases.leave_running(
        session,
        job.id,
        JobState.CANCELLED,
        owner=owner,
        reason="superseded",
        error=error,
        finished_at=now,
    )
    studies.finish_if_ended(session, job.study_id, now)
    logger.warning("job %s: %s", job.id, error)
    return []


def conclude(bench: Bench, job: Job, outcome: Analysis, watch: Stopwatch) -> list[int]:
    """Store what was found; RUNNING -> DELIVERING (or DONE, or FAILED at the gate) in one commit."""
    now = datetime.now(UTC)
    refused = [file for file in outcome.files if not file.verified]
    destinations = [] if refused else job.destinations
    sizes: Counter[str] = Counter()
    for file in outcome.files:
        sizes[file.kind] += file.size
    unsent = profiles.kept_back(job.sends, sizes)
    with bench.database.write() as session:
        values: dict[str, Any] = {
            **records.ran_on(outcome.findings.engine),
            "seconds": watch.seconds,
            "notes": [*outcome.notes, *filter(None, unsent.values()), *profiles.left_empty(job.sends)],
            "report": asdict(outcome.report),
        }
        to = JobState.DELIVERING if destinations else JobState.DONE
        values["unannounced"] = bool(refused and job.announce_to)
        if refused:
            to = JobState.FAILED
            values |= {
                "reason": "gate",
                "error": "; ".join(dict.fromkeys(f"{file.kind}: {file.problem}" for file in refused)),
            }
        if to is not JobState.DELIVERING:
            values["finished_at"] = now
        if not leases.leave_running(session, job.id, to, owner=bench.owner, **values):
            logger.warning("job %s was taken from this worker; what it made is dropped", job.id)
            return []
        results.replace_findings(session, job.id, **records.findings(outcome.findings))
        rows = [records.result_object(file, bench.results_root) for file in outcome.files]
        follow = results.replace_objects(
            session, job.id, rows, destinations=destinations, without=unsent, at=now
        )
        if not refused:
            announcements.withdraw(session, job, now)
        if values["fallback"]:
            message = f"it ran on {outcome.findings.engine}"
            events.note(session, "fallback", message, study_id=job.study_id, job_id=job.id)
        if not follow and to is JobState.DELIVERING:
            jobs.settle_delivering(session, job.id, now)
        studies.finish_if_ended(session, job.study_id, now)
    logger.info("job %s: %s in %.1f s", job.id, to, sum(watch.seconds.values()))
    return follow


def fail(bench: Bench, job: Job, reason: str, error: str, watch: Stopwatch) -> list[int]:
    """RUNNING -> FAILED with the reason that `why` shows."""
    now = datetime.now(UTC)
    logger.warning("job %s failed: %s: %s", job.id, reason, error)
    with bench.database.write() as session:
        leases.leave_running(
            session,
            job.id,
            JobState.FAILED,
            owner=bench.owner,
            reason=reason,
            error=error,
            seconds=watch.seconds,
            finished_at=now,
        )
        studies.finish_if_ended(session, job.study_id, now)
    return []


def try_again(bench: Bench, job: Job, error: OSError, watch: Stopwatch) -> list[int]:
    """RUNNING -> QUEUED for a while: as often as the disk is full, or until it has failed too often."""
    trouble = attempts.Trouble(
        reason="storage",
        error=f"the storage does not work: {error.strerror or type(error).__name__}",
        first_wait=STORAGE_WAIT,
        counts=error.errno not in NO_SPACE,
    )
    return _given_back(bench, job, trouble, watch)


def lose_device(bench: Bench, job: Job, error: DeviceLost, watch: Stopwatch) -> list[int]:
    """RUNNING -> QUEUED for a while, as where a worker dies: this process can do nothing more on the GPU."""
    return _given_back(bench, job, attempts.Trouble(reason="worker-lost", error=str(error)), watch)


def _given_back(bench: Bench, job: Job, trouble: attempts.Trouble, watch: Stopwatch) -> list[int]:
    """RUNNING -> QUEUED for a while, or FAILED where it has failed too often; nothing follows."""
    with bench.database.write() as session:
        to = attempts.failed(
            session,
            job,
            trouble,
            owner=bench.owner,
            max_attempts=bench.work.max_attempts,
            now=datetime.now(UTC),
            seconds=watch.seconds,
        )
    logger.warning("job %s is %s after attempt %s: %s", job.id, to, job.attempts, trouble.error)
    return []


def wait_for_database(bench: Bench, job_id: int) -> None:
    """RUNNING -> QUEUED where the database failed in the middle, as soon as it works again.

    Its disk may be full, or it is away: this worker can do nothing else meanwhile. Where it waits in
    vain, or dies, the job's lease ends.
    """
    until = time.monotonic() + DATABASE_PATIENCE.total_seconds()
    trouble = attempts.Trouble(
        reason="database",
        error="the database did not take its results",
        first_wait=DATABASE_WAIT,
        counts=False,
    )
    while time.monotonic() < until:
        try:
            with bench.database.write() as session:
                job = jobs.get(session, job_id)
                to = attempts.failed(
                    session,
                    job,
                    trouble,
                    owner=bench.owner,
                    max_attempts=bench.work.max_attempts,
                    now=datetime.now(UTC),
                )
        except OperationalError:
            time.sleep(DATABASE_WAIT.total_seconds())
        else:
            logger.warning("job %s is %s: the database failed in the middle", job_id, to or "another's now")
            return


def give_up(bench: Bench, job_id: int, error: BaseException) -> None:
    """Record a job that ended in an error nobody foresaw; its stack trace is in the log."""
    with bench.database.read() as session:
        job = jobs.get(session, job_id)
    message = f"unexpected {type(error).__name__}; the worker's log has the details"
    fail(bench, job, "unexpected", message, Stopwatch())
