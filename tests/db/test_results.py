"""Results: written once however often a job runs, found in one query."""

from __future__ import annotations

from dataclasses import astuple
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import deliveries, jobs, leases, results, studies
from db.base import Database
from db.models import Delivery, Finding, Measurement, ResultObject, Segment
from db.states import JobState
from tests.db import rows
from tests.db.rows import LEASE, NOW, SECOND

LAA = {"code_value": "126-1", "code_scheme": "99SR", "code_meaning": "Low attenuation area"}
LUNG = {"code_value": "39607008", "code_scheme": "SCT", "code_meaning": "Lung"}
NODULE = {"code_value": "27925004", "code_scheme": "SCT", "code_meaning": "Nodule"}


def _segment(number: int = 1) -> dict[str, Any]:
    return {"number": number, "label": f"lung {number}", "voxels": 1000, **LUNG}


def _measurement(value: float, key: str = "laa", **values: Any) -> dict[str, Any]:
    return {
        "key": key,
        "segment_number": 1,
        "segment_label": "lung 1",
        "value": value,
        "unit": "%",
        **LAA,
        **values,
    }


def _finding(present: bool) -> dict[str, Any]:
    return {
        "key": "nodule",
        "present": present,
        "urgency": "routine",
        "explanation": "p = 0.7 > 0.5",
        **NODULE,
    }


def _answer(
    session: Session,
    uid: str,
    laa: float,
    *,
    present: bool = True,
    at: datetime = NOW,
    model: str = "chest-ct",
) -> int:
    """A study with one job that is done."""
    study = rows.receive(
        session,
        uid,
        attributes={"AccessionNumber": "A7", "StudyDate": "20260302", "SeriesDescription": "lung"},
    )
    job = rows.make_job(session, study, f"{uid}{model}", created_at=at, model=model)
    assert leases.claim(session, job.id, owner="w", now=at, lease=LEASE)
    results.replace_findings(
        session, job.id, segments=[_segment()], measurements=[_measurement(laa)], findings=[_finding(present)]
    )
    assert leases.leave_running(session, job.id, JobState.DONE, owner="w", finished_at=at)
    return job.id


def _count(session: Session, table: Any) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def test_findings_replace_those_of_an_earlier_attempt(database: Database) -> None:
    with database.write() as session:
        job_id = _answer(session, "1.2.1", 5.0)
        other = _answer(session, "1.2.2", 6.0)
    for _ in range(2):
        with database.write() as session:
            results.replace_findings(
                session,
                job_id,
                segments=[_segment(1), _segment(2)],
                measurements=[_measurement(7.5), _measurement(1.0, key="volume", segment_number=None)],
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


@pytest.fixture
def answered(database: Database) -> Database:
    """Five studies with answers: two of this week above 10 %, one below, one old, one by another model."""
    with database.write() as session:
        _answer(session, "1.2.1", 12.5)
        _answer(session, "1.2.2", 9.9, present=False)
        _answer(session, "1.2.3", 31.0, at=NOW - timedelta(days=30))
        _answer(session, "1.2.4", 10.5)
        _answer(session, "1.2.5", 40.0, model="head-ct")
    return database


def _search(database: Database, **values: Any) -> list[tuple[str, str, float]]:
    with database.read() as session:
        return [(v.study_instance_uid, v.kind, v.value) for v in results.search(session, **values)]


def test_every_study_of_last_week_with_laa_above_ten_percent(answered: Database) -> None:
    found = _search(answered, model="chest-ct", code="126-1", since=NOW - timedelta(days=7), above=10.0)
    assert found == [("1.2.4", "measurement", 10.5), ("1.2.1", "measurement", 12.5)]


def test_search_by_manifest_key_finds_the_same(answered: Database) -> None:
    assert _search(answered, code="laa", above=10.0) == _search(answered, code="126-1", above=10.0)
    assert len(_search(answered, code="laa")) == 5


def test_search_for_a_finding_tells_present_from_absent(answered: Database) -> None:
    found = dict((uid, value) for uid, _, value in _search(answered, code="nodule", model="chest-ct"))
    assert found == {"1.2.1": 1.0, "1.2.2": 0.0, "1.2.3": 1.0, "1.2.4": 1.0}
    assert {uid for uid, _, _ in _search(answered, code="nodule", above=0.5)} == {
        "1.2.1",
        "1.2.3",
        "1.2.4",
        "1.2.5",
    }
    assert len(_search(answered, code="nodule", above=-0.5)) == 5
    assert _search(answered, code="nodule", above=1.0) == []


def test_a_limit_counts_what_is_found(answered: Database) -> None:
    """The newest studies' findings are absent, and must not use up the limit."""
    with answered.write() as session:
        for number in range(6, 9):
            _answer(session, f"1.2.{number}", 1.0, present=False)
    assert [uid for uid, _, _ in _search(answered, code="nodule", above=0.5, limit=2)] == ["1.2.5", "1.2.4"]
    assert len(_search(answered, limit=3)) == 3
    assert [uid for uid, _, _ in _search(answered, limit=3)] == ["1.2.8", "1.2.8", "1.2.7"]


def test_search_says_where_a_value_came_from(answered: Database) -> None:
    with answered.read() as session:
        value, _ = results.search(session, model="head-ct")
        job_id = jobs.newest(session, limit=1)[0].id
    origin = ("1.2.5", "A7", "20260302", "lung", job_id, "head-ct", "1", NOW)
    measured = ("measurement", "laa", "126-1", "99SR", "Low attenuation area", "lung 1", 40.0, "%", "")
    assert astuple(value) == (*origin, *measured)


def test_search_leaves_earlier_revisions_out(answered: Database) -> None:
    with answered.write() as session:
        studies.by_uid(session, "1.2.1").revision = 2
    assert {uid for uid, _, _ in _search(answered, code="laa")} == {"1.2.2", "1.2.3", "1.2.4", "1.2.5"}
