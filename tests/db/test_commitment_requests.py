"""Storage commitment requests of peers: one row each, one holder at a time, answered once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select

from db import commitment_requests
from db.base import Database
from db.errors import DifferentRequest
from db.models import CommitmentReference, CommitmentRequest, Process
from db.states import RequestState
from tests.db import rows, together
from tests.db.rows import LEASE, NOW, SECOND

CT = "1.2.840.10008.5.1.4.1.1.2"
NAMED = [(CT, "1.2.1.1.1"), (CT, "1.2.1.1.2")]


def values(**changes: Any) -> dict[str, Any]:
    return {
        "transaction_uid": "1.9.1",
        "association_id": "a1",
        "peer": "pacs",
        "calling_ae_title": "PACS",
        "address": "127.0.0.1",
        "received_at": NOW,
        "lease_owner": "listener",
        "lease_until": NOW + LEASE,
        **changes,
    }


def record(database: Database, named: list[tuple[str, str]] = NAMED, **changes: Any) -> int:
    with database.write() as session:
        return commitment_requests.record(session, values(**changes), named)


def get(database: Database, request_id: int) -> CommitmentRequest:
    with database.read() as session:
        return session.get_one(CommitmentRequest, request_id)


def claim(database: Database, request_id: int, owner: str = "w", now: Any = NOW) -> bool:
    with database.write() as session:
        found = commitment_requests.claim(session, request_id, owner=owner, now=now, lease=LEASE)
    return found is not None


def answer(
    database: Database, request_id: int, owner: str = "w", failures: dict[int, int] | None = None
) -> bool:
    with database.write() as session:
        return commitment_requests.answered(
            session, request_id, owner=owner, at=NOW, failures=failures or {}, comment="said"
        )


def let_go(database: Database, request_id: int, owner: str = "listener", **how: Any) -> bool:
    with database.write() as session:
        return commitment_requests.let_go(session, request_id, owner=owner, **how)


def due(database: Database, now: Any = NOW) -> list[int]:
    with database.read() as session:
        return commitment_requests.due(session, now=now, nudged_before=now)


def failures(database: Database, request_id: int) -> list[int | None]:
    with database.read() as session:
        return [row.failure for row in commitment_requests.references(session, request_id)]


def _claim(database: Database, which: tuple[int, str]) -> bool:
    return claim(database, which[0], owner=which[1])


def test_a_request_is_a_row_with_all_that_it_names(database: Database) -> None:
    request_id = record(database)

    row = get(database, request_id)
    assert (row.state, row.peer, row.attempts) == (RequestState.PENDING, "pacs", 0)
    with database.read() as session:
        found = commitment_requests.references(session, request_id)
    assert [(each.sop_class_uid, each.sop_instance_uid) for each in found] == NAMED


def test_the_listener_that_took_it_holds_it(database: Database) -> None:
    request_id = record(database)

    assert due(database) == []
    assert not claim(database, request_id)
    # The listener is dead: its lease ends.
    assert due(database, NOW + LEASE + SECOND) == [request_id]
    assert claim(database, request_id, now=NOW + LEASE + SECOND)
    assert not answer(database, request_id, owner="listener")


def test_one_that_is_let_go_is_everybodys(database: Database) -> None:
    request_id = record(database)

    assert not let_go(database, request_id, owner="stranger")
    assert let_go(database, request_id, until=NOW + SECOND, comment="later")
    assert due(database) == []
    assert due(database, NOW + SECOND) == [request_id]
    assert get(database, request_id).comment == "later"


def test_one_of_many_claimers_has_it(database: Database) -> None:
    request_id = record(database)
    let_go(database, request_id)

    won = together.processes(_claim, database.url, [(request_id, f"w{number}") for number in range(4)])

    assert won.count(True) == 1
    assert get(database, request_id).attempts == 1


def test_an_answer_is_written_once_with_what_failed(database: Database) -> None:
    request_id = record(database)
    let_go(database, request_id)
    assert claim(database, request_id)
    with database.read() as session:
        second = commitment_requests.references(session, request_id)[1].id

    assert answer(database, request_id, failures={second: 0x0112})
    assert not answer(database, request_id)

    assert failures(database, request_id) == [None, 0x0112]
    row = get(database, request_id)
    assert (row.state, row.comment, row.answered_at, row.lease_owner) == ("answered", "said", NOW, "")
    assert due(database, NOW + LEASE * 2) == []


def test_the_same_request_again_is_the_same_row_and_due_again(database: Database) -> None:
    request_id = record(database)
    answer(database, request_id, owner="listener")

    again = record(database, association_id="a2", received_at=NOW + SECOND)

    assert again == request_id
    row = get(database, request_id)
    assert (row.state, row.association_id, row.answered_at, row.attempts) == ("pending", "a2", None, 0)
    with database.read() as session:
        assert len(session.scalars(select(CommitmentReference)).all()) == 2


def test_one_that_was_given_up_may_be_asked_again(database: Database) -> None:
    request_id = record(database)
    with database.write() as session:
        assert commitment_requests.dead(session, request_id, owner="listener", comment="nobody there")

    assert record(database) == request_id
    assert get(database, request_id).state == RequestState.PENDING


def test_a_transaction_uid_is_for_one_set_of_instances(database: Database) -> None:
    record(database)

    with pytest.raises(DifferentRequest):
        record(database, NAMED[:1])
    # Another peer may have chosen the same.
    record(database, NAMED[:1], calling_ae_title="OTHER")


def test_what_a_dead_process_held_is_free(database: Database) -> None:
    dead, alive = record(database), record(database, transaction_uid="1.9.2", lease_owner="alive")
    with database.write() as session:
        session.add(Process(id="alive", role="listen", started_at=NOW, seen_at=NOW))

    with database.write() as session:
        assert commitment_requests.free_orphans(session) == 1

    assert due(database) == [dead]
    assert get(database, alive).lease_owner == "alive"


def test_a_nudged_one_is_not_nudged_again_at_once(database: Database) -> None:
    request_id = record(database)
    let_go(database, request_id)
    with database.write() as session:
        commitment_requests.mark_nudged(session, [request_id], NOW)

    with database.read() as session:
        assert commitment_requests.due(session, now=NOW, nudged_before=NOW) == []
        assert commitment_requests.due(session, now=NOW, nudged_before=NOW + SECOND) == [request_id]


def test_files_are_found_by_uid_with_their_studies(database: Database) -> None:
    with database.write() as session:
        study = rows.receive(session, count=2)
        other = rows.receive(session, "1.2.2", series="1.2.2.1")

        found = commitment_requests.files_of(session, ["1.2.1.1.1", "1.2.2.1.1", "1.2.3"])

        assert {uid: [study_id for _, study_id in files] for uid, files in found.items()} == {
            "1.2.1.1.1": [study.id],
            "1.2.2.1.1": [other.id],
        }


def test_many_references_cost_few_statements(database: Database) -> None:
    named = [(CT, f"1.2.9.{number}") for number in range(2_000)]
    request_id = record(database, named)
    with database.read() as session:
        ids = [row.id for row in commitment_requests.references(session, request_id)]

    assert answer(database, request_id, owner="listener", failures=dict.fromkeys(ids[1:], 0x0112))

    assert failures(database, request_id).count(0x0112) == 1_999


def test_what_old_requests_named_is_forgotten_and_they_are_not(database: Database) -> None:
    old = record(database)
    answer(database, old, owner="listener")
    pending = record(database, transaction_uid="1.9.2")
    fresh = record(database, transaction_uid="1.9.3", received_at=NOW + timedelta(days=40))
    answer(database, fresh, owner="listener")

    with database.write() as session:
        assert commitment_requests.forget(session, before=NOW + timedelta(days=30)) == 2
        assert commitment_requests.forget(session, before=NOW + timedelta(days=30)) == 0

    assert [len(failures(database, each)) for each in (old, pending, fresh)] == [0, 2, 2]
    assert get(database, old).state == "answered"
    # Asked again all the same, it is told again.
    assert record(database) == old
    assert len(failures(database, old)) == 2
    with database.read() as session:
        assert commitment_requests.count_by_state(session) == {"pending": 2, "answered": 1}
