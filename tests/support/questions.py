"""What people, the page, the metrics and the sweep ask the database, by name, as the product asks it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy.orm import Session

from db import (
    announcements,
    associations,
    commitments,
    comparisons,
    counts,
    deliveries,
    events,
    figures,
    found,
    jobs,
    leases,
    naming,
    purging,
    studies,
    troubles,
)
from db.models import Job, Study
from tests.support.history import History
from worker import completeness, heartbeat, limits, status
from worker.sections import Work

Question = Callable[[Session, History], Any]


def _studies(**how: Any) -> Question:
    return lambda session, _: status.study_lines(session, studies.newest(session, **{"limit": 50, **how}))


def _jobs(**how: Any) -> Question:
    def ask(session: Session, _: History) -> Any:
        return [status.job_line(row) for row in jobs.newest(session, **{"limit": 50, **how})]

    return ask


def _deliveries(**how: Any) -> Question:
    def ask(session: Session, _: History) -> Any:
        return [status.delivery_line(row) for row in deliveries.newest(session, **{"limit": 50, **how})]

    return ask


def _why(age: int) -> Question:
    return lambda session, history: status.why(session, history.uid(history.studies - age))


def _findings(**how: Any) -> Question:
    return lambda session, _: found.search(session, **{"limit": 1000, **how})


def _now() -> datetime:
    return datetime.now(UTC)


def _nudged() -> dict[str, Any]:
    return {"now": _now(), "nudged_before": _now() - timedelta(seconds=30)}


#: What the issue's bar is for: the commands `studies`, `jobs` and `why`.
COMMANDS: dict[str, Question] = {
    "studies": _studies(),
    "studies --state receiving": _studies(state="receiving"),
    "studies --state ready": _studies(state="ready"),
    "studies --state done": _studies(state="done"),
    "studies --state purged": _studies(state="purged"),
    "jobs": _jobs(),
    "jobs --state queued": _jobs(state="queued"),
    "jobs --state failed": _jobs(state="failed"),
    "jobs --state done": _jobs(state="done"),
    "jobs --state cancelled": _jobs(state="cancelled"),
    "jobs show": lambda session, history: status.job_detail(session, 3 * (history.studies - 200)),
    "why (still arrives)": _why(10),
    "why (900 images)": _why(150),
    "why (a month ago)": lambda session, history: status.why(
        session, history.uid(history.studies * 11 // 12)
    ),
    "deliveries": _deliveries(),
    "deliveries --state dead": _deliveries(state="dead"),
    "deliveries --state pending": _deliveries(state="pending"),
}

#: What else people ask, the page's lists and figures among it.
PEOPLE: dict[str, Question] = {
    "page: needs a person": _studies(attention=True),
    "page: how many need one": lambda session, _: studies.count(session, attention=True),
    "page: 1,000 pages on": lambda session, history: _studies(offset=history.studies // 2)(session, history),
    "page: events": lambda session, _: status.event_lines(session, events.newest(session, 12)),
    "page: counts": lambda session, _: status.snapshot(session),
    "findings --model": _findings(model="nodules"),
    "findings --code": _findings(code="laa950"),
    "findings --code --above": _findings(code="laa950", above=990.0),
    "findings --since 7d": _findings(since=_now() - timedelta(days=7)),
    "metrics: images": lambda session, _: figures.arrivals(session),
    "metrics: events": lambda session, _: figures.events_by_kind(session),
    "metrics: stages": lambda session, _: figures.stage_seconds(session, limit=500),
    "readiness: the sweep": lambda session, _: troubles.failing(session),
    "metrics: oldest job": lambda session, _: figures.oldest_waiting(session),
}

#: What the sweep asks: the first every 0.1 s, the others every 2 s.
SWEEP: dict[str, Question] = {
    "studies that receive": lambda session, _: counts.receiving(session),
    "named lately": lambda session, _: naming.lately(session, _now() - timedelta(seconds=5)),
    "what arrived of one": lambda session, history: completeness.gather(
        session, session.get_one(Study, history.studies - 10)
    ),
    "unheard jobs": lambda session, _: jobs.unheard(session, **_nudged()),
    "failures to announce": lambda session, _: announcements.due(session, 20),
    "expired leases": lambda session, _: leases.expired(session, _now()),
    "held leases": lambda session, _: leases.held(session, _now()),
    "limits of jobs": lambda session, history: limits.of_jobs(session, [3 * history.studies - 90], Work()),
    "compared with": lambda session, history: comparisons.earlier(
        session, session.get_one(Job, 3 * (history.studies - 150))
    ),
    "due deliveries": lambda session, _: deliveries.due(session, **_nudged()),
    "orphaned deliveries": lambda session, _: deliveries.free_orphans(session),
    "due commitments": lambda session, _: commitments.due(session, **_nudged()),
    "overdue commitments": lambda session, _: commitments.overdue(session, asked_before=_now()),
    "orphaned commitments": lambda session, _: commitments.orphans(session),
    "dead processes": lambda session, _: associations.bury(session, [], at=_now()),
    "signs of life": lambda session, _: associations.living(session, _now() - heartbeat.SILENT),
    "oldest to purge": lambda session, _: purging.oldest(session, quiet_before=_now(), limit=20),
    "may one be purged": lambda session, history: purging.held_back(
        session, session.get_one(Study, history.studies // 2)
    ),
    "what one holds": lambda session, history: purging.holding(session, history.studies // 2),
    "files to delete": lambda session, _: purging.doomed(session, after=0, limit=200),
}

QUESTIONS: dict[str, dict[str, Question]] = {"commands": COMMANDS, "page and metrics": PEOPLE, "sweep": SWEEP}
