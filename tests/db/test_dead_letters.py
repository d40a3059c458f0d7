"""What a person brings back: never an answer that a newer one has overtaken, nor one whose job was cancelled."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from db import dead_letters, deliveries, jobs, leases, states, studies, supersession
from db.base import Database
from db.errors import NotRevivable
from db.models import Delivery, Job, Study
from db.states import DeliveryState, JobState
from tests.db import rows
from tests.db.rows import LEASE, NOW


def _dead(database: Database) -> tuple[int, int]:
    """A job of revision 1 that failed because its delivery is dead, and the delivery."""
    with database.write() as session:
        job, (delivery_id,) = rows.delivering(session, rows.receive(session))
        rows.claim_all(session, delivery_id)
        assert deliveries.dead(session, delivery_id, owner="d", status=0xA900, comment="refused")
        assert jobs.settle_delivering(session, job.id, NOW) is JobState.FAILED
        return job.id, delivery_id


def _newer(session: Session, identity: str = "b", **values: Any) -> int:
    """A job of the study's next revision."""
    study = studies.by_uid(session, "1.2.1")
    study.revision += 1
    return rows.make_job(session, study, identity, **values).id


def _job(database: Database, job_id: int) -> Job:
    with database.read() as session:
        return jobs.get(session, job_id)


def _delivery(database: Database, delivery_id: int) -> Delivery:
    with database.read() as session:
        return deliveries.get(session, delivery_id)


def test_what_a_newer_job_answers_stays_dead(database: Database) -> None:
    # Given a dead delivery of revision 1
    job_id, delivery_id = _dead(database)
    with database.write() as session:
        assert dead_letters.revivable(session) == [delivery_id]
        # When two newer revisions made jobs of their own
        _newer(session)
        newest = _newer(session, "c")
    with database.read() as session:
        found = supersession.successor(session, jobs.get(session, job_id))
        assert found is not None and found.id == newest
        assert supersession.successor(session, found) is None
        assert dead_letters.revivable(session) == []
    # Then neither the delivery nor the job is brought back, and the newest is named
    words = rf"^job {newest} of revision 3 answers in the place of job {job_id}$"
    for ask, row_id in ((dead_letters.revive, delivery_id), (jobs.retry, job_id)):
        with pytest.raises(NotRevivable, match=words), database.write() as session:
            ask(session, row_id)
    assert _delivery(database, delivery_id).state == "dead"
    assert _job(database, job_id).state == "failed"
    # And where the newest can be retried, that is what to do
    with database.write() as session:
        assert jobs.cancel(session, newest, NOW)
    with pytest.raises(NotRevivable, match=r"; retry that one$"), database.write() as session:
        jobs.retry(session, job_id)
    with database.write() as session:
        assert jobs.retry(session, newest)


def test_another_model_s_job_or_another_series_overtakes_nothing(database: Database) -> None:
    job_id, delivery_id = _dead(database)
    with database.write() as session:
        _newer(session, model="another")
        study = rows.receive(session, series="1.2.1.2")
        rows.make_job(session, study, "c", series_id=study.series[-1].id, revision=study.revision + 1)
        assert supersession.successor(session, jobs.get(session, job_id)) is None
        assert dead_letters.revivable(session) == [delivery_id]
        assert dead_letters.revive(session, delivery_id)


def test_a_job_that_goes_over_to_the_newer_revision_waits_again(database: Database) -> None:
    # Given a superseded job, and a newer one
    with database.write() as session:
        old = rows.make_job(session, rows.receive(session)).id
        newer = _newer(session)
        supersession.supersede(session, studies.by_uid(session, "1.2.1").id, NOW, keep=[newer], error="late")
        # When the newest revision has the old one's images again
        assert _newer(session, "a") == old
        # Then it is the newest
        assert (jobs.get(session, old).state, jobs.get(session, old).revision) == ("queued", 3)
        found = supersession.successor(session, jobs.get(session, newer))
        assert found is not None and found.id == old


def test_a_cancelled_job_s_delivery_says_what_to_retry(database: Database) -> None:
    job_id, delivery_id = _dead(database)
    with database.write() as session:
        assert jobs.cancel(session, job_id, NOW)
    words = f"stays dead: its job was cancelled; retry job {job_id}"
    with pytest.raises(NotRevivable, match=words), database.write() as session:
        dead_letters.revive(session, delivery_id)
    assert _delivery(database, delivery_id).state == "dead"


def test_a_delivery_that_comes_back_to_a_cancelled_job_is_dead(database: Database) -> None:
    with database.write() as session:
        job, ids = rows.delivering(session, rows.receive(session), objects=2)
        assert len(rows.claim_all(session, ids[0])) == 2
    with database.write() as session:
        assert jobs.cancel(session, job.id, NOW)
    assert [_delivery(database, each).state for each in ids] == ["pending", "pending"]
    with database.write() as session:
        assert deliveries.postpone(session, ids[0], owner="d", until=NOW, status=0xA700, comment="full")
        assert jobs.settle_delivering(session, job.id, NOW) is None
    # The other is still on its way: what arrives is not denied
    assert [_delivery(database, each).state for each in ids] == ["dead", "pending"]
    back = _delivery(database, ids[0])
    assert (back.comment, back.next_attempt_at) == ("its job was cancelled", None)
    with database.write() as session:
        assert deliveries.sent(session, ids[1], owner="d", at=NOW, status=0, comment="")
        assert jobs.settle_delivering(session, job.id, NOW) is None
    assert (_delivery(database, ids[1]).state, _job(database, job.id).state) == ("sent", "cancelled")


def test_an_answer_is_replaced_once_the_newer_one_has_answered(database: Database) -> None:
    with database.write() as session:
        old, (delivery_id,) = rows.delivering(session, rows.receive(session))
        assert states.advance(
            session, Delivery, delivery_id, DeliveryState.PENDING, DeliveryState.SENT, sent_at=NOW
        )
        session.execute(update(Study).values(revision=2))
        session.expire_all()
        waiting = rows.make_job(session, studies.by_uid(session, "1.2.1"), "waiting")
        assert leases.claim(session, waiting.id, owner="w", now=NOW, lease=LEASE)
        supersession.settle_predecessor(session, jobs.get(session, waiting.id))
        assert jobs.get(session, waiting.id).supersedes_id == old.id
        assert supersession.replaced_by(session, old) is None
        newer, _ = rows.delivering(session, studies.by_uid(session, "1.2.1"), identity="b")
        newer.supersedes_id = old.id
        session.flush()
        assert supersession.replaced_by(session, old) == newer.id
        assert supersession.replaced_by(session, newer) is None


def test_what_awaits_a_commitment_of_who_is_not_asked_is_found(database: Database) -> None:
    with database.write() as session:
        _, (first, second) = rows.delivering(session, rows.receive(session), destinations=("pacs", "archive"))
        for each in (first, second):
            rows.claim_all(session, each)
            assert deliveries.sent(
                session, each, owner="d", at=NOW, status=0, comment="", awaits_commitment=True
            )
        assert deliveries.unasked(session, ["pacs", "archive"]) == []
        assert deliveries.unasked(session, ["pacs"]) == [(second, None)]
        assert deliveries.unasked(session, []) == [(first, None), (second, None)]
