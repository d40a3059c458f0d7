"""Priorities: who waits in front, in the database, at the broker and on the way out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from db import deliveries, jobs, models, priorities
from db.base import Database
from db.priorities import Priority
from tests.db import rows
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from worker import broker, supervise, turns
from worker.errors import BrokerError
from worker.settings import Settings
from worker.supervise import Role, Supervisor

LATER = datetime(2100, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("route", "header", "expected"),
    [
        (None, None, Priority.ROUTINE),
        (None, "STAT", Priority.STAT),
        (None, "HIGH", Priority.STAT),
        (None, " stat ", Priority.STAT),
        (None, "MEDIUM", Priority.ROUTINE),
        (None, "LOW", Priority.BACKGROUND),
        (None, "AS SOON AS YOU CAN", Priority.ROUTINE),
        (None, ["STAT", "LOW"], Priority.ROUTINE),
        ("background", "STAT", Priority.BACKGROUND),
        ("routine", "STAT", Priority.ROUTINE),
        ("stat", None, Priority.STAT),
    ],
)
def test_the_route_decides_and_without_it_the_header(route: Any, header: Any, expected: Priority) -> None:
    assert turns.of(route, {"RequestedProcedurePriority": header}) is expected
    if header is None:
        assert turns.of(route, {}) is expected


def test_a_job_has_the_priority_of_its_route(journey: Journey) -> None:
    journey.routes = [journeys.route(priority="stat")]
    journey.arrive(journeys.datasets())
    assert journey.job().priority == "stat"


def test_a_job_has_the_priority_that_its_images_say(journey: Journey) -> None:
    made = journeys.datasets()
    for ds in made:
        ds.RequestedProcedurePriority = "LOW"
    journey.arrive(made)
    assert journey.job().priority == "background"


def test_of_two_routes_that_ask_the_same_the_more_urgent_one_counts(journey: Journey) -> None:
    journey.routes = [journeys.route(), journeys.route("for the emergency room", priority="stat")]
    journey.arrive(journeys.datasets())
    assert journey.job().priority == "stat"


def test_the_urgent_wait_in_front_and_among_equals_the_oldest(database: Database) -> None:
    wanted = [Priority.BACKGROUND, Priority.ROUTINE, Priority.STAT, Priority.ROUTINE, Priority.STAT]
    with database.write() as session:
        study = rows.receive(session)
        made = [
            rows.make_job(session, study, str(number), priority=priority).id
            for number, priority in enumerate(wanted)
        ]
        found = jobs.unheard(session, now=LATER, nudged_before=LATER)
        assert [made.index(job_id) for job_id in found] == [2, 4, 1, 3, 0]
        assert priorities.of_jobs(session, made) == dict(zip(made, wanted, strict=True))


def test_a_job_that_is_asked_for_more_urgently_moves_to_the_front(database: Database) -> None:
    with database.write() as session:
        study = rows.receive(session)
        first = rows.make_job(session, study, "a")
        jobs.mark_nudged(session, [first.id], rows.NOW)
        again = rows.make_job(session, study, "a", priority=Priority.STAT)
        assert (again.id, again.priority, again.nudged_at) == (first.id, Priority.STAT, None)
        # And never back for one who can wait
        assert rows.make_job(session, study, "a", priority=Priority.BACKGROUND).priority == Priority.STAT


def test_results_of_the_urgent_leave_first(database: Database) -> None:
    with database.write() as session:
        study = rows.receive(session)
        _, routine = rows.delivering(session, study, identity="a")
        urgent_job, urgent = rows.delivering(session, study, identity="b")
        session.get_one(models.Job, urgent_job.id).priority = Priority.STAT
        session.flush()
        assert deliveries.next_for(session, routine[0], LATER) == urgent
        assert priorities.of_deliveries(session, routine + urgent) == {
            routine[0]: Priority.ROUTINE,
            urgent[0]: Priority.STAT,
        }


@contextmanager
def _broker(storage: Path) -> Iterator[Settings]:
    """An embedded broker that answers."""
    settings = Settings(storage=storage)
    role = Role(name="broker", command=broker.embedded_command(storage))
    with Supervisor([role]) as supervisor:
        supervisor.start("broker")

        def answers() -> bool:
            try:
                broker.ping(settings)
            except BrokerError:
                return False
            return True

        assert supervise.wait_until(answers, timeout=15, stop=supervise.Stop())
        yield settings


def test_the_broker_hands_out_the_urgent_first(tmp_path: Path) -> None:
    # Given twenty routine messages that wait, and one that comes last and is urgent
    with _broker(tmp_path) as settings:
        options = {"priority_steps": list(broker.PRIORITIES)}
        app = Celery("turns", broker=broker.url(settings))
        app.conf.update(broker_transport_options=options, task_ignore_result=True)
        for number in range(20):
            app.send_task("analyse", args=[number], queue="cpu", priority=Priority.ROUTINE)
        app.send_task("analyse", args=[20], queue="cpu", priority=Priority.BACKGROUND)
        app.send_task("analyse", args=[21], queue="cpu", priority=Priority.STAT)
        # Then all are counted, and the urgent one is next, the background one last
        assert broker.queue_lengths(settings, ["cpu"]) == {"cpu": 22}
        assert _handed_out(app, 22) == [21, *range(20), 20]
        assert broker.queue_lengths(settings, ["cpu"]) == {"cpu": 0}


def _handed_out(app: Celery, count: int) -> list[int]:
    """The messages' ids in the order in which a worker gets them, one at a time."""
    got: list[int] = []

    def take(body: Any, message: Any) -> None:
        got.append(body[0][0])
        message.ack()

    deadline = time.monotonic() + timedelta(seconds=20).total_seconds()
    with app.connection_for_read() as connection:
        queue = app.amqp.queues.select_add("cpu")
        with connection.Consumer([queue], callbacks=[take], prefetch_count=1, accept=["json"]):
            while len(got) < count and time.monotonic() < deadline:
                connection.drain_events(timeout=5)
    return got
