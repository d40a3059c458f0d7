"""What was found: the newest answers, over all studies, narrowed by one query."""

from __future__ import annotations

from dataclasses import astuple
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy.orm import Session

from db import found, jobs, leases, results, studies
from db.base import Database
from db.states import JobState
from tests.db import rows
from tests.db.rows import LEASE, NOW


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
    _conclude(session, job.id, laa, present=present, finished_at=at)
    return job.id


def _conclude(
    session: Session,
    job_id: int,
    laa: float,
    *,
    present: bool = True,
    to: JobState = JobState.DONE,
    **values: Any,
) -> None:
    """Run a job that answers."""
    assert leases.claim(session, job_id, owner="w", now=NOW, lease=LEASE)
    results.replace_findings(
        session,
        job_id,
        segments=[rows.new_segment()],
        measurements=[rows.new_measurement(laa)],
        findings=[rows.new_finding(present)],
    )
    assert leases.leave_running(session, job_id, to, owner="w", engine="openvino", **values)


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
        return [(v.study_instance_uid, v.kind, v.value) for v in found.search(session, **values)]


def test_every_study_of_last_week_with_laa_above_ten_percent(answered: Database) -> None:
    listed = _search(answered, model="chest-ct", code="126-1", since=NOW - timedelta(days=7), above=10.0)
    assert listed == [("1.2.4", "measurement", 10.5), ("1.2.1", "measurement", 12.5)]


def test_search_by_manifest_key_finds_the_same(answered: Database) -> None:
    assert _search(answered, code="laa", above=10.0) == _search(answered, code="126-1", above=10.0)
    assert len(_search(answered, code="laa")) == 5


def test_search_for_a_finding_tells_present_from_absent(answered: Database) -> None:
    listed = dict((uid, value) for uid, _, value in _search(answered, code="nodule", model="chest-ct"))
    assert listed == {"1.2.1": 1.0, "1.2.2": 0.0, "1.2.3": 1.0, "1.2.4": 1.0}
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
        value, _ = found.search(session, model="head-ct")
        job_id = jobs.newest(session, limit=1)[0].id
    origin = ("1.2.5", "A7", "20260302", "lung", job_id, "head-ct", "1", 1, True, NOW)
    measured = ("measurement", "laa", "126-1", "99SR", "Low attenuation area", "lung 1", 40.0, "%", "")
    assert astuple(value) == (*origin, *measured)


def _found(database: Database, **values: Any) -> dict[str, list[tuple[float, int, bool]]]:
    """By study: the values of laa, of which revision, and whether that is the present one."""
    listed: dict[str, list[tuple[float, int, bool]]] = {}
    with database.read() as session:
        for value in found.search(session, code="laa", **values):
            listed.setdefault(value.study_instance_uid, []).append(
                (value.value, value.revision, value.current)
            )
    return listed


def test_an_earlier_revision_s_answer_stays_until_the_next_one(answered: Database) -> None:
    # Given late images, then a job about them, when it has no answer yet
    with answered.write() as session:
        study = studies.by_uid(session, "1.2.1")
        study.revision = 2
        job = rows.make_job(session, study, "1.2.1 late")
    assert _found(answered)["1.2.1"] == [(12.5, 1, False)]
    # And when it has
    with answered.write() as session:
        _conclude(session, job.id, 14.0)
    assert _found(answered)["1.2.1"] == [(14.0, 2, True)]
    # Each model, and each series, has its own newest answer
    assert {uid: len(values) for uid, values in _found(answered).items()} == dict.fromkeys(
        _found(answered), 1
    )


def test_another_series_s_answer_is_beside_it(answered: Database) -> None:
    with answered.write() as session:
        study = rows.receive(session, "1.2.1", series="1.2.1.2")
        job = rows.make_job(session, study, "other", series_id=study.series[1].id, model="chest-ct")
        _conclude(session, job.id, 3.0)
    assert sorted(value for value, _, _ in _found(answered)["1.2.1"]) == [3.0, 12.5]


@pytest.mark.parametrize("reason", ["gate", "undelivered"])
def test_an_answer_that_did_not_read_back_is_not_believed(answered: Database, reason: str) -> None:
    with answered.write() as session:
        study = studies.by_uid(session, "1.2.1")
        study.revision = 2
        job = rows.make_job(session, study, "1.2.1 late")
        _conclude(session, job.id, 14.0, to=JobState.FAILED, reason=reason)
    believed = [(12.5, 1, False)] if reason == "gate" else [(14.0, 2, True)]
    assert _found(answered)["1.2.1"] == believed


def _box(score: float, number: int) -> dict[str, Any]:
    nodule = {"code_value": "27925004", "code_scheme": "SCT", "code_meaning": "Nodule"}
    place = {"slice": 12 + number, "low": [2.5, 3.0, 4.0], "high": [5.5, 9.0, 12.0]}
    named = {"key": "lesion", "label": "Nodule", "number": number, "size_mm": [9.84, 6.4, 7.5]}
    return {**nodule, **place, **named, "score": score}


def test_boxes_are_found_by_their_class_and_score(database: Database) -> None:
    with database.write() as session:
        job_id = _answer(session, "1.2.1", 12.5)
        nothing: dict[str, Any] = {"segments": [], "measurements": [], "findings": []}
        results.replace_findings(session, job_id, **nothing, boxes=[_box(0.9, 1), _box(0.4, 2)])
    assert _search(database, code="lesion") == [("1.2.1", "box", 0.9), ("1.2.1", "box", 0.4)]
    assert _search(database, code="27925004", above=0.5) == [("1.2.1", "box", 0.9)]
    with database.read() as session:
        [first, _] = found.search(session)
    assert (first.explanation, first.meaning) == ("Nodule 1, slice 13, 9.8 x 6.4 x 7.5 mm", "Nodule")
    # And another attempt's take their place
    with database.write() as session:
        results.replace_findings(session, job_id, **nothing)
    assert _search(database) == []
