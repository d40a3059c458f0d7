"""The sweep: closes complete studies, sends lost messages again, takes jobs from dead workers."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta

from db import associations, deliveries, events, jobs, leases, studies
from db.states import JobState
from worker import enqueue, heartbeat, pipeline
from worker.station import Station

logger = logging.getLogger(__name__)

#: How often complete studies are looked for: part of every study's latency.
TICK_SECONDS = 0.1
#: How often everything else is looked after.
CARE_SECONDS = 2.0
#: A message unanswered for so long may be lost.
NUDGE_AGAIN = timedelta(seconds=30)


def run(station: Station, stop: threading.Event) -> None:
    """Sweep until `stop` is set; a failing sweep is logged and tried again."""
    with heartbeat.Heartbeat(station, "sweep"):
        next_care = datetime.now(UTC)
        while not stop.is_set():
            now = datetime.now(UTC)
            try:
                close_studies(station, now)
                if now >= next_care:
                    care(station, now)
                    next_care = now + timedelta(seconds=CARE_SECONDS)
            except Exception:
                # The database or the broker may be away for a while; nothing is lost by waiting.
                logger.exception("a sweep failed and will be repeated in %s s", CARE_SECONDS)
                stop.wait(CARE_SECONDS)
            stop.wait(TICK_SECONDS)


def close_studies(station: Station, now: datetime) -> None:
    """Close what is complete and start its jobs."""
    node = station.settings.node
    follow = pipeline.close(
        station.database,
        routes=station.routes,
        models=station.shelf.rules,
        quiet=timedelta(seconds=node.quiet_seconds),
        long_quiet=timedelta(seconds=node.long_quiet_seconds),
        now=now,
    )
    enqueue.jobs(station.database, follow)


def care(station: Station, now: datetime) -> None:
    """Bury dead processes, take back expired leases, nudge again what may have been lost."""
    with station.database.write() as session:
        lost = associations.bury(session, silent_since=now - heartbeat.SILENT, at=now)
        if lost:
            logger.warning("%s associations were lost with the process that held them", lost)
        freed = deliveries.free_orphans(session)
        if freed:
            logger.warning("%s deliveries were held by a dead process and are sent again", freed)
    _take_back(station, now)
    nudged_before = now - NUDGE_AGAIN
    with station.database.read() as session:
        job_ids = jobs.unheard(session, now=now, nudged_before=nudged_before)
        delivery_ids = deliveries.due(session, now=now, nudged_before=nudged_before)
    enqueue.jobs(station.database, job_ids)
    enqueue.deliveries(station.database, delivery_ids)


def _take_back(station: Station, now: datetime) -> None:
    """Give the jobs of dead workers to others; after too many attempts, to a person."""
    with station.database.read() as session:
        orphans = leases.expired(session, now)
    for job in orphans:
        # One study per transaction: the order of locks is then the same everywhere.
        with station.database.write() as session:
            if job.attempts >= station.settings.work.max_attempts:
                error = f"{job.attempts} workers died on it or fell silent; see their logs"
                values = {"reason": "worker-lost", "error": error, "finished_at": now}
                moved = leases.leave_running(
                    session, job.id, JobState.FAILED, owner=job.lease_owner, **values
                )
                studies.finish_if_ended(session, job.study_id, now)
            else:
                moved = leases.leave_running(
                    session, job.id, JobState.QUEUED, owner=job.lease_owner, nudged_at=None
                )
            if moved:
                message = f"attempt {job.attempts} lost its worker"
                events.note(session, "lease-expired", message, study_id=job.study_id, job_id=job.id)
