"""Figures for the metrics, and which studies need a person, on both databases."""

from __future__ import annotations

from typing import Any

from db import events, figures, leases, studies
from db.base import Database
from db.models import Job
from db.states import JobState
from tests.db import rows


def analysed(session: Any, study: str, identity: str, state: JobState, **values: Any) -> Job:
    """A job that ended its analysis in a state."""
    job = rows.make_job(session, rows.receive(session, study, count=2), identity)
    assert leases.claim(session, job.id, owner="w", now=rows.NOW, lease=rows.LEASE)
    assert leases.leave_running(session, job.id, state, owner="w", **values)
    return job


def test_nothing_has_happened_yet(database: Database) -> None:
    with database.read() as session:
        assert figures.arrivals(session) == 0
        assert figures.events_by_kind(session) == {}
        assert figures.stage_seconds(session, limit=10) == {}
        assert studies.count(session) == studies.count(session, attention=True) == 0


def test_figures_are_those_of_the_rows(database: Database) -> None:
    # Given three jobs with times, one that failed and one that waits
    with database.write() as session:
        for number in range(3):
            seconds = {"infer": 1.5 + number, "read": 0.5}
            analysed(session, f"1.2.{number}", f"a{number}", JobState.DONE, seconds=seconds)
        analysed(session, "1.2.7", "b", JobState.FAILED, seconds={"read": 9.0}, error="slices are missing")
        rows.make_job(session, rows.receive(session, "1.2.8"), "c")
        events.note(session, "rejected", "by the peer rule")

    # Then only the newest that were analysed to the end count as times
    with database.read() as session:
        assert figures.arrivals(session) == 9
        assert figures.events_by_kind(session) == {"rejected": 1}
        found = figures.stage_seconds(session, limit=2)
    assert found == {("chest-ct", "infer"): [3.5, 2.5], ("chest-ct", "read"): [0.5, 0.5]}


def test_what_needs_a_person_is_a_problem_or_a_bad_end_of_the_present_revision(database: Database) -> None:
    # Given a failed job, a study with a problem, and a failed job that a newer revision left behind
    with database.write() as session:
        analysed(session, "1.2.1", "a", JobState.FAILED)
        rows.receive(session, "1.2.2").problem = "two patients"
        analysed(session, "1.2.3", "b", JobState.FAILED)
        rows.receive(session, "1.2.3").revision = 2
        analysed(session, "1.2.4", "c", JobState.DONE)

    # Then
    with database.read() as session:
        listed = {study.study_instance_uid for study in studies.newest(session, attention=True)}
        assert listed == {"1.2.1", "1.2.2"}
        assert studies.count(session, attention=True) == 2
        assert studies.count(session, attention=True, state="done") == 0
        assert studies.count(session, state="receiving") == studies.count(session) == 4


def test_uids_are_found_by_row(database: Database) -> None:
    with database.write() as session:
        first, second = rows.receive(session, "1.2.1"), rows.receive(session, "1.2.2")
        assert studies.uids(session, [first.id, second.id, 999]) == {first.id: "1.2.1", second.id: "1.2.2"}
        assert studies.uids(session, []) == {}
