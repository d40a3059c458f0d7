"""How an analysis and a delivery end: each in one commit that moves the state and keeps the reason."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from db import deliveries, events, jobs, leases, results, studies
from db.models import Delivery, Job
from db.states import JobState
from dicom_node.senders import Outcome, Verdict
from dicom_node.senders import retry as delivery_retry
from worker import records
from worker.bench import Analysis, Bench, Post
from worker.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

#: Wait before a job is tried again whose files could not be read or written.
STORAGE_WAIT = timedelta(seconds=30)
#: Why a file that is no longer what was verified does not leave.
DAMAGED = "the file was changed on disk after it was verified; find out why, then retry its job"


def conclude(bench: Bench, job: Job, outcome: Analysis, watch: Stopwatch) -> list[int]:
    """Store what was found; RUNNING -> DELIVERING (or DONE, or FAILED at the gate) in one commit."""
    now = datetime.now(UTC)
    refused = [file for file in outcome.files if not file.verified]
    destinations = [] if refused else job.destinations
    with bench.database.write() as session:
        values: dict[str, Any] = {
            "engine": outcome.findings.engine,
            "seconds": watch.seconds,
            "notes": list(outcome.notes),
        }
        to = JobState.DELIVERING if destinations else JobState.DONE
        if refused:
            to = JobState.FAILED
            values |= {
                "reason": "gate",
                "error": "; ".join(f"{file.kind}: {file.problem}" for file in refused),
            }
        if to is not JobState.DELIVERING:
            values["finished_at"] = now
        if not leases.leave_running(session, job.id, to, owner=bench.owner, **values):
            logger.warning("job %s was taken from this worker; what it made is dropped", job.id)
            return []
        results.replace_findings(session, job.id, **records.findings(outcome.findings))
        rows = [records.result_object(file, bench.results_root) for file in outcome.files]
        follow = results.replace_objects(session, job.id, rows, destinations=destinations, at=now)
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
    """RUNNING -> QUEUED for a while where the disk is full or away; FAILED after too many attempts."""
    said = f"the storage does not work: {error.strerror or type(error).__name__}"
    if job.attempts >= bench.max_attempts:
        return fail(bench, job, "storage", said, watch)
    again = datetime.now(UTC) + STORAGE_WAIT
    logger.warning("job %s is tried again at %s UTC: %s", job.id, f"{again:%H:%M:%S}", said)
    with bench.database.write() as session:
        leases.leave_running(
            session,
            job.id,
            JobState.QUEUED,
            owner=bench.owner,
            not_before=again,
            nudged_at=None,
            reason="storage",
            error=said,
        )
    return []


def give_up(bench: Bench, job_id: int, error: BaseException) -> None:
    """Record a job that ended in an error nobody foresaw; its stack trace is in the log."""
    with bench.database.read() as session:
        job = jobs.get(session, job_id)
    message = f"unexpected {type(error).__name__}; the worker's log has the details"
    fail(bench, job, "unexpected", message, Stopwatch())


def inspect(post: Post, rows: Sequence[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
    """Deliveries whose files are still what the gate let through, and those whose files are not.

    A file that is gone is among the first: its sender says so.
    """
    whole: list[Delivery] = []
    damaged: list[Delivery] = []
    for row in rows:
        path = post.results_root / row.result.path
        changed = path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != row.result.sha256
        (damaged if changed else whole).append(row)
    return whole, damaged


def settle_alike(post: Post, rows: Sequence[Delivery], verdict: Verdict, comment: str) -> None:
    """Give the same answer to several deliveries that got none of their own."""
    for row in rows:
        uid = row.result.sop_instance_uid
        settle(post, row, Outcome(sop_instance_uid=uid, verdict=verdict, status=None, comment=comment))


def _named(row: Delivery) -> str:
    """A delivery as the log names it."""
    return f"job {row.result.job_id}: {row.result.kind.upper()} to {row.destination} (delivery {row.id})"


def _said(outcome: Outcome) -> str:
    """What the log may say of an answer: a peer's own comment may quote the patient, our words do not."""
    return outcome.comment if outcome.status is None else f"status 0x{outcome.status:04X}"


def settle(post: Post, row: Delivery, outcome: Outcome) -> None:
    """Write a destination's answer: SENT, DEAD, or PENDING until the next attempt."""
    now = datetime.now(UTC)
    answer: dict[str, Any] = {"status": outcome.status, "comment": outcome.comment}
    with post.database.write() as session:
        if outcome.verdict in (Verdict.DELIVERED, Verdict.WARNING):
            deliveries.sent(session, row.id, at=now, **answer)
            logger.info("job %s: %s is at %s", row.result.job_id, row.result.kind.upper(), row.destination)
        else:
            first = row.first_attempt_at or now
            again = delivery_retry.next_attempt(first, row.attempts, now)
            if outcome.verdict is Verdict.REFUSED or again is None:
                deliveries.dead(session, row.id, **answer)
                logger.error("%s is given up: %s", _named(row), _said(outcome))
                message = f"{row.result.kind} to {row.destination} is dead: {outcome.comment}"
                events.note(
                    session,
                    "dead-delivery",
                    message,
                    job_id=row.result.job_id,
                    study_id=row.result.job.study_id,
                )
            else:
                deliveries.postpone(session, row.id, owner=post.owner, until=again, **answer)
                logger.warning(
                    "%s is sent again at %s: %s", _named(row), f"{again:%H:%M:%S} UTC", _said(outcome)
                )
        if jobs.settle_delivering(session, row.result.job_id, now):
            studies.finish_if_ended(session, row.result.job.study_id, now)
