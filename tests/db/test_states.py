"""The table of transitions: all that it has works, nothing else does, and one of many wins."""

from __future__ import annotations

import itertools
from enum import StrEnum
from typing import Any

import pytest

from db import jobs, leases, states
from db.base import Database
from db.errors import IllegalTransition
from db.models import Delivery, Job, Study
from db.states import JOB_ENDED, TRANSITIONS, DeliveryState, JobState, StudyState
from tests.db import rows, together
from tests.db.rows import LEASE, NOW

TABLES: dict[type[StrEnum], type[Study] | type[Job] | type[Delivery]] = {
    StudyState: Study,
    JobState: Job,
    DeliveryState: Delivery,
}
PAIRS = [pair for kind in TABLES for pair in itertools.product(kind, kind)]
LEGAL = [pair for pair in PAIRS if pair in TRANSITIONS[type(pair[0])]]
ILLEGAL = [pair for pair in PAIRS if pair not in TRANSITIONS[type(pair[0])]]


def _row(database: Database, state: StrEnum) -> tuple[type[Any], int]:
    """A row in a state, whichever way it came there."""
    table = TABLES[type(state)]
    with database.write() as session:
        job, delivery_ids = rows.delivering(session, rows.receive(session))
        row_id = {Study: job.study_id, Job: job.id, Delivery: delivery_ids[0]}[table]
        session.get_one(table, row_id).state = state.value
    return table, row_id


def _state(database: Database, table: type[Any], row_id: int) -> str:
    with database.read() as session:
        return str(session.get_one(table, row_id).state)


@pytest.mark.parametrize("pair", LEGAL, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_a_transition_of_the_table_moves_the_row(database: Database, pair: tuple[StrEnum, StrEnum]) -> None:
    table, row_id = _row(database, pair[0])
    with database.write() as session:
        assert states.advance(session, table, row_id, *pair)
    assert _state(database, table, row_id) == pair[1]
    # Its letter is spent: the same move again finds the row elsewhere.
    with database.write() as session:
        assert not states.advance(session, table, row_id, *pair)


@pytest.mark.parametrize("pair", ILLEGAL, ids=lambda pair: f"{pair[0]}-{pair[1]}")
def test_no_other_transition_does(pair: tuple[StrEnum, StrEnum]) -> None:
    # No session: it must raise before it asks the database.
    with pytest.raises(IllegalTransition, match=f"{pair[0]} -> {pair[1]}"):
        states.advance(None, TABLES[type(pair[0])], 1, *pair)  # type: ignore[arg-type]


def test_the_letters_of_the_diagram_are_without_a_gap() -> None:
    letters = {text[0] for kind in TRANSITIONS.values() for text in kind.values()}
    assert sorted(letters) == [chr(ord("a") + i) for i in range(len(letters))]


def test_every_state_can_be_reached_and_ended_ones_are_not_left_by_themselves() -> None:
    for kind, first in (
        (StudyState, StudyState.RECEIVING),
        (JobState, JobState.QUEUED),
        (DeliveryState, DeliveryState.PENDING),
    ):
        reached = {first} | {to for _, to in TRANSITIONS[kind]}
        # A job is made SKIPPED, it never becomes it.
        assert set(kind) - reached == ({JobState.SKIPPED} if kind is JobState else set())
    for (left, _), why in TRANSITIONS[JobState].items():
        if left in JOB_ENDED:
            assert why.endswith(("by a person", "was revived", "is gone")), why


def test_a_condition_that_does_not_hold_changes_nothing(database: Database) -> None:
    table, row_id = _row(database, JobState.QUEUED)
    with database.write() as session:
        assert not states.advance(
            session, table, row_id, JobState.QUEUED, JobState.RUNNING, Job.attempts == 77, reason="x"
        )
    with database.read() as session:
        job = session.get_one(Job, row_id)
        assert (job.state, job.reason) == ("queued", "")


def test_values_are_written_with_the_move(database: Database) -> None:
    table, row_id = _row(database, DeliveryState.PENDING)
    with database.write() as session:
        assert states.advance(
            session, table, row_id, DeliveryState.PENDING, DeliveryState.SENT, status=0, sent_at=NOW
        )
    with database.read() as session:
        delivery = session.get_one(Delivery, row_id)
        assert (delivery.state, delivery.status, delivery.sent_at) == ("sent", 0, NOW)


def test_a_missing_row_does_not_move(database: Database) -> None:
    with database.write() as session:
        assert not states.advance(session, Job, 99, JobState.QUEUED, JobState.RUNNING)


def _claim_each(database: Database, argument: tuple[str, list[int]]) -> list[int]:
    owner, job_ids = argument
    won = []
    for job_id in job_ids:
        with database.write() as session:
            if leases.claim(session, job_id, owner=owner, now=NOW, lease=LEASE) is not None:
                won.append(job_id)
    return won


def test_processes_that_race_for_jobs_never_both_win_one(database: Database) -> None:
    with database.write() as session:
        study = rows.receive(session)
        ids = [rows.make_job(session, study, str(n)).id for n in range(30)]
    won = together.processes(_claim_each, database.url, [(f"w{n}", ids) for n in range(4)])
    assert sorted(itertools.chain(*won)) == ids
    with database.read() as session:
        for owner, mine in enumerate(won):
            assert all(jobs.get(session, job_id).lease_owner == f"w{owner}" for job_id in mine)
            assert all(jobs.get(session, job_id).attempts == 1 for job_id in mine)
