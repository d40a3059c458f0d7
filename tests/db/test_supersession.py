"""Supersession: what newer images stop, and whose results the newer ones take the place of."""

from __future__ import annotations

import itertools

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from db import jobs, leases, results, states, studies, supersession
from db.base import Database
from db.models import Delivery, Job, ResultObject
from db.states import DeliveryState, JobState
from tests.db import rows, together
from tests.db.rows import LEASE, NOW


def _job(session: Session, identity: str, state: JobState = JobState.QUEUED) -> int:
    """A job of study 1.2.1 in one of the states that a job passes."""
    job_id = rows.make_job(session, rows.receive(session), identity).id
    if state is not JobState.QUEUED:
        assert leases.claim(session, job_id, owner="w", now=NOW, lease=LEASE)
    if state not in (JobState.QUEUED, JobState.RUNNING):
        assert leases.leave_running(session, job_id, state, owner="w")
    return job_id


def _get(database: Database, job_id: int) -> Job:
    with database.read() as session:
        return jobs.get(session, job_id)


def test_what_waits_and_what_runs_is_cancelled_and_what_delivers_goes_on(database: Database) -> None:
    with database.write() as session:
        waiting, running = _job(session, "a"), _job(session, "b", JobState.RUNNING)
        delivering, done = _job(session, "c", JobState.DELIVERING), _job(session, "d", JobState.DONE)
        kept = [_job(session, "e"), _job(session, "f", JobState.RUNNING)]
        study_id = studies.by_uid(session, "1.2.1").id
        assert supersession.supersede(session, study_id, NOW, keep=kept, error="late", series_ids=[0]) == 0
        assert supersession.supersede(session, study_id, NOW, keep=kept, error="late") == 2
    for job_id in (waiting, running):
        job = _get(database, job_id)
        assert (job.state, job.reason, job.error, job.finished_at) == ("cancelled", "superseded", "late", NOW)
        assert (job.lease_owner, job.lease_until, job.deadline_at) == ("", None, None)
    assert [_get(database, each).state for each in (delivering, done, *kept)] == [
        "delivering",
        "done",
        "queued",
        "running",
    ]


def test_the_worker_of_a_superseded_job_cannot_end_it(database: Database) -> None:
    with database.write() as session:
        job_id = _job(session, "a", JobState.RUNNING)
        study_id = studies.by_uid(session, "1.2.1").id
        assert supersession.supersede(session, study_id, NOW, keep=[], error="late") == 1
    with database.write() as session:
        assert not leases.is_held(session, job_id, owner="w")
        assert not leases.leave_running(session, job_id, JobState.DELIVERING, owner="w")
    assert _get(database, job_id).state == "cancelled"


@pytest.mark.parametrize("claimed_first", [True, False])
def test_a_claim_beside_a_supersession_leaves_no_job_that_runs(
    database: Database, claimed_first: bool
) -> None:
    with database.write() as session:
        job_id = _job(session, "a")
        study_id = studies.by_uid(session, "1.2.1").id

    def claim() -> bool:
        with database.write() as session:
            return leases.claim(session, job_id, owner="w", now=NOW, lease=LEASE) is not None

    def supersede() -> int:
        with database.write() as session:
            studies.lock(session, study_id)
            return supersession.supersede(session, study_id, NOW, keep=[], error="late")

    with database.write() as session:
        if claimed_first:
            assert leases.claim(session, job_id, owner="w", now=NOW, lease=LEASE)
            second = together.Meanwhile(supersede)
        else:
            studies.lock(session, study_id)
            second = together.Meanwhile(claim)
            assert supersession.supersede(session, study_id, NOW, keep=[], error="late") == 1
    assert second.answer() == claimed_first
    assert _get(database, job_id).state == "cancelled"


# Predecessors


def _answered(
    session: Session,
    identity: str,
    *deliveries: DeliveryState,
    state: JobState = JobState.DONE,
    verified: bool = True,
) -> int:
    """A job that answered, and what became of its objects' deliveries, one destination each."""
    job_id = _job(session, identity, state)
    results.replace_objects(
        session,
        job_id,
        [rows.new_object(identity, 1, verified=verified)],
        destinations=[f"to {number}" for number, _ in enumerate(deliveries)],
        at=NOW,
    )
    found = select(Delivery.id).join(ResultObject).where(ResultObject.job_id == job_id).order_by(Delivery.id)
    for delivery_id, to in zip(session.scalars(found).all(), deliveries, strict=verified):
        steps = [DeliveryState.PENDING, to]
        if to is DeliveryState.COMMITTED:
            steps.insert(1, DeliveryState.SENT)
        for step, following in itertools.pairwise(steps):
            if step is not following:
                assert states.advance(session, Delivery, delivery_id, step, following)
    return job_id


def _settled(session: Session, job_id: int) -> int | None:
    """Whose place the job takes, settled as it is claimed."""
    if jobs.get(session, job_id).state == JobState.QUEUED:
        assert leases.claim(session, job_id, owner="w", now=NOW, lease=LEASE)
    supersession.settle_predecessor(session, jobs.get(session, job_id))
    session.flush()
    return jobs.get(session, job_id).supersedes_id


P, S, C, D = DeliveryState.PENDING, DeliveryState.SENT, DeliveryState.COMMITTED, DeliveryState.DEAD


@pytest.mark.parametrize(
    ("deliveries", "state", "verified", "counts"),
    [
        ((S,), JobState.DONE, True, True),
        ((C,), JobState.DONE, True, True),
        ((P,), JobState.DELIVERING, True, True),
        ((D, S), JobState.FAILED, True, True),
        ((S,), JobState.CANCELLED, True, True),
        ((), JobState.DONE, True, True),
        ((D,), JobState.FAILED, True, False),
        ((), JobState.FAILED, True, False),
        ((), JobState.FAILED, False, False),
    ],
)
def test_what_left_or_may_leave_is_superseded(
    database: Database, deliveries: tuple[DeliveryState, ...], state: JobState, verified: bool, counts: bool
) -> None:
    with database.write() as session:
        first = _answered(session, "a", S)
        second = _answered(session, "b", *deliveries, state=state, verified=verified)
        assert _settled(session, _job(session, "c")) == (second if counts else first)


def test_only_the_same_model_s_answer_about_the_same_series_is_superseded(database: Database) -> None:
    with database.write() as session:
        _answered(session, "a", S)
        study = rows.receive(session, series="1.2.1.2")
        other_series = rows.make_job(session, study, "b", series_id=study.series[1].id).id
        other_model = rows.make_job(session, study, "c", model="bones").id
        assert _settled(session, other_series) is None
        assert _settled(session, other_model) is None


def test_the_predecessor_stays_once_there_are_results_that_name_it(database: Database) -> None:
    with database.write() as session:
        first = _answered(session, "a", S)
        second = _answered(session, "b", D, state=JobState.FAILED)
        third = _job(session, "c")
        assert _settled(session, third) == first
        # When the second's results can leave after all, before the third has some
        dead = select(Delivery.id).join(ResultObject).where(ResultObject.job_id == second)
        assert states.advance(session, Delivery, session.scalars(dead).one(), D, P)
        assert _settled(session, third) == second
        # and can leave no more, after it has
        results.replace_objects(session, third, [rows.new_object("c", 1)], destinations=["to 0"], at=NOW)
        assert states.advance(session, Delivery, session.scalars(dead).one(), P, D)
        assert _settled(session, third) == second


def test_the_line_of_predecessors_is_told_newest_first(database: Database) -> None:
    with database.write() as session:
        ids = []
        for identity in "abc":
            ids.append(_job(session, identity))
            _settled(session, ids[-1])
            results.replace_objects(session, ids[-1], [rows.new_object(identity, 1)], destinations=[], at=NOW)
            assert leases.leave_running(session, ids[-1], JobState.DONE, owner="w")
        last = rows.make_job(session, studies.by_uid(session, "1.2.1"), "d").id
        assert _settled(session, last) == ids[-1]
        line = supersession.predecessors(session, jobs.get(session, last))
        assert [job.id for job in line] == ids[::-1]
        assert [len(job.results) for job in line] == [1, 1, 1]
