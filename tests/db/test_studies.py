"""Studies: closed on evidence, finished with the last job, asked about."""

from __future__ import annotations

import pytest

from db import associations, intake, jobs, leases, studies
from db.base import Database
from db.errors import NotFound
from db.models import Study
from db.states import JobState
from tests.db import rows, together
from tests.db.rows import LEASE, NOW, SECOND, new_instance


def _associate(database: Database, association_id: str, outcome: str = "open") -> None:
    row = {
        "id": association_id,
        "process_id": "h:1:0",
        "peer": "pacs",
        "calling_ae_title": "PACS",
        "called_ae_title": "SECONDREAD",
        "address": "127.0.0.1",
        "opened_at": NOW,
        "outcome": "open",
    }
    with database.write() as session:
        associations.record(session, row)
        if outcome != "open":
            associations.close(session, association_id, outcome=outcome, at=NOW)


def test_a_study_knows_what_carried_it(database: Database) -> None:
    _associate(database, "a1", "released")
    _associate(database, "a2")
    with database.write() as session:
        intake.record_instances(
            session, [new_instance(1, association_id="a1"), new_instance(2, association_id="a2")]
        )
    with database.read() as session:
        study = studies.by_uid(session, "1.2.1")
        assert [a.id for a in studies.carriers(session, study.id)] == ["a1", "a2"]


def test_a_closed_study_keeps_what_said_so(database: Database) -> None:
    with database.write() as session:
        study = rows.receive(session)
        assert studies.close(
            session, study, evidence={"signal": "quiet", "count": 1}, problem="two patients", at=NOW
        )
    with database.read() as session:
        study = studies.by_uid(session, "1.2.1")
    assert (study.state, study.ready_at, study.problem) == ("ready", NOW, "two patients")
    assert study.evidence == {"signal": "quiet", "count": 1}


def test_only_one_process_closes_a_study(database: Database) -> None:
    with database.write() as session:
        rows.receive(session)
    with database.read() as session:
        seen = studies.by_uid(session, "1.2.1")
    with database.write() as session:
        assert studies.close(session, seen, evidence={}, problem="", at=NOW)
    with database.write() as session:
        assert not studies.close(session, seen, evidence={}, problem="", at=NOW)


def test_patient_ids_are_distinct_and_leave_conflicting_files_out(database: Database) -> None:
    with database.write() as session:
        intake.record_instances(
            session,
            [
                new_instance(1, patient_id="P2"),
                new_instance(2, patient_id="P1"),
                new_instance(3, patient_id="P1"),
                new_instance(4, patient_id="P9", conflicting=True),
            ],
        )
    with database.read() as session:
        assert studies.patient_ids(session, studies.by_uid(session, "1.2.1").id) == ["P1", "P2"]


def test_instances_come_in_the_order_of_their_uids(database: Database) -> None:
    with database.write() as session:
        study = rows.receive(session, count=12)
        uids = [i.sop_instance_uid for i in studies.instances_of(session, study.series[0].id)]
    assert len(uids) == 12
    assert uids == sorted(uids)


def _ready(database: Database, *identities: str) -> tuple[Study, list[int]]:
    """A closed study with running jobs."""
    with database.write() as session:
        study = rows.receive(session)
        assert studies.close(session, study, evidence={}, problem="", at=NOW)
        ids = [rows.make_job(session, study, identity).id for identity in identities]
        for job_id in ids:
            assert leases.claim(session, job_id, owner="w", now=NOW, lease=LEASE)
    return study, ids


def test_a_study_without_a_job_finishes_at_once(database: Database) -> None:
    study, _ = _ready(database)
    with database.write() as session:
        assert studies.finish_if_ended(session, study.id, NOW)
        assert not studies.finish_if_ended(session, study.id, NOW)
    with database.read() as session:
        assert (studies.by_uid(session, "1.2.1").state, studies.by_uid(session, "1.2.1").done_at) == (
            "done",
            NOW,
        )


def test_a_study_finishes_with_its_last_job_however_that_ended(database: Database) -> None:
    study, (first, second) = _ready(database, "a", "b")
    with database.write() as session:
        assert leases.leave_running(session, first, JobState.DONE, owner="w", finished_at=NOW)
        assert not studies.finish_if_ended(session, study.id, NOW)
    with database.write() as session:
        assert leases.leave_running(session, second, JobState.FAILED, owner="w", reason="engine")
        assert studies.finish_if_ended(session, study.id, NOW)


def test_jobs_of_earlier_revisions_do_not_hold_a_study_back(database: Database) -> None:
    study, _ = _ready(database, "a")
    with database.write() as session:
        rows.receive(session, count=2)  # one of them is late
        assert studies.close(session, studies.by_uid(session, "1.2.1"), evidence={}, problem="", at=NOW)
        assert studies.finish_if_ended(session, study.id, NOW)


def test_two_workers_that_end_the_last_two_jobs_at_once_finish_the_study(database: Database) -> None:
    study, (first, second) = _ready(database, "a", "b")

    def end_second() -> bool:
        with database.write() as session:
            assert leases.leave_running(session, second, JobState.DONE, owner="w")
            return studies.finish_if_ended(session, study.id, NOW)

    with database.write() as session:
        assert leases.leave_running(session, first, JobState.DONE, owner="w")
        assert not studies.finish_if_ended(session, study.id, NOW)
        ending = together.Meanwhile(end_second)
    assert ending.answer() is True
    with database.read() as session:
        assert studies.by_uid(session, "1.2.1").state == "done"


def test_a_retry_beside_the_last_end_leaves_the_study_open(database: Database) -> None:
    # Given one failed job, and another that ends just now, in a transaction that is still open
    study, (failed, last) = _ready(database, "a", "b")
    with database.write() as session:
        assert leases.leave_running(session, failed, JobState.FAILED, owner="w")

    def retry() -> bool:
        with database.write() as session:
            return jobs.retry(session, failed)

    with database.write() as session:
        assert leases.leave_running(session, last, JobState.DONE, owner="w")
        assert studies.finish_if_ended(session, study.id, NOW)
        # When a person retries the failed one meanwhile
        retrying = together.Meanwhile(retry)
    # Then the study is not DONE with a job that waits
    assert retrying.answer() is True
    with database.read() as session:
        assert studies.by_uid(session, "1.2.1").state == "ready"


def test_reopen_touches_only_a_done_study(database: Database) -> None:
    study, _ = _ready(database)
    with database.write() as session:
        studies.reopen(session, study.id)
        assert studies.finish_if_ended(session, study.id, NOW)
        studies.reopen(session, study.id)
    with database.read() as session:
        assert (studies.by_uid(session, "1.2.1").state, studies.by_uid(session, "1.2.1").done_at) == (
            "ready",
            None,
        )


def test_an_unknown_study_is_not_found(database: Database) -> None:
    with database.read() as session, pytest.raises(NotFound, match=r"1\.2\.99"):
        studies.by_uid(session, "1.2.99")


def test_newest_pages_and_filters(database: Database) -> None:
    with database.write() as session:
        for number in range(5):
            study = rows.receive(session, f"1.2.{number}", received_at=NOW + number * SECOND)
        studies.close(session, study, evidence={}, problem="", at=NOW)
    with database.read() as session:
        uids = [study.study_instance_uid for study in studies.newest(session, limit=2, offset=1)]
        ready = [study.study_instance_uid for study in studies.newest(session, state="ready")]
        assert studies.count_by_state(session) == {"ready": 1, "receiving": 4}
    assert (uids, ready) == (["1.2.3", "1.2.2"], ["1.2.4"])
