"""How long a job may take: by what is configured, and by what its model took before."""

from __future__ import annotations

from datetime import timedelta

import pytest

from db import leases
from db.base import Database
from db.states import JobState
from tests.db import rows
from worker import attempts, limits
from worker.sections import Work


def seconds(work: Work, took: list[float]) -> tuple[float, float]:
    chosen = limits.choose(work, took)
    return chosen.soft.total_seconds(), chosen.hard.total_seconds()


@pytest.mark.parametrize(
    ("took", "expected"),
    [
        ([], (600, 3600)),
        ([2.0] * 19, (600, 3600)),
        ([2.0] * 20, (60, 600)),
        ([100.0] * 20, (300, 1000)),
        # Of 200, the two longest are beyond the p99
        ([10.0] * 197 + [80.0, 9000.0, 9000.0], (240, 800)),
        ([10.0] * 19 + [90.0], (270, 900)),
    ],
)
def test_by_what_the_model_took(took: list[float], expected: tuple[float, float]) -> None:
    assert seconds(Work(), took) == expected


def test_a_gpu_s_history_does_not_bound_the_cpu_that_takes_its_place() -> None:
    assert seconds(Work(engine="tensorrt"), [2.0] * 200) == (600, 3600)
    assert seconds(Work(engine="tensorrt"), [1000.0] * 200) == (3000, 10000)
    assert seconds(Work(engine="tensorrt", fallback="none"), [2.0] * 200) == (60, 600)


def test_what_is_configured_wins() -> None:
    assert seconds(Work(hard_seconds=5), [2.0] * 200) == (5, 5)
    assert seconds(Work(soft_seconds=7), [2.0] * 200) == (7, 600)
    assert seconds(Work(soft_seconds=7, hard_seconds=9), []) == (7, 9)


def test_only_answers_of_the_same_model_count(database: Database) -> None:
    def answered(number: int, **changes: str) -> int:
        with database.write() as session:
            study = rows.receive(session, f"1.2.{number}")
            job = rows.make_job(session, study, f"a{number}", **changes)
            assert leases.claim(session, job.id, owner="w", now=rows.NOW, lease=rows.LEASE)
            values = {"engine": "ov", "seconds": {"read": 1.0, "infer": 199.0}}
            assert leases.leave_running(session, job.id, JobState.DONE, owner="w", **values)
            return job.id

    ids = [answered(number) for number in range(20)]
    other = answered(20, model_digest=rows.digest("an older version"))
    with database.read() as session:
        found = limits.of_jobs(session, [ids[0], other, 999], Work())
        assert {id: chosen.hard.total_seconds() for id, chosen in found.items()} == {
            ids[0]: 2000,
            other: 3600,
            999: 3600,
        }


def test_what_never_came_to_an_answer_does_not_count(database: Database) -> None:
    with database.write() as session:
        job = rows.make_job(session, rows.receive(session, "1.2.1"))
        assert leases.claim(session, job.id, owner="w", now=rows.NOW, lease=rows.LEASE)
        assert leases.leave_running(session, job.id, JobState.FAILED, owner="w", seconds={"read": 9.0})
        assert leases.seconds_taken(session, (job.model, job.model_digest), limit=9) == []


def test_each_wait_is_longer_up_to_the_longest() -> None:
    first = timedelta(seconds=10)
    waits = [attempts.wait_after(number, first).total_seconds() for number in (1, 2, 3, 4, 5, 100)]
    assert waits == [10, 30, 90, 270, 300, 300]
