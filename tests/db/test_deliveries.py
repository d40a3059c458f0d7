"""Deliveries: grouped by destination, held by one sender, never forgotten."""

from __future__ import annotations

from datetime import timedelta, timezone
from typing import Any

import pytest

from db import dead_letters, deliveries, jobs, studies
from db.base import Database
from db.errors import NotFound
from db.models import Delivery
from db.states import JobState
from tests.db import rows, together
from tests.db.rows import LEASE, NOW, SECOND


def _pending(database: Database, **values: Any) -> tuple[int, list[int]]:
    with database.write() as session:
        job, ids = rows.delivering(session, rows.receive(session), **values)
    return job.id, ids


def _get(database: Database, delivery_id: int) -> Delivery:
    with database.read() as session:
        return deliveries.get(session, delivery_id)


def _claim(database: Database, delivery_id: int, **values: Any) -> list[int]:
    with database.write() as session:
        return [row.id for row in rows.claim_all(session, delivery_id, **values)]


def test_claim_takes_the_siblings_for_one_destination(database: Database) -> None:
    # Given two objects of one job for two destinations, and another job's
    _, ids = _pending(database, objects=2, destinations=("pacs", "archive"))
    _pending(database, identity="b", objects=2, destinations=("pacs", "archive"))
    to_pacs = [i for i in ids if _get(database, i).destination == "pacs"]
    # When one of those to the PACS is claimed, both are
    assert _claim(database, to_pacs[1]) == to_pacs
    # Then the archive's are still to be had
    assert _claim(database, to_pacs[0]) == []
    assert _claim(database, next(i for i in ids if i not in to_pacs)) == [i for i in ids if i not in to_pacs]


def test_a_claim_says_what_the_sender_needs(database: Database) -> None:
    job_id, ids = _pending(database)
    with database.write() as session:
        (row,) = deliveries.claim(
            session, ids[0], owner="d", now=NOW.astimezone(timezone(timedelta(hours=5))), lease=LEASE
        )
    assert (row.lease_owner, row.lease_until, row.attempts, row.first_attempt_at) == (
        "d",
        NOW + LEASE,
        1,
        NOW,
    )
    assert (row.result.job_id, row.result.job.state, row.result.kind) == (job_id, "delivering", "seg")
    assert _get(database, ids[0]).first_attempt_at == NOW


def test_the_first_attempt_is_remembered_over_the_later_ones(database: Database) -> None:
    _, ids = _pending(database)
    _claim(database, ids[0])
    later = NOW + 2 * LEASE
    assert _claim(database, ids[0], now=later, owner="d2") == ids
    row = _get(database, ids[0])
    assert (row.first_attempt_at, row.attempts, row.lease_owner) == (NOW, 2, "d2")


def test_one_sender_that_asks_twice_gets_it_once(database: Database) -> None:
    _, ids = _pending(database, objects=2)
    assert _claim(database, ids[0]) == ids
    assert _claim(database, ids[0]) == []


def _claim_each(database: Database, argument: tuple[str, list[int]]) -> list[int]:
    owner, ids = argument
    got = []
    for delivery_id in ids:
        got += _claim(database, delivery_id, owner=owner)
    return got


def test_processes_that_claim_at_once_never_both_get_one(database: Database) -> None:
    ids = []
    with database.write() as session:
        study = rows.receive(session)
        for number in range(12):
            ids += rows.delivering(session, study, identity=str(number), objects=3)[1]
    # Each process comes by other siblings: from the front, from the back, from the middle.
    orders = [ids, ids[::-1], ids[1::3] + ids[::3]]
    got = together.processes(_claim_each, database.url, [(f"d{n}", order) for n, order in enumerate(orders)])
    assert sorted(delivery_id for each in got for delivery_id in each) == ids
    # Siblings stay together: one association carries them.
    assert all(len(each) % 3 == 0 for each in got)
    for owner, each in enumerate(got):
        assert {_get(database, delivery_id).lease_owner for delivery_id in each} <= {f"d{owner}"}
        assert {_get(database, delivery_id).attempts for delivery_id in each} <= {1}


def test_a_postponed_delivery_is_due_again_in_time(database: Database) -> None:
    _, ids = _pending(database)
    _claim(database, ids[0])
    with database.write() as session:
        assert not deliveries.postpone(session, ids[0], owner="other", until=NOW, status=None, comment="")
        assert deliveries.postpone(
            session, ids[0], owner="d", until=NOW + SECOND, status=0xA700, comment="out of resources"
        )
    assert _claim(database, ids[0]) == []
    row = _get(database, ids[0])
    assert (row.state, row.status, row.comment, row.lease_owner, row.lease_until) == (
        "pending",
        0xA700,
        "out of resources",
        "",
        None,
    )
    assert _claim(database, ids[0], now=NOW + SECOND) == ids


def test_due_deliveries_are_those_nobody_holds_or_heard_of(database: Database) -> None:
    _, (free, told, lost) = _pending(database, objects=3)
    _, held = _pending(database, identity="b")
    _claim(database, held[0])
    with database.write() as session:
        deliveries.mark_nudged(session, [told], NOW)
        deliveries.mark_nudged(session, [lost], NOW - timedelta(minutes=2))
        deliveries.mark_nudged(session, [], NOW)
    ago = NOW - timedelta(minutes=1)
    with database.read() as session:
        assert deliveries.due(session, now=NOW - SECOND, nudged_before=ago) == []
        assert deliveries.due(session, now=NOW, nudged_before=ago) == [free, lost]
        assert deliveries.due(session, now=NOW, nudged_before=ago, limit=1) == [free]
        # Its sender fell silent.
        assert deliveries.due(session, now=NOW + LEASE + SECOND, nudged_before=ago) == [free, lost, *held]


def test_a_sender_that_wakes_up_late_overwrites_nothing(database: Database) -> None:
    # Given a sender that fell silent, whose lease ended, and another that sends now
    _, ids = _pending(database)
    _claim(database, ids[0], owner="slow")
    later = NOW + LEASE + SECOND
    assert _claim(database, ids[0], owner="d", now=later) == ids
    # When the first one wakes up, whatever it was answered
    with database.write() as session:
        assert not deliveries.dead(session, ids[0], owner="slow", status=0xA900, comment="refused")
        assert not deliveries.sent(session, ids[0], owner="slow", at=later, status=0, comment="")
        assert not deliveries.postpone(session, ids[0], owner="slow", until=later, status=1, comment="")
    # Then nothing has changed, and the second one's word counts
    row = _get(database, ids[0])
    assert (row.state, row.status, row.comment, row.lease_owner) == ("pending", None, "", "d")
    with database.write() as session:
        assert deliveries.sent(session, ids[0], owner="d", at=later, status=0, comment="")
        assert not deliveries.dead(session, ids[0], owner="slow", status=0xA900, comment="refused")
    assert _get(database, ids[0]).state == "sent"


def test_what_was_sent_is_not_sent_again(database: Database) -> None:
    _, ids = _pending(database)
    _claim(database, ids[0])
    with database.write() as session:
        assert deliveries.sent(session, ids[0], owner="d", at=NOW, status=0, comment="stored")
        assert not deliveries.sent(session, ids[0], owner="d", at=NOW + SECOND, status=0, comment="")
        assert not deliveries.dead(session, ids[0], owner="d", status=1, comment="")
        assert deliveries.due(session, now=NOW + LEASE * 2, nudged_before=NOW) == []
    row = _get(database, ids[0])
    assert (row.state, row.sent_at, row.status, row.comment, row.lease_until) == (
        "sent",
        NOW,
        0,
        "stored",
        None,
    )
    assert _claim(database, ids[0], now=NOW + LEASE * 2) == []


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.CANCELLED])
def test_nothing_leaves_while_its_job_is_made_anew_or_stopped(database: Database, state: JobState) -> None:
    job_id, ids = _pending(database)
    with database.write() as session:
        jobs.get(session, job_id).state = state.value
    with database.write() as session:
        assert deliveries.due(session, now=NOW, nudged_before=NOW) == []
    assert _claim(database, ids[0]) == []


def _dead(database: Database) -> tuple[int, list[int]]:
    """A job that failed because both of its deliveries are dead, in a study that is done."""
    with database.write() as session:
        study = rows.receive(session)
        assert studies.close(session, study, evidence={}, problem="", at=NOW)
        job, ids = rows.delivering(session, study, objects=2)
        for delivery_id in ids:
            rows.claim_all(session, delivery_id)
            assert deliveries.dead(session, delivery_id, owner="d", status=0xA900, comment="refused")
        assert jobs.settle_delivering(session, job.id, NOW) is JobState.FAILED
        assert studies.finish_if_ended(session, study.id, NOW)
    return job.id, ids


def test_a_revived_delivery_begins_anew_and_so_does_its_job(database: Database) -> None:
    job_id, (first, second) = _dead(database)
    with database.write() as session:
        assert dead_letters.revive(session, first)
        assert not dead_letters.revive(session, first)
    row = _get(database, first)
    assert (row.state, row.attempts, row.first_attempt_at, row.nudged_at) == ("pending", 0, None, None)
    with database.read() as session:
        job = jobs.get(session, job_id)
        assert (job.state, job.reason, job.error, job.finished_at, job.study.state) == (
            "delivering",
            "",
            "",
            None,
            "ready",
        )
        assert deliveries.due(session, now=NOW, nudged_before=NOW) == [first]
    with database.write() as session:
        assert dead_letters.revive(session, second)
        for delivery_id in (first, second):
            assert deliveries.sent(session, delivery_id, owner="", at=NOW, status=0, comment="")
        assert jobs.settle_delivering(session, job_id, NOW) is JobState.DONE


def test_a_revival_beside_the_last_end_does_not_leave_the_job_failed(database: Database) -> None:
    # Given one dead delivery, and the other that arrives in a transaction which is still open
    job_id, (dead, last) = _pending(database, objects=2)
    with database.write() as session:
        assert deliveries.dead(session, dead, owner="", status=1, comment="")

    def revive() -> bool:
        with database.write() as session:
            return dead_letters.revive(session, dead)

    with database.write() as session:
        assert deliveries.sent(session, last, owner="", at=NOW, status=0, comment="")
        assert jobs.settle_delivering(session, job_id, NOW) is JobState.FAILED
        # When a person revives the dead one meanwhile
        reviving = together.Meanwhile(revive)
    # Then the job delivers again
    assert reviving.answer() is True
    with database.read() as session:
        assert jobs.get(session, job_id).state == "delivering"


def test_an_unknown_delivery_is_not_found(database: Database) -> None:
    with database.write() as session:
        for ask in (deliveries.get, dead_letters.revive, rows.claim_all):
            with pytest.raises(NotFound, match="no delivery 99"):
                ask(session, 99)


def test_newest_and_counts(database: Database) -> None:
    _, ids = _pending(database, objects=3)
    with database.write() as session:
        deliveries.dead(session, ids[1], owner="", status=1, comment="")
    with database.read() as session:
        assert [row.id for row in deliveries.newest(session, limit=2, offset=1)] == [ids[1], ids[0]]
        (dead,) = deliveries.newest(session, state="dead")
        assert (dead.id, dead.result.job.model) == (ids[1], "chest-ct")
        assert deliveries.count_by_state(session) == {"dead": 1, "pending": 2}
