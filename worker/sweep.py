"""The sweep: closes complete studies, sends lost messages again, takes jobs from dead workers."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from db import leases
from db.models import Job
from worker import (
    announcing,
    attempts,
    commitment_ledger,
    completeness,
    counting,
    deaths,
    enqueue,
    heartbeat,
    machine,
    nudges,
    pipeline,
    repair,
    retention,
    space,
)
from worker.station import Station
from worker.steps import Steps

#: How often complete studies are looked for: part of every study's latency.
TICK_SECONDS = 0.1
#: How often everything else is looked after.
CARE_SECONDS = 2.0


def run(station: Station, stop: threading.Event) -> None:
    """Sweep until `stop` is set; a step that fails is tried again, and the others are taken meanwhile."""
    with heartbeat.Heartbeat(station, "sweep"), repair.Repair(station) as repairs, counting.running(station):
        next_care, looks, steps = datetime.now(UTC), completeness.Looks(), Steps(station.database)
        keeper = retention.Keeper(retention.open_store(station.database, station.settings), station.settings)
        while not stop.is_set():
            now = datetime.now(UTC)
            steps.take("closing studies", partial(close_studies, station, now, looks), now)
            if now >= next_care:
                if care(station, now, steps):
                    repairs.ask()
                next_care = now + timedelta(seconds=CARE_SECONDS)
            steps.take("retention", partial(keeper.tick, now), now)
            stop.wait(TICK_SECONDS)


def close_studies(station: Station, now: datetime, looks: completeness.Looks | None = None) -> None:
    """Close what is complete and start its jobs."""
    node = station.settings.node
    follow = pipeline.close(
        station.database,
        routes=station.routes,
        models=station.shelf.rules,
        patience=completeness.Patience(
            quiet=timedelta(seconds=node.quiet_seconds),
            long_quiet=timedelta(seconds=node.long_quiet_seconds),
            counting=frozenset(peer.name for peer in station.settings.peers if peer.count != "none"),
        ),
        looks=looks,
        now=now,
    )
    enqueue.jobs(station.database, follow, station.settings.work)


def care(station: Station, now: datetime, steps: Steps | None = None) -> set[str]:
    """Bury dead processes, take back expired leases, announce failed jobs, send lost messages again.

    Each is a step by itself. `steps` remembers, between calls, which of them failed. Returns the roles that
    died.
    """
    steps = steps or Steps(station.database)
    died: set[str] = set()
    each: tuple[tuple[str, Callable[[], object]], ...] = (
        ("burying dead processes", lambda: died.update(deaths.bury(station, now))),
        ("taking back leases", lambda: _take_back(station, now)),
        ("announcing failures", lambda: announcing.announce(station.bench, now)),
        ("looking after commitments", lambda: commitment_ledger.look_after(station.post, now)),
        ("sending lost messages again", lambda: nudges.send_again(station, now)),
        ("watching the space", lambda: space.watch(station.database, station.settings, now)),
    )
    for name, step in each:
        steps.take(name, step, now)
    return died


def _take_back(station: Station, now: datetime) -> None:
    """Give the jobs of dead workers to others; after too many attempts, to a person."""
    with station.database.read() as session:
        orphans = leases.expired(session, now)
        orphans += [job for job in leases.held(session, now) if machine.is_gone(job.lease_owner)]
    for job in orphans:
        # One study per transaction: the order of locks is then the same everywhere.
        with station.database.write() as session:
            attempts.failed(
                session,
                job,
                attempts.of_silence(job, now),
                # Not one that its worker renewed, or began again, since it was read.
                Job.lease_until == job.lease_until,
                owner=job.lease_owner,
                max_attempts=station.settings.work.max_attempts,
                now=now,
            )
