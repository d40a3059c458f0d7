"""The sweep: what was lost on the way is nudged again, and what dead workers held is given to others."""

from __future__ import annotations

import os
import pkgutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from kombu.exceptions import OperationalError
from sqlalchemy import update
from sqlalchemy.exc import OperationalError as DatabaseAway

from db import associations, jobs, leases, models, troubles
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from worker import broker, enqueue, machine, nudges, sections, settings, steps, sweep
from worker.heartbeat import Heartbeat
from worker.station import Station


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Messages, captured instead of being sent."""
    messages: list[tuple[str, int]] = []
    monkeypatch.setattr(broker, "queue_lengths", lambda *_: {"cpu": 0, "deliver": 0})
    monkeypatch.setattr(enqueue.app, "send_task", lambda task, args, **how: messages.append((task, args[0])))
    return messages


@pytest.fixture
def here(journey: Journey) -> Station:
    """A station over the journey that closes studies at once."""
    peers = (sections.Peer(name="pacs", ae_title="PACS", host="127.0.0.1"),)
    route = sections.Route(name="chest ct", when={"Modality": "CT"}, run=("tiny",), send_to=("pacs",))
    configured = settings.Settings(
        storage=journey.storage,
        peers=peers,
        routes=(route,),
        node=sections.Node(quiet_seconds=0, long_quiet_seconds=0),
        work=sections.Work(max_attempts=2),
    )
    return Station(
        settings=configured,
        database=journey.database,
        shelf=journey.shelf,
        lightbox=journey.lightbox,
        process_id="sweeper",
        started_at=datetime.now(UTC),
    )


def _now(**later: float) -> datetime:
    return datetime.now(UTC) + timedelta(**later)


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_complete_study_s_jobs_are_nudged(
    journey: Journey, here: Station, sent: list[tuple[str, int]]
) -> None:
    journey.receive(journey.store(journeys.datasets()))
    sweep.close_studies(here, _now(seconds=1))
    assert sent == [("analyse", journey.job().id)]
    # It was sent a moment ago, and may be on its way to a worker: not again
    just_sent = journey.rows(models.Job)[0].nudged_at
    sweep.care(here, just_sent + nudges.IN_FLIGHT)
    assert len(sent) == 1
    sweep.care(here, just_sent + nudges.IN_FLIGHT + timedelta(milliseconds=1))
    assert len(sent) == 2


def test_a_lost_message_is_sent_again(journey: Journey, here: Station, sent: list[tuple[str, int]]) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    # Closed, and then the process died before the message
    sweep.care(here, _now())
    assert sent == [("analyse", job_id)]
    sweep.care(here, _now(seconds=31))
    assert sent == [("analyse", job_id)] * 2
    # Until somebody takes it
    journey.analyse(job_id)
    sent.clear()
    sweep.care(here, _now(seconds=62))
    assert sent == [("deliver", one.id) for one in journey.job().deliveries]
    journey.deliver(sent[0][1])
    sent.clear()
    sweep.care(here, _now(seconds=93))
    assert sent == []


def test_a_message_that_waits_is_not_sent_again(
    journey: Journey, here: Station, sent: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (
        journey.arrive(journeys.datasets(study_uid=f"1.2.{n}", series_uid=f"1.2.{n}.1"))[0] for n in (1, 2)
    )
    sweep.care(here, _now())
    assert sent == [("analyse", first), ("analyse", second)]
    monkeypatch.setattr(broker, "queue_lengths", lambda *_: {"cpu": 2, "deliver": 0})
    sweep.care(here, _now(hours=1))
    assert len(sent) == 2
    # One of them was lost with the worker that had taken it: the oldest is nudged about, and no other
    monkeypatch.setattr(broker, "queue_lengths", lambda *_: {"cpu": 1, "deliver": 0})
    sweep.care(here, _now(seconds=4))
    assert sent[2:] == [("analyse", first)]
    # The broker comes back empty: all are sent again, those too that were sent a moment ago
    monkeypatch.setattr(broker, "queue_lengths", lambda *_: {"cpu": 0, "deliver": 0})
    sent.clear()
    sweep.care(here, _now(seconds=4))
    assert sorted(sent) == [("analyse", first), ("analyse", second)]


def test_a_delivery_is_nudged_when_its_wait_is_over(
    journey: Journey, here: Station, sent: list[tuple[str, int]]
) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    journey.pacs["pacs"] = journeys.MemorySender(unreachable="away")
    journey.follow([job_id])
    sweep.care(here, _now(seconds=20))
    assert sent == []
    # The second delivery shares the first one's attempt, and with it its wait
    sweep.care(here, _now(seconds=61))
    assert [task for task, _ in sent] == ["deliver", "deliver"]


def test_a_broker_that_is_away_loses_nothing(
    journey: Journey, here: Station, monkeypatch: pytest.MonkeyPatch, sent: list[tuple[str, int]]
) -> None:
    (job_id,) = journey.arrive(journeys.datasets())

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OperationalError("Error 111 connecting to localhost:6379")

    capture = enqueue.app.send_task
    monkeypatch.setattr(enqueue.app, "send_task", refuse)
    sweep.care(here, _now())
    assert journey.rows(models.Job)[0].nudged_at is None
    monkeypatch.setattr(enqueue.app, "send_task", capture)
    sweep.care(here, _now(seconds=1))
    assert sent == [("analyse", job_id)]


def _claim(journey: Journey, job_id: int, owner: str, **later: float) -> None:
    now = _now(**later)
    with journey.database.write() as session:
        taken = leases.claim(
            session,
            job_id,
            owner=owner,
            now=now,
            lease=timedelta(seconds=60),
            deadline_at=now + timedelta(seconds=300),
        )
        assert taken is not None


def test_a_dead_worker_s_job_goes_to_another_and_in_the_end_to_a_person(
    journey: Journey, here: Station, sent: list[tuple[str, int]]
) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    _claim(journey, job_id, "first")
    sweep.care(here, _now(seconds=30))
    assert (journey.job().state, sent) == ("running", [])

    # Others go first
    sweep.care(here, _now(seconds=61))
    job = journey.job()
    assert (job.state, job.reason, sent) == ("queued", "worker-lost", [])
    sweep.care(here, _now(seconds=72))
    assert sent == [("analyse", job_id)]

    _claim(journey, job_id, "second", seconds=80)
    sweep.care(here, _now(seconds=141))
    job = journey.job()
    assert (job.state, job.reason, job.attempts) == ("failed", "worker-lost", 2)
    assert "its worker died" in job.error
    answer = journey.why()
    assert answer.study.state == "done"
    assert [event.kind for event in answer.events] == ["worker-lost", "worker-lost"]

    # A person's retry begins to count anew
    with journey.database.write() as session:
        assert jobs.retry(session, job_id)
    journey.follow([job_id])
    assert journey.job().state == "done"


def test_a_worker_that_renews_keeps_its_job(
    journey: Journey, here: Station, sent: list[tuple[str, int]]
) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    _claim(journey, job_id, "first")
    with journey.database.write() as session:
        assert leases.renew(session, job_id, owner="first", until=_now(seconds=120))
    sweep.care(here, _now(seconds=61))
    assert journey.job().state == "running"


def test_a_lease_that_was_renewed_a_moment_before_is_left_to_its_worker(
    journey: Journey, here: Station, sent: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    _claim(journey, job_id, "first")
    expired = leases.expired

    def renewed_meanwhile(*args: Any) -> Any:
        found = expired(*args)
        with journey.database.write() as session:
            assert leases.renew(session, job_id, owner="first", until=_now(seconds=120))
        return found

    monkeypatch.setattr(leases, "expired", renewed_meanwhile)
    sweep.care(here, _now(seconds=61))
    assert (journey.job().state, journey.why().events) == ("running", [])


def test_a_worker_that_hangs_but_renews_loses_its_job_at_the_deadline(
    journey: Journey, here: Station, sent: list[tuple[str, int]]
) -> None:
    (job_id,) = journey.arrive(journeys.datasets())
    with journey.database.write() as session:
        now = _now()
        taken = leases.claim(
            session,
            job_id,
            owner="first",
            now=now,
            lease=timedelta(seconds=60),
            deadline_at=now + timedelta(seconds=3),
        )
    assert taken is not None and taken.lease_until == now + timedelta(seconds=3) + leases.LATE
    sweep.care(here, _now(seconds=12))
    assert journey.job().state == "running"
    sweep.care(here, _now(seconds=14))
    job = journey.job()
    assert (job.state, job.reason) == ("queued", "time-limit")
    assert "longer than 3 s" in job.error and "work.hard_seconds" in job.error


def test_an_association_whose_listener_died_is_lost_and_waited_for_long(
    journey: Journey, here: Station, sent: list[tuple[str, int]]
) -> None:
    journey.receive(journey.store(journeys.datasets(), outcome="open"))
    with journey.database.write() as session:
        associations.heartbeat(session, process_id="listener", role="listen", started_at=_now(), at=_now())
    sweep.close_studies(here, _now(seconds=10))
    sweep.care(here, _now(seconds=10))
    assert journey.why().study.state == "receiving"

    sweep.care(here, _now(seconds=31))
    assert [row.outcome for row in _associations(journey)] == ["lost"]
    sweep.close_studies(here, _now(seconds=61))
    answer = journey.why()
    assert answer.evidence is not None and answer.evidence["signal"] == "long quiet time"


def test_what_a_process_of_this_machine_held_is_free_as_soon_as_it_is_dead(
    journey: Journey, here: Station, sent: list[tuple[str, int]]
) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        dead = machine.process_id().replace(f":{os.getpid()}:", f":{process.pid}:")
        journey.receive(journey.store(journeys.datasets(), outcome="open"))
        sweep.close_studies(here, _now())
        with journey.database.write() as session:
            session.execute(update(models.Association).values(process_id=dead))
            associations.heartbeat(session, process_id=dead, role="listen", started_at=_now(), at=_now())
        sweep.care(here, _now())
        assert [row.outcome for row in _associations(journey)] == ["open"]
        process.kill()
    # Given a process that is gone, its association is lost before it was silent for long
    sweep.care(here, _now())
    assert [row.outcome for row in _associations(journey)] == ["lost"]
    assert [row.kind for row in journey.rows(models.Event)] == ["process-lost"]

    # And given one that held a job, the job is another's before its lease is over
    sweep.close_studies(here, _now(seconds=1))
    (_, job_id) = sent[-1]
    _claim(journey, job_id, dead)
    sweep.care(here, _now())
    assert (journey.job().state, journey.job().reason) == ("queued", "worker-lost")


def _associations(journey: Journey) -> list[Any]:
    return journey.rows(models.Association)


def test_the_sweep_beats_and_says_goodbye(
    journey: Journey, here: Station, sent: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    journey.receive(journey.store(journeys.datasets()))
    with _sweeping(here):
        _until(lambda: bool(sent))
        assert [row.role for row in _processes(journey)] == ["sweep"]
    assert _processes(journey) == []


def _processes(journey: Journey) -> list[Any]:
    return journey.rows(models.Process)


@contextmanager
def _sweeping(here: Station) -> Iterator[None]:
    """A sweep that runs while the block does."""
    stop = threading.Event()
    thread = threading.Thread(target=sweep.run, args=(here, stop))
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10)
    assert not thread.is_alive()


def _raise(*_: Any, **__: Any) -> Any:
    raise ValueError(f"not valid: {journeys.NAME}")


#: What each of the sweep's steps calls, and the step's name.
STEPS = {
    "worker.pipeline.close": "closing studies",
    "worker.deaths.bury": "burying dead processes",
    "db.leases.expired": "taking back leases",
    "worker.announcing.announce": "announcing failures",
    "worker.commitment_ledger.look_after": "looking after commitments",
    "worker.nudges.send_again": "sending lost messages again",
    "worker.space.watch": "watching the space",
    "worker.retention.Keeper.tick": "retention",
}


@pytest.mark.parametrize("broken", STEPS)
def test_a_step_that_keeps_failing_holds_up_no_other_and_is_told_until_it_works(
    journey: Journey,
    here: Station,
    sent: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    broken: str,
) -> None:
    monkeypatch.setattr(sweep, "CARE_SECONDS", 0.02)
    monkeypatch.setattr(steps, "REST", timedelta(seconds=0.02))
    taken: list[str] = []
    for target in STEPS:
        _count(monkeypatch, target, taken)
    with monkeypatch.context() as breaking:
        breaking.setattr(broken, _raise)
        with _sweeping(here):
            _until(lambda: bool(_told(journey)))
            taken.clear()
            _until(lambda: set(taken) == STEPS.keys() - {broken})
    # Once, however often it fails, and in the log by its name
    message = f"{STEPS[broken]}: it fails again and again (ValueError); the log of the sweep has the details"
    assert _told(journey) == [("sweep-failing", message)]
    assert (
        f"the sweep failed at {STEPS[broken]} (ValueError), 3 times in a row, and tries again" in caplog.text
    )
    # Also by another process
    with _sweeping(here):
        _until(lambda: len(_told(journey)) > 1)
    assert _told(journey)[1:] == [("sweep-works", f"{STEPS[broken]}: works again")]


def _count(monkeypatch: pytest.MonkeyPatch, target: str, taken: list[str]) -> None:
    original = pkgutil.resolve_name(target)

    def call(*args: Any, **kwargs: Any) -> Any:
        taken.append(target)
        return original(*args, **kwargs)

    monkeypatch.setattr(target, call)


def _told(journey: Journey) -> list[tuple[str, str]]:
    """The events of the sweep's own."""
    return [(row.kind, row.message) for row in journey.rows(models.Event) if row.kind.startswith("sweep")]


def test_a_failure_of_a_moment_is_logged_and_no_event(
    journey: Journey, here: Station, sent: list[tuple[str, int]], caplog: pytest.LogCaptureFixture
) -> None:
    taken = steps.Steps(here.database)
    for turn in range(4):
        taken.take("this", _raise if turn % 2 else (lambda: None), _now(seconds=3 * turn))
    assert _told(journey) == []
    assert caplog.text.count("the sweep failed at this (ValueError), 1 times in a row") == 2


def test_a_step_that_failed_rests_before_it_is_taken_again(journey: Journey, here: Station) -> None:
    taken, calls, now = steps.Steps(here.database), [], _now()
    taken.take("this", _raise, now)
    for later in (0.1, 1.9, 2.1):
        taken.take("this", lambda: calls.append(1), now + timedelta(seconds=later))
    assert calls == [1]


def test_a_database_that_is_away_ends_no_sweep_and_leaves_no_event(
    journey: Journey, here: Station, sent: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "CARE_SECONDS", 0.02)
    monkeypatch.setattr(steps, "REST", timedelta(seconds=0.02))
    (job_id,) = journey.arrive(journeys.datasets())
    failures = 0

    def away(*_: Any, **__: Any) -> Any:
        nonlocal failures
        failures += 1
        raise DatabaseAway("SELECT 1", None, OSError("away"))

    with monkeypatch.context() as breaking:
        breaking.setattr(here.database, "read", away)
        breaking.setattr(here.database, "write", away)
        with _sweeping(here):
            _until(lambda: failures > 100)
            breaking.undo()
            _until(lambda: sent == [("analyse", job_id)])
            # A step that failed just as the database came back is told of, and then works again
            _until(lambda: not _failing(journey))


def _failing(journey: Journey) -> dict[str, str]:
    with journey.database.read() as session:
        return troubles.failing(session)


def test_a_heart_beats_and_survives_a_database_that_is_away(
    journey: Journey, here: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.heartbeat.BEAT_SECONDS", 0.02)
    with Heartbeat(here, "cpu"):
        with journey.database.write() as session:
            session.execute(update(models.Process).values(seen_at=_now(hours=-1)))
        _until(lambda: _processes(journey)[0].seen_at > _now(seconds=-10))
        write = here.database.write
        failed = threading.Event()

        def away() -> Any:
            failed.set()
            raise OSError("away")

        monkeypatch.setattr(here.database, "write", away)
        assert failed.wait(5)
        monkeypatch.setattr(here.database, "write", write)
        with journey.database.write() as session:
            session.execute(update(models.Process).values(seen_at=_now(hours=-1)))
        _until(lambda: _processes(journey)[0].seen_at > _now(seconds=-10))
    assert _processes(journey) == []


def test_each_time_that_the_database_is_away_a_heart_tells_of_it_once(
    journey: Journey, here: Station, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("worker.heartbeat.BEAT_SECONDS", 0.02)
    monkeypatch.setattr("worker.heartbeat._AGAIN_SECONDS", 0.02)
    write, tried = here.database.write, threading.Semaphore(0)

    def away() -> Any:
        tried.release()
        raise OSError("away")

    with Heartbeat(here, "cpu"):
        for _ in range(2):
            monkeypatch.setattr(here.database, "write", away)
            assert all([tried.acquire(timeout=5) for _ in range(4)])
            monkeypatch.setattr(here.database, "write", write)
            with journey.database.write() as session:
                session.execute(update(models.Process).values(seen_at=_now(hours=-1)))
            _until(lambda: _processes(journey)[0].seen_at > _now(seconds=-10))
    assert caplog.text.count("no heartbeat could be written") == 2
