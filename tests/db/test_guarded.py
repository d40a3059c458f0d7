"""What the loop guard keeps from the models: said once, and nothing of the study moves."""

from __future__ import annotations

import pytest
from sqlalchemy import delete, select

from db import intake, refusals, studies
from db.base import Database
from db.models import Event, Instance, Series, Study
from db.new_instance import NewInstance
from tests.db import rows
from tests.db.rows import NOW, SECOND, new_instance

REASON = "it is a result of secondread, by its UID"


def result(number: int = 1, **values: object) -> NewInstance:
    """A result of ours that comes back into study 1.2.1."""
    values = {"series": "1.2.1.9", "guarded": REASON, "modality": "SEG", **values}
    return new_instance(number, **values)  # type: ignore[arg-type]


def receive(database: Database, *instances: NewInstance) -> None:
    with database.write() as session:
        intake.record_instances(session, instances)


def study_of(database: Database) -> Study:
    with database.read() as session:
        return session.scalars(select(Study).where(Study.study_instance_uid == "1.2.1")).one()


def guarded(database: Database) -> dict[str, str]:
    """Series -> why it is guarded."""
    with database.read() as session:
        return {uid: why for uid, why in session.execute(select(Series.series_instance_uid, Series.guarded))}


def kinds(database: Database) -> list[str]:
    with database.read() as session:
        return list(session.scalars(select(Event.kind).order_by(Event.id)))


@pytest.fixture
def done(database: Database) -> Database:
    """A study of one image that is done."""
    with database.write() as session:
        study = rows.receive(session)
        assert studies.close(session, study, evidence={}, problem="", at=NOW)
        assert studies.finish_if_ended(session, study.id, NOW)
    return database


def test_results_that_come_back_move_nothing(done: Database) -> None:
    before = study_of(done)
    # When our results come back, in two batches, one of them twice
    receive(done, result(1, received_at=NOW + SECOND, association_id="a9"))
    receive(done, result(2, received_at=NOW + 2 * SECOND), result(1, duplicate=True))
    # Then the study is as it was
    after = study_of(done)
    assert (after.state, after.revision, after.arrivals) == ("done", 1, before.arrivals)
    assert (after.last_instance_at, after.ready_at, after.done_at) == (
        before.last_instance_at,
        before.ready_at,
        before.done_at,
    )
    # and it was said once, with its reason, and the files have rows
    assert guarded(done) == {"1.2.1.1": "", "1.2.1.9": REASON}
    assert kinds(done) == ["guarded"]
    with done.read() as session:
        (event,) = session.scalars(select(Event))
        assert event.message == f"series 1.2.1.9 is not analysed: {REASON}"
        assert (event.study_id, event.association_id) == (after.id, "a9")
        assert len(session.scalars(select(Instance)).all()) == 3


def test_images_beside_results_still_open_a_revision(done: Database) -> None:
    receive(done, result(1), new_instance(2))
    assert (study_of(done).state, study_of(done).revision) == ("receiving", 2)
    assert sorted(kinds(done)) == ["guarded", "late-images"]


def test_one_object_speaks_for_its_series_whenever_it_comes(database: Database) -> None:
    receive(database, new_instance(1, series="1.2.1.5"), result(2, series="1.2.1.5"))
    receive(database, new_instance(1), new_instance(2))
    assert guarded(database) == {"1.2.1.5": REASON, "1.2.1.1": ""}
    receive(database, result(3, guarded="it passed 4 processing devices, 3 may be", series="1.2.1.1"))
    assert "4 processing" in guarded(database)["1.2.1.1"]
    # A later one that looks innocent does not make an image of it
    receive(database, new_instance(4, series="1.2.1.5", attributes={"Rows": 1}))
    assert guarded(database)["1.2.1.5"] == REASON
    assert kinds(database) == ["guarded", "guarded"]


def test_an_innocent_file_of_a_guarded_series_opens_no_revision(done: Database) -> None:
    receive(done, result(1))
    receive(done, new_instance(2, series="1.2.1.9"))
    assert (study_of(done).state, study_of(done).revision) == ("done", 1)


def test_a_study_of_results_only_still_closes(database: Database) -> None:
    receive(database, result(1), result(2))
    study = study_of(database)
    assert study.last_instance_at == NOW
    with database.write() as session:
        assert studies.close(session, study, evidence={}, problem="", at=NOW)
        assert studies.finish_if_ended(session, study.id, NOW)


def test_results_of_two_studies_in_one_batch(database: Database) -> None:
    receive(
        database, new_instance(1), new_instance(1, study="1.2.2"), result(1, study="1.2.2", series="1.2.2.9")
    )
    assert guarded(database) == {"1.2.1.1": "", "1.2.2.1": "", "1.2.2.9": REASON}


def test_what_comes_anew_after_a_purge_is_judged_anew(done: Database) -> None:
    receive(done, result(1))
    with done.write() as session:
        session.execute(delete(Instance))
    # The setting was wrong, was corrected, and the study is sent again
    receive(done, new_instance(1, series="1.2.1.9"))
    assert guarded(done) == {"1.2.1.1": "", "1.2.1.9": ""}
    assert study_of(done).revision == 2


def test_a_result_of_another_patient_is_no_problem_of_the_study(database: Database) -> None:
    receive(database, new_instance(1), result(1, patient_id="corrected"))
    with database.read() as session:
        assert studies.patient_ids(session, study_of(database).id) == ["P1"]


def test_what_the_guard_refused_is_not_missed(database: Database) -> None:
    with database.write() as session:
        for uid, looped in (("1.9.1", True), ("1.9.2", False)):
            status = 0xC002 if looped else 0xA700
            refusals.note(session, "a1", status=status, sop_instance_uid=uid, reason="no", looped=looped)
    with database.read() as session:
        missing = refusals.missing(session, ["a1"])
    assert (missing.count, missing.statuses) == (1, (0xA700,))
    assert kinds(database) == ["refused-by-guard", "refused"]
