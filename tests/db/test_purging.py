"""Purging: what may go, in which order, all in one commit; what is held back, and why."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import dead_letters, deliveries, intake, jobs, leases, purging, results, studies
from db.base import Database
from db.errors import FilesGone
from db.models import Delivery, DoomedFile, Instance, Job, ResultObject, Study
from db.states import DeliveryState, JobState
from tests.db import rows, together
from tests.db.rows import NOW, SECOND

DAY = timedelta(days=1)


def done(session: Session, uid: str = "1.2.1", *, at: datetime = NOW, count: int = 2) -> Study:
    """A study whose one result was delivered."""
    study = rows.receive(session, uid, count=count, received_at=at)
    job, ids = rows.delivering(session, study, identity=uid)
    for delivery_id in ids:
        move(session, delivery_id, DeliveryState.SENT)
    assert jobs.settle_delivering(session, job.id, at) == JobState.DONE
    assert studies.close(session, study, evidence={"instances": count}, problem="", at=at)
    assert studies.finish_if_ended(session, study.id, at)
    session.refresh(study)
    return study


def move(session: Session, delivery_id: int, state: DeliveryState, **values: Any) -> None:
    """Put a delivery into a state, whichever way it came there."""
    delivery = session.get_one(Delivery, delivery_id)
    delivery.state = state.value
    for name, value in values.items():
        setattr(delivery, name, value)
    session.flush()


def doom(session: Session, study: Study, *, at: datetime = NOW + DAY) -> bool:
    known = purging.holding(session, study.id)
    return purging.doom(session, study.id, known=known, unchanged_since=NOW, at=at)


def oldest(session: Session, *, before: datetime = NOW + DAY) -> list[str]:
    return [study.study_instance_uid for study in purging.oldest(session, quiet_before=before, limit=10)]


def test_a_purge_takes_the_files_and_leaves_what_was_found(database: Database) -> None:
    with database.write() as session:
        study = done(session)
        kept = done(session, "1.2.2")
        assert purging.holding(session, study.id) == purging.Holding(
            images=2, duplicates=0, size=1001 + 1002 + 5000
        )
    with database.write() as session:
        assert doom(session, study)
    with database.read() as session:
        gone = session.get_one(Study, study.id)
        assert (gone.state, gone.purged_at, gone.purged_instances) == ("purged", NOW + DAY, 2)
        doomed = session.scalars(select(DoomedFile).order_by(DoomedFile.path)).all()
        (job,) = session.scalars(select(Job).where(Job.study_id == study.id))
        assert [row.path for row in doomed] == [
            f"results/{job.identity}",
            "spool/1.2.1/1.2.1.1/1.2.1.1.1.dcm",
            "spool/1.2.1/1.2.1.1/1.2.1.1.2.dcm",
        ]
        assert {row.unchanged_since for row in doomed} == {NOW}
        assert purging.count_doomed(session) == 3
        assert job.results[0].purged_at == NOW + DAY
        assert job.results[0].deliveries[0].state == "sent"
        assert purging.holding(session, study.id) == purging.Holding(images=0, duplicates=0, size=0)
        # The other one is as it was
        assert purging.holding(session, kept.id).images == 2
        assert session.get_one(Study, kept.id).state == "done"
    with database.write() as session:
        assert (
            purging.held_back(session, session.get_one(Study, study.id))
            == "its files were deleted on 2026-03-03"
        )
        assert not doom(session, study)


def test_nothing_is_taken_where_the_transaction_fails(database: Database) -> None:
    with database.write() as session:
        study = done(session)
    with pytest.raises(RuntimeError), database.write() as session:
        assert doom(session, study)
        raise RuntimeError
    with database.read() as session:
        assert session.get_one(Study, study.id).state == "done"
        assert purging.count_doomed(session) == 0
        assert purging.holding(session, study.id).images == 2


def test_the_oldest_finished_one_goes_first(database: Database) -> None:
    with database.write() as session:
        done(session, "1.2.3", at=NOW + 2 * SECOND)
        done(session, "1.2.1", at=NOW)
        done(session, "1.2.2", at=NOW + SECOND)
        # One whose last job ended late
        done(session, "1.2.4", at=NOW - SECOND).done_at = NOW + 2 * DAY
        rows.receive(session, "1.2.5", received_at=NOW - DAY)
    with database.read() as session:
        assert oldest(session) == ["1.2.1", "1.2.2", "1.2.3"]
        assert oldest(session, before=NOW + SECOND) == ["1.2.1"]


def _unsent(session: Session, state: DeliveryState, **values: Any) -> Study:
    """A study that is done but for one delivery of it."""
    study = done(session)
    (delivery,) = session.scalars(select(Delivery))
    move(session, delivery.id, state, **values)
    return study


@pytest.mark.parametrize(
    ("state", "values", "reason"),
    [
        (DeliveryState.PENDING, {}, "delivery 1 to pacs has not been sent yet"),
        (
            DeliveryState.DEAD,
            {},
            "delivery 1 to pacs is dead: retry it, or cancel job 1 where its result is not to be sent any more",
        ),
        (DeliveryState.SENT, {"awaits_commitment": True}, "delivery 1 to pacs is not committed to yet"),
    ],
)
def test_what_has_not_left_is_never_deleted(
    database: Database, state: DeliveryState, values: dict[str, Any], reason: str
) -> None:
    with database.write() as session:
        study = _unsent(session, state, **values)
    with database.write() as session:
        assert oldest(session) == []
        assert purging.held_back(session, session.get_one(Study, study.id)) == reason
        assert not doom(session, study)


@pytest.mark.parametrize("state", [DeliveryState.SENT, DeliveryState.COMMITTED])
def test_what_has_left_may_be_deleted(database: Database, state: DeliveryState) -> None:
    with database.write() as session:
        study = _unsent(session, state, awaits_commitment=state is DeliveryState.COMMITTED)
    with database.write() as session:
        assert oldest(session) == ["1.2.1"]
        assert doom(session, study)


def test_a_dead_delivery_of_a_job_that_a_person_gave_up_does_not_count(database: Database) -> None:
    # Given a result that its destination refused
    with database.write() as session:
        study = rows.receive(session)
        job, (delivery_id,) = rows.delivering(session, study)
        rows.claim_all(session, delivery_id)
        move(session, delivery_id, DeliveryState.DEAD, lease_until=None, lease_owner="")
        assert jobs.settle_delivering(session, job.id, NOW) == JobState.FAILED
        assert studies.close(session, study, evidence={}, problem="", at=NOW)
        assert studies.finish_if_ended(session, study.id, NOW)
    with database.write() as session:
        assert oldest(session) == []
        # When a person gives its job up
        assert jobs.cancel(session, job.id, NOW)
        # Then it may go
        assert oldest(session) == ["1.2.1"]
        assert jobs.get(session, job.id).error.startswith("cancelled by a person, after: 1 deliver")
        assert doom(session, study)
    # And is neither sent nor run any more
    for ask in (lambda s: dead_letters.revive(s, delivery_id), lambda s: jobs.retry(s, job.id)):
        with (
            pytest.raises(FilesGone, match=r"study 1\.2\.1 were deleted on 2026-03-03; send"),
            database.write() as session,
        ):
            ask(session)
    with database.read() as session:
        assert deliveries.get(session, delivery_id).state == "dead"


def test_one_that_is_being_sent_just_now_holds_a_cancelled_job_back(database: Database) -> None:
    with database.write() as session:
        study = rows.receive(session)
        job, (delivery_id,) = rows.delivering(session, study)
        rows.claim_all(session, delivery_id)
        assert jobs.cancel(session, job.id, NOW)
        assert studies.close(session, study, evidence={}, problem="", at=NOW)
        assert studies.finish_if_ended(session, study.id, NOW)
    with database.write() as session:
        assert oldest(session) == []
        move(session, delivery_id, DeliveryState.PENDING, lease_until=None, lease_owner="")
        assert oldest(session) == ["1.2.1"]


def test_a_job_of_an_earlier_revision_that_runs_holds_back(database: Database) -> None:
    with database.write() as session:
        study = done(session)
        (job,) = session.scalars(select(Job))
        job.state = JobState.RUNNING.value
        session.flush()
        assert oldest(session) == []
        assert purging.held_back(session, study) == f"job {job.id} has not ended"
        assert not doom(session, study)
        receiving = rows.receive(session, "1.2.2")
        assert purging.held_back(session, receiving) == "it is still receiving"


@pytest.mark.parametrize("what", ["a late image", "the same image again", "a job is retried"])
def test_what_comes_between_the_look_and_the_purge_stops_it(database: Database, what: str) -> None:
    with database.write() as session:
        study = done(session)
        known = purging.holding(session, study.id)
        (job,) = session.scalars(select(Job))
        job.state = JobState.FAILED.value
    with database.write() as session:
        if what == "a job is retried":
            assert jobs.retry(session, job.id)
        else:
            again = what == "the same image again"
            intake.record_instances(session, [rows.new_instance(1 if again else 9, duplicate=again)])
    with database.write() as session:
        assert not purging.doom(session, study.id, known=known, unchanged_since=NOW, at=NOW)
        assert purging.count_doomed(session) == 0


@pytest.mark.peer("postgresql")
def test_a_purge_waits_for_who_moves_the_study(database: Database) -> None:
    """On SQLite there is one writer; on PostgreSQL the study's lock is what counts."""
    with database.write() as session:
        study = done(session)
        known = purging.holding(session, study.id)

    def purge() -> bool:
        with database.write() as session:
            return purging.doom(session, study.id, known=known, unchanged_since=NOW, at=NOW)

    with database.write() as session:
        intake.record_instances(session, [rows.new_instance(7)])
        purging_now = together.Meanwhile(purge)
        assert purging_now.waits
    assert purging_now.answer() is False
    with database.read() as session:
        assert purging.holding(session, study.id).images == 3


def test_a_study_that_is_sent_again_is_a_new_revision_with_its_one_answer(database: Database) -> None:
    with database.write() as session:
        study = done(session)
        (job,) = session.scalars(select(Job))
    with database.write() as session:
        assert doom(session, study)
    # When it is sent again: the file that is still there is reported as a duplicate
    with database.write() as session:
        intake.record_instances(session, [rows.new_instance(1, duplicate=True), rows.new_instance(2)])
    with database.write() as session:
        again = session.get_one(Study, study.id)
        assert (again.state, again.revision, again.purged_at) == ("receiving", 2, NOW + DAY)
        assert purging.holding(session, study.id).images == 2
        doomed = session.scalars(select(DoomedFile)).all()
        assert purging.recorded_among(session, doomed) == {
            row.id for row in doomed if row.path.startswith("spool/")
        }
        # Then its job is known by its identity, and goes over with what it found
        same = rows.make_job(session, again, "1.2.1")
        assert (same.id, same.state, same.revision) == (job.id, "done", 2)


def test_a_failed_job_of_a_study_that_is_sent_again_is_tried_again(database: Database) -> None:
    with database.write() as session:
        study = rows.receive(session)
        job = rows.make_job(session, study)
        assert leases.claim(session, job.id, owner="w", now=NOW, lease=rows.LEASE)
        assert leases.leave_running(session, job.id, JobState.FAILED, owner="w", reason="engine")
        assert studies.close(session, study, evidence={}, problem="", at=NOW)
        assert studies.finish_if_ended(session, study.id, NOW)
    with database.write() as session:
        assert doom(session, study)
    with database.write() as session:
        intake.record_instances(session, [rows.new_instance(1)])
        again = session.get_one(Study, study.id, populate_existing=True)
        assert rows.make_job(session, again).state == "queued"
        # Its folder is spared once it writes into it again
        (doomed,) = [row for row in session.scalars(select(DoomedFile)) if row.path.startswith("results/")]
        purging.spare_results(session, job.identity)
        assert not purging.lock_doomed(session, doomed.id)


def test_what_is_purged_a_second_time_is_doomed_as_it_is_now(database: Database) -> None:
    """A row that an earlier purge left would keep the file that came since for ever."""
    with database.write() as session:
        study = done(session)
    with database.write() as session:
        assert doom(session, study)
    with database.write() as session:
        intake.record_instances(session, [rows.new_instance(1), rows.new_instance(2)])
        again = session.get_one(Study, study.id, populate_existing=True)
        assert studies.close(session, again, evidence={}, problem="", at=NOW)
        assert studies.finish_if_ended(session, study.id, NOW)
    later = NOW + 5 * DAY
    with database.write() as session:
        known = purging.holding(session, study.id)
        assert purging.doom(session, study.id, known=known, unchanged_since=later, at=later)
        assert {row.unchanged_since for row in session.scalars(select(DoomedFile))} == {later}
        assert purging.count_doomed(session) == 3
        assert session.scalars(select(Instance)).all() == []


def test_what_is_doomed_is_listed_piece_by_piece_and_forgotten(database: Database) -> None:
    with database.write() as session:
        study = done(session, count=5)
    with database.write() as session:
        assert doom(session, study)
    seen: list[int] = []
    while True:
        with database.write() as session:
            page = purging.doomed(session, after=seen[-1] if seen else 0, limit=2)
            if not page:
                break
            seen += [row.id for row in page]
            paths = [row.path.removeprefix("spool/") for row in page if row.path.startswith("spool/")]
            assert purging.doomed_among(session, [*paths, "1.9/1.9/1.9.dcm"]) == set(paths)
            purging.forget(session, [page[0].id])
    assert len(seen) == 6 == len(set(seen))
    with database.read() as session:
        assert purging.count_doomed(session) == 3


def test_results_that_are_made_again_are_not_purged_any_more(database: Database) -> None:
    with database.write() as session:
        study = done(session)
        (job,) = session.scalars(select(Job))
    with database.write() as session:
        assert doom(session, study)
    with database.write() as session:
        results.replace_objects(session, job.id, [rows.new_object("1.2.1", 0)], destinations=[], at=NOW)
    with database.read() as session:
        assert session.scalars(select(ResultObject.purged_at)).all() == [None]


def test_every_study_with_files_is_looked_at_once(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(purging, "_CHUNK", 2)
    with database.write() as session:
        for number in range(1, 6):
            rows.receive(session, f"1.2.{number}", received_at=NOW if number < 4 else NOW + number * SECOND)
    with database.read() as session:
        found = [
            study.study_instance_uid for study in purging.with_files(session, last_before=NOW + 5 * SECOND)
        ]
    assert found == ["1.2.1", "1.2.2", "1.2.3", "1.2.4"]
