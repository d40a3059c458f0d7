"""Results: written once however often a job runs, found in one query."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import deliveries, jobs, leases, results
from db.base import Database
from db.models import Delivery, Finding, Measurement, ResultObject, Segment
from db.states import JobState
from dicom_node import results as dicom_results
from tests.db import rows
from tests.db.rows import LEASE, NOW, SECOND


def _count(session: Session, table: Any) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def _answer(session: Session, uid: str, laa: float) -> int:
    """A study with one job that found something."""
    job_id = rows.make_job(session, rows.receive(session, uid), uid).id
    results.replace_findings(
        session,
        job_id,
        segments=[rows.new_segment()],
        measurements=[rows.new_measurement(laa)],
        findings=[rows.new_finding(True)],
    )
    return job_id


def test_findings_replace_those_of_an_earlier_attempt(database: Database) -> None:
    with database.write() as session:
        job_id = _answer(session, "1.2.1", 5.0)
        other = _answer(session, "1.2.2", 6.0)
    for _ in range(2):
        with database.write() as session:
            results.replace_findings(
                session,
                job_id,
                segments=[rows.new_segment(1), rows.new_segment(2)],
                measurements=[
                    rows.new_measurement(7.5),
                    rows.new_measurement(1.0, key="volume", segment_number=None),
                ],
                findings=[],
            )
    with database.read() as session:
        assert [s.number for s in results.segments_of(session, job_id)] == [1, 2]
        assert [(m.key, m.value, m.segment_number) for m in results.measurements_of(session, job_id)] == [
            ("laa", 7.5, 1),
            ("volume", 1.0, None),
        ]
        assert results.findings_of(session, job_id) == []
        assert [m.value for m in results.measurements_of(session, other)] == [6.0]
        assert (_count(session, Segment), _count(session, Measurement), _count(session, Finding)) == (3, 3, 1)


def test_objects_are_written_once_with_their_deliveries(database: Database) -> None:
    with database.write() as session:
        job = rows.make_job(session, rows.receive(session))
        job_id = job.id
    objects = [rows.new_object("a", n) for n in range(2)]
    made = []
    for size in (5000, 6000):
        with database.write() as session:
            made.append(
                results.replace_objects(
                    session,
                    job_id,
                    [{**o, "size": size} for o in objects],
                    destinations=["pacs", "archive"],
                    at=NOW,
                )
            )
    assert made[0] == made[1]
    assert len(made[0]) == 4
    with database.read() as session:
        assert session.scalars(select(ResultObject.size)).all() == [6000, 6000]
        found = {
            (d.result.path, d.destination, d.state, d.next_attempt_at)
            for d in session.scalars(select(Delivery))
        }
        assert found == {(o["path"], to, "pending", NOW) for o in objects for to in ("pacs", "archive")}


def test_an_object_that_failed_the_gate_is_kept_and_has_no_delivery(database: Database) -> None:
    with database.write() as session:
        job = rows.make_job(session, rows.receive(session))
        objects = [
            rows.new_object("a", 0),
            rows.new_object("a", 1, verified=False, problem="geometry differs"),
        ]
        assert len(results.replace_objects(session, job.id, objects, destinations=["pacs"], at=NOW)) == 1
    with database.read() as session:
        assert (_count(session, ResultObject), _count(session, Delivery)) == (2, 1)


def test_nobody_to_send_to_means_no_delivery(database: Database) -> None:
    with database.write() as session:
        job = rows.make_job(session, rows.receive(session))
        assert (
            results.replace_objects(session, job.id, [rows.new_object("a", 0)], destinations=[], at=NOW) == []
        )


def _again(session: Session, job_id: int, **values: Any) -> list[int]:
    """Retry a job that ended, up to its new results."""
    assert jobs.retry(session, job_id)
    assert leases.claim(session, job_id, owner="w", now=NOW, lease=LEASE)
    objects = [rows.new_object("a", n, **values) for n in range(2)]
    follow = results.replace_objects(session, job_id, objects, destinations=["pacs"], at=NOW + SECOND)
    assert leases.leave_running(session, job_id, JobState.DELIVERING, owner="w")
    return follow


def test_a_retried_job_sends_again_what_was_dead_and_not_what_was_sent(database: Database) -> None:
    with database.write() as session:
        job, (sent, dead) = rows.delivering(session, rows.receive(session), objects=2)
        rows.claim_all(session, sent)
        deliveries.sent(session, sent, owner="d", at=NOW, status=0, comment="")
        deliveries.dead(session, dead, owner="d", status=1, comment="refused")
        assert jobs.settle_delivering(session, job.id, NOW) is JobState.FAILED
    with database.write() as session:
        assert _again(session, job.id) == [dead]
    with database.read() as session:
        row = deliveries.get(session, dead)
        assert (row.state, row.attempts, row.first_attempt_at, row.next_attempt_at) == (
            "pending",
            0,
            None,
            NOW + SECOND,
        )
        assert deliveries.get(session, sent).state == "sent"


def test_a_retried_job_that_was_cancelled_delivers(database: Database) -> None:
    with database.write() as session:
        job, ids = rows.delivering(session, rows.receive(session), objects=2)
        assert jobs.cancel(session, job.id, NOW)
    with database.write() as session:
        assert _again(session, job.id) == ids
        assert rows.claim_all(session, ids[0], now=NOW + SECOND) != []


def test_what_fails_the_gate_the_second_time_does_not_leave(database: Database) -> None:
    with database.write() as session:
        job, ids = rows.delivering(session, rows.receive(session), objects=2)
        rows.claim_all(session, ids[0])
        assert jobs.cancel(session, job.id, NOW)  # while it is being sent: the rows stay pending
    with database.write() as session:
        assert _again(session, job.id, verified=False, problem="geometry differs") == []
    with database.read() as session:
        assert {(deliveries.get(session, i).state, deliveries.get(session, i).comment) for i in ids} == {
            ("dead", "geometry differs")
        }


def test_an_object_of_every_kind_has_its_row(database: Database) -> None:
    # PostgreSQL refuses a text that is longer than its column; SQLite does not look
    with database.write() as session:
        job = rows.make_job(session, rows.receive(session))
        made = [
            rows.new_object(kind, 0, kind=kind)
            for kind in (*dicom_results.KINDS, dicom_results.NOT_PERFORMED)
        ]
        results.replace_objects(session, job.id, made, destinations=[], at=rows.NOW)
    with database.read() as session:
        assert set(session.scalars(select(ResultObject.kind))) == {row["kind"] for row in made}
