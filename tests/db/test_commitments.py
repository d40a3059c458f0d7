"""Commitment requests: asked together, stored first, ended once, and nobody's report but the asked one's counts."""

from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import select

from db import associations, commitments, deliveries, jobs
from db.base import Database
from db.models import Commitment, Delivery
from db.states import JobState
from tests.db import rows, together
from tests.db.rows import LEASE, NOW, SECOND


def _sent(
    database: Database, *, objects: int = 2, destinations: tuple[str, ...] = ("pacs",), awaits: bool = True
) -> tuple[int, list[int]]:
    """A job and the ids of its deliveries, all sent."""
    with database.write() as session:
        job, ids = rows.delivering(session, rows.receive(session), objects=objects, destinations=destinations)
        for delivery_id in ids:
            rows.claim_all(session, delivery_id)
            assert deliveries.sent(
                session, delivery_id, owner="d", at=NOW, status=0, comment="", awaits_commitment=awaits
            )
    return job.id, ids


def _begin(
    database: Database, delivery_id: int, transaction: str = "1.1", *, now: datetime = NOW, owner: str = "c"
) -> tuple[int, list[int]] | None:
    with database.write() as session:
        begun = commitments.begin(
            session, delivery_id, transaction_uid=transaction, owner=owner, now=now, lease=LEASE
        )
        return None if begun is None else (begun[0].id, [row.id for row in begun[1]])


def _asked(database: Database, delivery_id: int, transaction: str = "1.1", **how: datetime) -> int:
    """A request that has left; its id."""
    begun = _begin(database, delivery_id, transaction, **how)
    assert begun is not None
    with database.write() as session:
        commitments.let_go(session, begun[0])
    return begun[0]


def _get(database: Database, delivery_id: int) -> Delivery:
    with database.read() as session:
        return deliveries.get(session, delivery_id)


def _uid(database: Database, delivery_id: int) -> str:
    return _get(database, delivery_id).result.sop_instance_uid


def _report(database: Database, transaction: str, named: list[str]) -> list[int] | None:
    """The ids of the deliveries that a report decides."""
    with database.write() as session:
        request = commitments.by_transaction(session, transaction)
        assert request is not None
        found = commitments.report(session, request, named, at=NOW + SECOND, comment="")
        return None if found is None else [row.id for row in found]


def _due(database: Database, now: datetime = NOW) -> list[int]:
    with database.read() as session:
        return commitments.due(session, now=now, nudged_before=now)


def test_all_that_a_destination_has_of_a_job_is_asked_about_together(database: Database) -> None:
    # Given two objects at two destinations
    _, ids = _sent(database, destinations=("pacs", "archive"))
    at_pacs = [each for each in ids if _get(database, each).destination == "pacs"]
    assert _due(database) == [min(at_pacs), min(set(ids) - set(at_pacs))]
    # When either of one destination's is asked about
    begun = _begin(database, at_pacs[1])
    # Then both are, once
    assert begun is not None and begun[1] == at_pacs
    assert _begin(database, at_pacs[0], "1.2") is None
    # And the request was stored with its Transaction UID, before anything could leave
    with database.read() as session:
        row = commitments.by_transaction(session, "1.1")
        assert row is not None
        assert (row.id, row.destination, row.state, row.requested_at) == (begun[0], "pacs", "requested", NOW)
        assert commitments.is_open(session, row.id)
    found = _get(database, at_pacs[0])
    assert (found.state, found.commitment_attempts, found.next_attempt_at, found.lease_owner) == (
        "sent",
        1,
        None,
        "c",
    )


def test_nothing_is_asked_while_something_of_the_job_is_not_sent(database: Database) -> None:
    with database.write() as session:
        _, (first, second) = rows.delivering(session, rows.receive(session), objects=2)
        rows.claim_all(session, first)
        deliveries.sent(session, first, owner="d", at=NOW, status=0, comment="", awaits_commitment=True)
    assert _due(database) == []
    assert _begin(database, first) is None
    # One that is dead holds up nobody.
    with database.write() as session:
        deliveries.dead(session, second, owner="d", status=0xA900, comment="")
    assert _due(database) == [first]


@pytest.mark.parametrize("state", ["queued", "running", "cancelled", "failed", "done"])
def test_nothing_is_asked_for_a_job_that_does_not_deliver(database: Database, state: str) -> None:
    job_id, ids = _sent(database)
    with database.write() as session:
        jobs.get(session, job_id).state = state
    assert _due(database) == []
    assert _begin(database, ids[0]) is None


def test_one_that_awaits_nothing_is_not_asked_about(database: Database) -> None:
    _, ids = _sent(database, awaits=False)
    assert _due(database) == []
    assert _begin(database, ids[0]) is None


def test_a_job_is_done_when_what_must_be_committed_to_is(database: Database) -> None:
    job_id, (first, second) = _sent(database)
    with database.write() as session:
        assert jobs.settle_delivering(session, job_id, NOW) is None
    _asked(database, first)
    assert _report(database, "1.1", [_uid(database, first)]) == [first, second]
    with database.write() as session:
        assert commitments.committed(session, first, NOW)
        assert not commitments.committed(session, first, NOW)
        assert jobs.settle_delivering(session, job_id, NOW) is None
        assert commitments.committed(session, second, NOW + SECOND)
        assert jobs.settle_delivering(session, job_id, NOW) is JobState.DONE
    found = _get(database, second)
    assert (found.state, found.committed_at, found.lease_owner) == ("committed", NOW + SECOND, "")


def test_a_delivery_that_was_never_committed_to_fails_its_job(database: Database) -> None:
    job_id, (first, second) = _sent(database)
    _asked(database, first)
    with database.write() as session:
        assert commitments.committed(session, first, NOW)
        assert commitments.give_up(session, second, comment="stored, but never committed")
        assert jobs.settle_delivering(session, job_id, NOW) is JobState.FAILED
    assert _get(database, second).comment == "stored, but never committed"


def test_a_report_counts_once(database: Database) -> None:
    _, ids = _sent(database)
    _asked(database, ids[0])
    assert _report(database, "1.1", []) == ids
    assert _report(database, "1.1", []) is None
    with database.read() as session:
        row = session.scalars(select(Commitment)).one()
        assert (row.state, row.reported_at) == ("reported", NOW + SECOND)


def test_what_is_lost_is_asked_about_again_and_a_late_report_still_counts(database: Database) -> None:
    # Given a request without a report, given up, and a second one under way
    _, ids = _sent(database)
    first = _asked(database, ids[0])
    with database.write() as session:
        assert [row.id for row in commitments.lose(session, first, comment="no report")] == ids
        assert commitments.lose(session, first, comment="no report") == []
        for delivery_id in ids:
            commitments.ask_again(session, delivery_id, NOW + SECOND)
    assert _due(database) == []
    assert _due(database, NOW + SECOND) == ids[:1]
    _asked(database, ids[0], "1.2", now=NOW + SECOND)
    assert _get(database, ids[0]).commitment_attempts == 2
    # When the first one's report comes after all, about one of them
    assert _report(database, "1.1", [_uid(database, ids[1])]) == [ids[1]]
    # Then the other is left to the second request
    assert _report(database, "1.2", []) == ids


def test_a_promise_from_before_it_was_sent_again_does_not_count(database: Database) -> None:
    # Given a lost request, and a delivery that had to be sent anew since
    _, ids = _sent(database, objects=1)
    first = _asked(database, ids[0])
    later = NOW + LEASE + SECOND
    with database.write() as session:
        commitments.lose(session, first, comment="no report")
        assert commitments.send_again(session, ids[0], later, status=0x0112, comment="not there")
        rows.claim_all(session, ids[0], now=later)
        assert deliveries.sent(
            session, ids[0], owner="d", at=later, status=0, comment="", awaits_commitment=True
        )
        session.flush()
    _asked(database, ids[0], "1.2", now=later)
    # When the first one's report comes
    assert _report(database, "1.1", [_uid(database, ids[0])]) == []


def test_a_report_decides_nothing_at_another_destination(database: Database) -> None:
    _, ids = _sent(database, objects=1, destinations=("pacs", "archive"))
    lost = _asked(database, ids[0])
    with database.write() as session:
        commitments.lose(session, lost, comment="")
    assert _report(database, "1.1", [_uid(database, each) for each in ids]) == ids[:1]


def test_objects_that_were_never_sent_are_counted(database: Database) -> None:
    _, ids = _sent(database, objects=1)
    with database.read() as session:
        assert commitments.unknown_among(session, "pacs", [_uid(database, ids[0])]) == 0
        assert commitments.unknown_among(session, "pacs", [_uid(database, ids[0]), "1.2.3", "1.2.4"]) == 2
        assert commitments.unknown_among(session, "archive", [_uid(database, ids[0])]) == 1


def test_one_that_is_not_held_is_sent_again_with_its_schedule(database: Database) -> None:
    _, ids = _sent(database, objects=1)
    _asked(database, ids[0])
    with database.write() as session:
        assert commitments.send_again(session, ids[0], NOW + SECOND, status=0x0112, comment="not there")
    found = _get(database, ids[0])
    assert (found.state, found.status, found.comment, found.first_attempt_at, found.attempts) == (
        "pending",
        0x0112,
        "not there",
        NOW,
        1,
    )
    with database.read() as session:
        assert deliveries.due(session, now=NOW, nudged_before=NOW) == []
        assert deliveries.due(session, now=NOW + SECOND, nudged_before=NOW) == ids


def test_overdue_and_orphaned_requests_are_found(database: Database) -> None:
    _, ids = _sent(database)
    _beat(database, "c", NOW)
    begun = _begin(database, ids[0])
    assert begun is not None
    with database.read() as session:
        assert commitments.overdue(session, asked_before=NOW) == []
        assert commitments.overdue(session, asked_before=NOW + SECOND) == [begun[0]]
        assert commitments.orphans(session) == []
    with database.write() as session:
        associations.goodbye(session, "c", NOW)
    with database.read() as session:
        assert commitments.orphans(session) == [begun[0]]
    # One whose request has left waits for its report, whoever asked.
    with database.write() as session:
        commitments.let_go(session, begun[0])
    with database.read() as session:
        assert commitments.orphans(session) == []


def test_a_destination_that_is_not_asked_any_more_has_what_it_took(database: Database) -> None:
    job_id, ids = _sent(database)
    with database.write() as session:
        assert [row.id for row in commitments.waive(session, ids[0])] == ids
        assert jobs.settle_delivering(session, job_id, NOW) is JobState.DONE
    assert _due(database, NOW + SECOND) == []


def _begin_each(database: Database, argument: tuple[str, int]) -> bool:
    transaction, delivery_id = argument
    return _begin(database, delivery_id, transaction) is not None


def test_of_processes_that_ask_at_once_one_asks(database: Database) -> None:
    _, ids = _sent(database, objects=3)
    got = together.processes(_begin_each, database.url, [(f"1.{n}", ids[n % 3]) for n in range(4)])
    assert sorted(got) == [False, False, False, True]


def test_a_report_beside_the_loss_of_its_request_counts_once(database: Database) -> None:
    _, ids = _sent(database)
    request = _asked(database, ids[0])

    def lose() -> list[int]:
        with database.write() as session:
            return [row.id for row in commitments.lose(session, request, comment="no report")]

    with database.write() as session:
        row = commitments.by_transaction(session, "1.1")
        assert row is not None
        found = commitments.report(session, row, [], at=NOW, comment="")
        assert found is not None
        losing = together.Meanwhile(lose)
        for each in found:
            assert commitments.committed(session, each.id, NOW)
    assert losing.answer() == []


# One sender at a time speaks with a destination


def _beat(database: Database, process_id: str, at: datetime) -> None:
    with database.write() as session:
        associations.heartbeat(session, process_id=process_id, role="deliver", started_at=at, at=at)


def test_one_sender_at_a_time_speaks_with_a_destination(database: Database) -> None:
    # Given two jobs with results for two destinations, and a sender that lives and has one of them in hand
    with database.write() as session:
        study = rows.receive(session)
        _, mine = rows.delivering(session, study, destinations=("hung", "pacs"))
        _, others = rows.delivering(session, study, identity="b", destinations=("hung", "pacs"))
    _beat(database, "d", NOW)
    with database.write() as session:
        assert [row.id for row in rows.claim_all(session, mine[0])] == mine[:1]
        # Then another does not wait at the same door
        assert rows.claim_all(session, others[0], owner="e") == []
        assert deliveries.due(session, now=NOW, nudged_before=NOW) == [mine[1], others[1]]
        assert deliveries.next_for(session, mine[0], NOW) == []
        # And it goes to the other one
        assert [row.id for row in rows.claim_all(session, others[1], owner="e")] == others[1:]
    # When the first one ends, the next is known
    with database.write() as session:
        deliveries.postpone(session, mine[0], owner="d", until=NOW + LEASE, status=None, comment="")
        assert deliveries.next_for(session, mine[0], NOW) == others[:1]
        assert [row.id for row in rows.claim_all(session, others[0], owner="e")] == others[:1]


def test_a_silent_sender_holds_up_nobody_elses_results(database: Database) -> None:
    with database.write() as session:
        study = rows.receive(session)
        _, mine = rows.delivering(session, study)
        _, others = rows.delivering(session, study, identity="b")
        rows.claim_all(session, mine[0])
    _beat(database, "d", NOW - deliveries.SENDER_SILENT)
    with database.write() as session:
        assert [row.id for row in rows.claim_all(session, others[0], owner="e")] == others


def test_who_asks_for_a_commitment_speaks_with_the_destination(database: Database) -> None:
    _, ids = _sent(database)
    with database.write() as session:
        study = rows.receive(session)
        _, others = rows.delivering(session, study, identity="b")
    _beat(database, "c", NOW)
    begun = _begin(database, ids[0])
    assert begun is not None
    with database.write() as session:
        assert rows.claim_all(session, others[0]) == []
        commitments.let_go(session, begun[0])
        assert [row.id for row in rows.claim_all(session, others[0])] == others


def test_a_hold_is_prolonged_only_by_its_holder(database: Database) -> None:
    with database.write() as session:
        _, ids = rows.delivering(session, rows.receive(session), objects=2)
        rows.claim_all(session, ids[0])
        deliveries.sent(session, ids[0], owner="d", at=NOW, status=0, comment="")
        deliveries.renew(session, ids, owner="e", until=NOW + 9 * LEASE)
        deliveries.renew(session, ids, owner="d", until=NOW + 2 * LEASE)
    assert [_get(database, each).lease_until for each in ids] == [None, NOW + 2 * LEASE]
