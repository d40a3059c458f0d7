"""Jobs: one per identity, one owner at a time, nothing lost with a message or a worker."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from db import deliveries, figures, intake, jobs, leases, studies, supersession
from db.base import Database
from db.errors import NotFound
from db.models import Job
from db.states import JobState
from tests.db import rows, together
from tests.db.rows import LEASE, NOW, SECOND


def _queued(database: Database, identity: str = "a", **values: Any) -> int:
    with database.write() as session:
        return rows.make_job(session, rows.receive(session), identity, **values).id


def _running(database: Database, identity: str = "a", owner: str = "w") -> int:
    job_id = _queued(database, identity)
    with database.write() as session:
        assert leases.claim(session, job_id, owner=owner, now=NOW, lease=LEASE)
    return job_id


def _get(database: Database, job_id: int) -> Job:
    with database.read() as session:
        return jobs.get(session, job_id)


def test_one_identity_is_one_job(database: Database) -> None:
    assert _queued(database, "a") == _queued(database, "a") != _queued(database, "b")


def _create(database: Database, study_id: int) -> int:
    with database.write() as session:
        study = studies.by_uid(session, "1.2.1")
        return rows.make_job(session, study, "a").id


def test_processes_that_make_the_same_job_make_one(database: Database) -> None:
    with database.write() as session:
        study_id = rows.receive(session).id
    assert len(set(together.processes(_create, database.url, [study_id] * 3))) == 1


def test_a_job_whose_images_did_not_change_goes_over_to_the_new_revision(database: Database) -> None:
    job_id = _running(database)
    with database.write() as session:
        study = studies.by_uid(session, "1.2.1")
        study.revision = 2
        assert rows.make_job(session, study, "a").id == job_id
        assert supersession.supersede(session, study.id, NOW, keep=[job_id], error="late") == 0
    assert (_get(database, job_id).revision, _get(database, job_id).state) == (2, "running")


def test_a_superseded_job_that_is_wanted_again_waits_again(database: Database) -> None:
    job_id = _queued(database)
    with database.write() as session:
        study = studies.by_uid(session, "1.2.1")
        study.revision = 3
        assert supersession.supersede(session, study.id, NOW, keep=[], error="late") == 1
    with database.write() as session:
        made = rows.make_job(session, studies.by_uid(session, "1.2.1"), "a")
        assert (made.id, made.state, made.revision, made.reason) == (job_id, "queued", 3, "")


@pytest.mark.parametrize(
    ("revision", "wanted", "state"),
    [(2, "queued", "queued"), (2, "skipped", "skipped"), (1, "queued", "skipped")],
)
def test_a_skipped_job_waits_when_a_newer_revision_may_have_it(
    database: Database, revision: int, wanted: str, state: str
) -> None:
    job_id = _queued(database, state="skipped", reason="study-problem", error="two", finished_at=NOW)
    with database.write() as session:
        study = studies.by_uid(session, "1.2.1")
        study.revision = revision
        rows.make_job(session, study, "a", state=wanted)
    job = _get(database, job_id)
    assert (job.state, job.revision, job.error == "") == (state, revision, state == "queued")
    # No person's wish makes it run
    with database.write() as session:
        assert not jobs.retry(session, job_id)


def test_a_job_whose_model_is_back_waits_again(database: Database) -> None:
    job_id = _running(database)
    with database.write() as session:
        assert leases.leave_running(session, job_id, JobState.CANCELLED, owner="w", reason="model-changed")
        assert rows.make_job(session, studies.by_uid(session, "1.2.1"), "a").state == "queued"


@pytest.mark.parametrize(("number", "state"), [(1, "queued"), (None, "failed")])
def test_a_failed_job_waits_again_only_when_its_files_were_replaced(
    database: Database, number: int | None, state: str
) -> None:
    # Given a job that failed, and a study that received again: the job's own file, or another series
    job_id = _running(database)
    with database.write() as session:
        assert leases.leave_running(session, job_id, JobState.FAILED, owner="w", reason="truncated")
        study = studies.by_uid(session, "1.2.1")
        assert studies.close(session, study, evidence={"signal": "quiet"}, problem="", at=NOW)
    late = {"association_id": "b", "received_at": NOW + 60 * SECOND}
    came = rows.new_instance(number, **late) if number else rows.new_instance(1, series="1.2.1.2", **late)
    with database.write() as session:
        intake.record_instances(session, [came])
    # When the routes ask for the same job again
    with database.write() as session:
        made = rows.make_job(session, studies.by_uid(session, "1.2.1"), "a")
        assert (made.id, made.revision) == (job_id, 2)
    assert _get(database, job_id).state == state


def test_claim_gives_a_lease_and_counts(database: Database) -> None:
    job_id = _queued(database)
    with database.write() as session:
        job = leases.claim(session, job_id, owner="w", now=NOW, lease=LEASE)
        assert job is not None
    assert (job.state, job.lease_owner, job.lease_until, job.attempts) == ("running", "w", NOW + LEASE, 1)
    assert (job.started_at, job.study.study_instance_uid) == (NOW, "1.2.1")
    with database.write() as session:
        assert leases.claim(session, job_id, owner="w2", now=NOW, lease=LEASE) is None


def test_a_job_is_not_claimed_before_its_time(database: Database) -> None:
    job_id = _queued(database, not_before=NOW)
    with database.write() as session:
        assert leases.claim(session, job_id, owner="w", now=NOW - SECOND, lease=LEASE) is None
        assert leases.claim(session, job_id, owner="w", now=NOW, lease=LEASE) is not None


def test_a_lease_expires_unless_renewed(database: Database) -> None:
    job_id = _running(database)
    over = NOW + LEASE + SECOND
    with database.write() as session:
        assert leases.expired(session, NOW + LEASE) == []
        assert [job.id for job in leases.expired(session, over)] == [job_id]
        assert leases.renew(session, job_id, owner="w", until=over + LEASE)
        assert leases.expired(session, over) == []
        assert not leases.renew(session, job_id, owner="other", until=over + LEASE)


def test_a_job_that_was_taken_away_cannot_be_finished_by_its_first_worker(database: Database) -> None:
    # Given a worker whose lease ran out, and another that has the job now
    job_id = _running(database, owner="slow")
    with database.write() as session:
        assert leases.leave_running(session, job_id, JobState.QUEUED, owner="slow")
        assert leases.claim(session, job_id, owner="quick", now=NOW + LEASE, lease=LEASE)
    # When the first one comes back
    with database.write() as session:
        assert not leases.renew(session, job_id, owner="slow", until=NOW + 3 * LEASE)
        assert not leases.leave_running(session, job_id, JobState.DELIVERING, owner="slow")
    # Then the second one still has it, and finishes it
    with database.write() as session:
        assert leases.leave_running(session, job_id, JobState.DELIVERING, owner="quick", engine="ov")
    job = _get(database, job_id)
    assert (job.state, job.lease_owner, job.lease_until, job.attempts, job.engine) == (
        "delivering",
        "",
        None,
        2,
        "ov",
    )


def test_a_cancelled_job_cannot_be_finished(database: Database) -> None:
    job_id = _running(database)
    with database.write() as session:
        assert jobs.cancel(session, job_id, NOW)
    with database.write() as session:
        assert not leases.renew(session, job_id, owner="w", until=NOW + LEASE)
        assert not leases.leave_running(session, job_id, JobState.DONE, owner="w")
    assert (_get(database, job_id).state, _get(database, job_id).reason) == ("cancelled", "cancelled")


def test_unheard_jobs_are_those_whose_message_may_be_lost(database: Database) -> None:
    fresh, told, lost = (_queued(database, identity) for identity in "abc")
    _running(database, "d")
    later = _queued(database, "e", not_before=NOW + SECOND)
    with database.write() as session:
        jobs.mark_nudged(session, [told], NOW)
        jobs.mark_nudged(session, [lost], NOW - timedelta(minutes=2))
        jobs.mark_nudged(session, [], NOW)
    with database.read() as session:
        ago = NOW - timedelta(minutes=1)
        assert jobs.unheard(session, now=NOW, nudged_before=ago) == [fresh, lost]
        assert jobs.unheard(session, now=NOW, nudged_before=ago, limit=1) == [fresh]
        assert jobs.unheard(session, now=NOW + SECOND, nudged_before=ago) == [fresh, lost, later]


def _deliver(database: Database, objects: int = 2) -> tuple[int, list[int]]:
    with database.write() as session:
        job, ids = rows.delivering(session, rows.receive(session), objects=objects)
    return job.id, ids


def _end(database: Database, job_id: int, delivery_id: int, *, dead: bool = False) -> JobState | None:
    """What a worker does when a delivery ended."""
    with database.write() as session:
        rows.claim_all(session, delivery_id)
        if dead:
            assert deliveries.dead(session, delivery_id, owner="d", status=0xC000, comment="refused")
        else:
            assert deliveries.sent(session, delivery_id, owner="d", at=NOW, status=0, comment="")
        return jobs.settle_delivering(session, job_id, NOW)


def test_a_job_is_done_when_the_last_delivery_is(database: Database) -> None:
    job_id, (first, second) = _deliver(database)
    assert _end(database, job_id, first) is None
    assert _end(database, job_id, second) is JobState.DONE
    assert (_get(database, job_id).state, _get(database, job_id).finished_at) == ("done", NOW)


def test_a_dead_delivery_fails_its_job_once_the_others_ended(database: Database) -> None:
    job_id, (first, second) = _deliver(database)
    assert _end(database, job_id, first, dead=True) is None
    assert _end(database, job_id, second) is JobState.FAILED
    assert (_get(database, job_id).reason, _get(database, job_id).error[:18]) == (
        "undelivered",
        "1 delivery is dead",
    )


def test_a_job_without_a_delivery_settles_at_once(database: Database) -> None:
    job_id = _running(database)
    with database.write() as session:
        assert leases.leave_running(session, job_id, JobState.DELIVERING, owner="w")
        assert jobs.settle_delivering(session, job_id, NOW) is JobState.DONE


def test_two_workers_that_end_the_last_two_deliveries_at_once_settle_the_job(database: Database) -> None:
    job_id, (first, second) = _deliver(database)
    with database.write() as session:
        assert deliveries.sent(session, first, owner="", at=NOW, status=0, comment="")
        assert jobs.settle_delivering(session, job_id, NOW) is None
        ending = together.Meanwhile(lambda: _end(database, job_id, second))
    assert ending.answer() is JobState.DONE
    assert _get(database, job_id).state == "done"


def _end_each(database: Database, ids: list[tuple[int, int]]) -> list[str]:
    """End deliveries one after the other, as a worker does, and say which jobs that settled."""
    settled = []
    for job_id, delivery_id in ids:
        if _end(database, job_id, delivery_id) is not None:
            settled.append(str(job_id))
            with database.write() as session:
                studies.finish_if_ended(session, jobs.get(session, job_id).study_id, NOW)
    return settled


def test_processes_that_end_all_deliveries_leave_no_job_and_no_study_behind(database: Database) -> None:
    # Given 12 jobs of 3 deliveries each
    ids = []
    with database.write() as session:
        for number in range(4):
            study = rows.receive(session, f"1.2.{number}")
            assert studies.close(session, study, evidence={}, problem="", at=NOW)
            for name in "abc":
                job, mine = rows.delivering(session, study, identity=f"{number}{name}", objects=3)
                ids.append((job.id, mine))
    # When three processes end one delivery of each, in the same order
    shares = [[(job_id, mine[n]) for job_id, mine in ids] for n in range(3)]
    settled = [job_id for each in together.processes(_end_each, database.url, shares) for job_id in each]
    # Then each job was settled once, and every study is done
    assert sorted(map(int, settled)) == [job_id for job_id, _ in ids]
    with database.read() as session:
        assert jobs.count_by_state(session) == {"done": 12}
        assert studies.count_by_state(session) == {"done": 4}


def test_a_retry_begins_anew_and_opens_the_study(database: Database) -> None:
    job_id = _running(database)
    with database.write() as session:
        study = studies.by_uid(session, "1.2.1")
        assert studies.close(session, study, evidence={}, problem="", at=NOW)
        assert not jobs.retry(session, job_id)
        assert leases.leave_running(
            session, job_id, JobState.FAILED, owner="w", reason="engine", error="x", finished_at=NOW
        )
        assert studies.finish_if_ended(session, study.id, NOW)
        jobs.mark_nudged(session, [job_id], NOW)
        assert jobs.retry(session, job_id)
    job = _get(database, job_id)
    assert (job.state, job.attempts, job.reason, job.error, job.finished_at, job.nudged_at) == (
        "queued",
        0,
        "",
        "",
        None,
        None,
    )
    assert job.study.state == "ready"


@pytest.mark.parametrize("state", [JobState.QUEUED, JobState.RUNNING, JobState.DELIVERING])
def test_cancel_stops_what_has_not_ended(database: Database, state: JobState) -> None:
    job_id, ids = _deliver(database)
    with database.write() as session:
        session.get_one(Job, job_id).state = state.value
    with database.write() as session:
        assert jobs.cancel(session, job_id, NOW)
        assert not jobs.cancel(session, job_id, NOW)
        assert deliveries.due(session, now=NOW, nudged_before=NOW) == []
        assert rows.claim_all(session, ids[0]) == []
    assert (_get(database, job_id).state, _get(database, job_id).finished_at) == ("cancelled", NOW)


def test_cancel_does_not_call_dead_what_is_being_sent(database: Database) -> None:
    job_id, ids = _deliver(database)
    with database.write() as session:
        rows.claim_all(session, ids[0])
    with database.write() as session:
        assert jobs.cancel(session, job_id, NOW)
        # The sender was in the middle of it; what arrived is not denied.
        assert deliveries.sent(session, ids[0], owner="d", at=NOW, status=0, comment="")
        assert deliveries.postpone(session, ids[1], owner="d", until=NOW, status=None, comment="")
        assert deliveries.due(session, now=NOW, nudged_before=NOW) == []


def test_a_cancel_that_meets_a_claim_still_cancels(database: Database) -> None:
    job_id = _queued(database)

    def cancel() -> bool:
        with database.write() as session:
            return jobs.cancel(session, job_id, NOW)

    with database.write() as session:
        assert leases.claim(session, job_id, owner="w", now=NOW, lease=LEASE)
        cancelling = together.Meanwhile(cancel)
    assert cancelling.answer() is True
    assert _get(database, job_id).state == "cancelled"


def test_a_late_image_beside_a_job_that_ends_does_not_lock_both_out(database: Database) -> None:
    """Closing goes from the study to its jobs; so must ending a job, or the two wait for each other."""
    job_id = _running(database)
    with database.write() as session:
        study = studies.by_uid(session, "1.2.1")
        study_id = study.id
        assert studies.close(session, study, evidence={}, problem="", at=NOW)
        rows.receive(session, count=2)

    def end() -> bool:
        with database.write() as session:
            ended = leases.leave_running(session, job_id, JobState.DONE, owner="w")
            studies.finish_if_ended(session, study_id, NOW)
            return ended

    with database.write() as session:
        study = studies.by_uid(session, "1.2.1")
        assert studies.close(session, study, evidence={}, problem="", at=NOW)
        ending = together.Meanwhile(end)
        kept = rows.make_job(session, study, "a").id
        supersession.supersede(session, study_id, NOW, keep=[kept], error="late")
    assert ending.answer() is True
    with database.read() as session:
        assert (jobs.get(session, job_id).state, jobs.get(session, job_id).revision) == ("done", 2)
        assert studies.by_uid(session, "1.2.1").state == "done"


def test_newest_counts_and_the_oldest_waiting(database: Database) -> None:
    with database.read() as session:
        assert figures.oldest_waiting(session) is None
    ids = [
        _queued(database, identity, created_at=NOW + number * SECOND) for number, identity in enumerate("cab")
    ]
    running = _running(database, "d")
    with database.write() as session:
        other = rows.make_job(session, rows.receive(session, "1.2.2"), "e").id
    with database.read() as session:
        study_id = studies.by_uid(session, "1.2.1").id
        assert [job.id for job in jobs.newest(session, limit=2, offset=1)] == [running, ids[2]]
        assert [job.id for job in jobs.newest(session, state="running")] == [running]
        assert [job.id for job in jobs.newest(session, study_id=study_id)] == [running, *reversed(ids)]
        assert [job.study.study_instance_uid for job in jobs.newest(session, limit=1)] == ["1.2.2"]
        assert jobs.count_by_state(session) == {"queued": 4, "running": 1}
        assert figures.oldest_waiting(session) == NOW
    assert other


def test_an_unknown_job_is_not_found(database: Database) -> None:
    with database.write() as session:
        for ask in (jobs.get, jobs.retry, lambda s, i: jobs.cancel(s, i, NOW)):
            with pytest.raises(NotFound, match="no job 99"):
                ask(session, 99)
        assert not leases.leave_running(session, 99, JobState.DONE, owner="w")
        assert jobs.settle_delivering(session, 99, NOW) is None
