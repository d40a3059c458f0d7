"""Intake: repeat-safe, safe beside other processes, and never silent about what came late or twice."""

from __future__ import annotations

from dataclasses import replace

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db import duplicates, intake, studies
from db.base import Database
from db.models import Event, Instance, Series, Study
from db.new_instance import NewInstance
from db.states import StudyState
from tests.db import rows, together
from tests.db.rows import NOW, SECOND, new_instance


def _count(session: Session, table: type[Study] | type[Series] | type[Instance] | type[Event]) -> int:
    return session.scalar(select(func.count()).select_from(table)) or 0


def _study(database: Database, uid: str = "1.2.1") -> Study:
    with database.read() as session:
        return studies.by_uid(session, uid)


def _receive(database: Database, *instances: NewInstance) -> None:
    with database.write() as session:
        intake.record_instances(session, instances)


def test_a_batch_makes_study_series_and_instances(database: Database) -> None:
    first = new_instance(
        1,
        attributes={
            "AccessionNumber": "A7",
            "StudyDate": "20260302",
            "StudyDescription": "CT chest",
            "SeriesDescription": "lung",
        },
    )
    _receive(
        database,
        first,
        new_instance(2, received_at=NOW + SECOND),
        new_instance(1, series="1.2.1.2", modality="SR"),
    )
    study = _study(database)
    assert (study.state, study.revision, study.patient_id) == ("receiving", 1, "P1")
    assert (study.accession_number, study.study_date, study.study_description) == (
        "A7",
        "20260302",
        "CT chest",
    )
    assert (study.received_at, study.last_instance_at, study.arrivals) == (NOW, NOW + SECOND, 3)
    assert [(s.series_instance_uid, s.modality, s.series_description) for s in study.series] == [
        ("1.2.1.1", "CT", "lung"),
        ("1.2.1.2", "SR", ""),
    ]
    assert study.series[0].attributes == first.attributes
    with database.read() as session:
        assert [held.images for held in duplicates.count(session, [study.id]).values()] == [2, 1]
        row = session.scalars(select(Instance).where(Instance.path == first.path)).one()
        for name in (
            "sop_instance_uid",
            "sop_class_uid",
            "transfer_syntax_uid",
            "size",
            "sha256",
            "received_at",
            "association_id",
        ):
            assert getattr(row, name) == getattr(first, name), name


def test_an_empty_batch_is_nothing(database: Database) -> None:
    _receive(database)
    with database.read() as session:
        assert _count(session, Study) == 0


def test_a_repeated_batch_changes_nothing(database: Database) -> None:
    batch = [new_instance(n) for n in range(5)]
    _receive(database, *batch)
    before = _study(database)
    _receive(database, *batch, *batch)
    after = _study(database)
    assert (after.revision, after.arrivals, after.last_instance_at) == (
        before.revision,
        5,
        before.last_instance_at,
    )
    with database.read() as session:
        assert (_count(session, Study), _count(session, Series), _count(session, Instance)) == (1, 1, 5)


def test_the_same_series_uid_in_two_studies_is_two_series(database: Database) -> None:
    _receive(
        database, new_instance(1, study="1.2.1", series="1.9"), new_instance(1, study="1.2.2", series="1.9")
    )
    assert [len(_study(database, uid).series) for uid in ("1.2.1", "1.2.2")] == [1, 1]


def test_duplicates_are_counted(database: Database) -> None:
    again = new_instance(1, duplicate=True)
    _receive(database, new_instance(1), again)  # within one batch
    _receive(database, again, again)
    with database.read() as session:
        assert session.scalars(select(Instance.duplicates)).all() == [3]


def test_a_duplicate_whose_first_file_has_no_row_yet_is_the_first(database: Database) -> None:
    _receive(database, new_instance(1, duplicate=True))
    with database.read() as session:
        assert session.scalars(select(Instance.duplicates)).all() == [0]


def test_a_duplicate_of_a_finished_study_opens_no_revision(database: Database) -> None:
    _finished(database, StudyState.DONE)
    _receive(database, new_instance(1, duplicate=True, received_at=NOW + SECOND))
    assert (_study(database).state, _study(database).revision) == ("done", 1)


def test_conflicting_files_are_kept_noted_and_never_analysed(database: Database) -> None:
    other = new_instance(
        1, path="1.2.1/x.conflict.dcm", sha256=rows.digest("other"), conflicting=True, association_id="a1"
    )
    _receive(database, new_instance(1), other)
    study = _study(database)
    with database.read() as session:
        assert _count(session, Instance) == 2
        assert [i.conflicting for i in studies.instances_of(session, study.series[0].id)] == [False]
        event = session.scalars(select(Event)).one()
    assert (event.kind, event.study_id, event.association_id) == ("conflicting-duplicate", study.id, "a1")
    assert "1.2.1.1.1" in event.message
    _receive(database, other)
    with database.read() as session:
        assert _count(session, Event) == 1


def test_a_conflicting_file_opens_no_revision(database: Database) -> None:
    _finished(database, StudyState.DONE)
    _receive(database, new_instance(1, path="x", conflicting=True))
    assert (_study(database).state, _study(database).revision) == ("done", 1)


def _finished(database: Database, state: StudyState) -> None:
    """A study that was closed, and perhaps finished."""
    with database.write() as session:
        study = rows.receive(session)
        assert studies.close(session, study, evidence={"signal": "quiet"}, problem="", at=NOW)
        if state is StudyState.DONE:
            assert studies.finish_if_ended(session, study.id, NOW)


@pytest.mark.parametrize("state", [StudyState.READY, StudyState.DONE])
def test_late_images_open_the_next_revision(database: Database, state: StudyState) -> None:
    # Given a study that was complete
    _finished(database, state)
    # When images come after all, in two batches
    _receive(database, new_instance(2, received_at=NOW + SECOND), new_instance(3, received_at=NOW + SECOND))
    _receive(database, new_instance(4, received_at=NOW + 2 * SECOND))
    # Then it receives again, as one new revision, and says so
    study = _study(database)
    assert (study.state, study.revision, study.ready_at, study.done_at) == ("receiving", 2, None, None)
    assert study.last_instance_at == NOW + 2 * SECOND
    with database.read() as session:
        kinds = session.scalars(select(Event.kind)).all()
        revisions = session.scalars(select(Instance.revision).order_by(Instance.id)).all()
    assert kinds == ["late-images"]
    assert revisions == [1, 2, 2, 2]


@pytest.mark.parametrize("state", [StudyState.READY, StudyState.DONE])
def test_a_file_that_came_anew_opens_the_next_revision_once(database: Database, state: StudyState) -> None:
    # Given a finished study whose file was damaged or lost
    _finished(database, state)
    # When the listener stores it again, and the batch is repeated
    anew = new_instance(1, association_id="b", received_at=NOW + 60 * SECOND, sha256=rows.digest("anew"))
    for _ in range(2):
        _receive(database, anew)
    # Then the study receives again, once, and the row tells of the new file
    study = _study(database)
    assert (study.state, study.revision, study.arrivals) == ("receiving", 2, 2)
    with database.read() as session:
        row = session.scalars(select(Instance)).one()
        assert (row.sha256, row.revision, row.received_at) == (anew.sha256, 2, anew.received_at)
        assert (row.association_id, row.duplicates) == ("b", 0)
        assert sorted(session.scalars(select(Event.kind))) == ["file-replaced", "late-images"]


@pytest.mark.parametrize(
    "report",
    [
        new_instance(1, received_at=NOW + 60 * SECOND),
        new_instance(1, association_id="b"),
        new_instance(1, received_at=NOW - SECOND, association_id="b"),
    ],
    ids=["a scan", "what a scan was first to see", "an older batch"],
)
def test_what_is_no_new_file_opens_nothing(database: Database, report: NewInstance) -> None:
    _finished(database, StudyState.DONE)
    _receive(database, report)
    assert (_study(database).state, _study(database).revision) == ("done", 1)


def test_attributes_that_come_later_fill_what_is_missing_and_no_more(database: Database) -> None:
    _receive(database, new_instance(1))
    _receive(database, new_instance(2, attributes={"Rows": 512, "SeriesDescription": "lung"}))
    _receive(database, new_instance(3, attributes={"Rows": 256, "SeriesDescription": "other"}))
    series = _study(database).series[0]
    assert series.attributes == {"Rows": 512, "SeriesDescription": "lung"}
    assert series.series_description == "lung"


def test_text_that_a_database_would_refuse_does_not_stop_a_batch(database: Database) -> None:
    odd = {
        "StudyDescription": "a\x00b\udcff" + "x" * 200,
        "AccessionNumber": ["two", "values"],
        "Odd": "\x00\udcff",
    }
    _receive(
        database,
        new_instance(1, patient_id="P\x001\udcff" + "9" * 80, modality="CT\x00" + "T" * 30, attributes=odd),
    )
    study = _study(database)
    assert (study.patient_id[:3], len(study.patient_id)) == ("P1?", 64)
    assert (study.study_description[:3], len(study.study_description)) == ("ab?", 128)
    assert study.accession_number == ""
    assert study.series[0].modality == "CT" + "T" * 14


def test_paths_without_rows_keep_their_order(database: Database) -> None:
    _receive(database, *(new_instance(n) for n in range(1, 4)))
    known = [new_instance(n).path for n in range(1, 4)]
    asked = ["z", *known, "a", *(f"b{n}" for n in range(1200))]
    with database.read() as session:
        assert intake.paths_without_rows(session, asked) == ["z", "a", *(f"b{n}" for n in range(1200))]


def _send(database: Database, batches: list[list[NewInstance]]) -> None:
    for batch in batches:
        _receive(database, *batch)


def test_processes_that_receive_one_study_make_one_study(database: Database) -> None:
    # Given four associations that send 200 images of one study, in two series, each in batches of 10
    images = [new_instance(n, series=f"1.2.1.{n % 2}") for n in range(200)]
    shares = [images[start::4] for start in range(4)]
    batches = [[share[i : i + 10] for i in range(0, 50, 10)] for share in shares]
    # When four processes write them at once
    together.processes(_send, database.url, batches)
    # Then there is one study with two series and all images
    study = _study(database)
    assert (study.arrivals, study.revision, len(study.series)) == (200, 1, 2)
    with database.read() as session:
        assert _count(session, Study) == 1
        assert {each.images for each in duplicates.count(session, [study.id]).values()} == {100}


def test_processes_that_receive_the_same_files_make_each_row_once(database: Database) -> None:
    images = [new_instance(n) for n in range(60)]
    batches = [[images[i : i + 20] for i in range(0, 60, 20)]] * 3
    together.processes(_send, database.url, batches)
    assert _study(database).arrivals == 60
    with database.read() as session:
        assert _count(session, Instance) == 60


def test_processes_that_receive_many_studies_crosswise_do_not_lock_each_other_out(database: Database) -> None:
    uids = [f"1.2.{n}" for n in range(40)]
    orders = [uids, uids[::-1], uids[1::2] + uids[::2]]
    batches = [
        [[new_instance(100 * who + turn, study=uid) for uid in order] for turn in range(8)]
        for who, order in enumerate(orders)
    ]
    together.processes(_send, database.url, batches)
    with database.read() as session:
        assert (_count(session, Study), _count(session, Series), _count(session, Instance)) == (
            40,
            40,
            40 * 24,
        )
        assert set(session.scalars(select(Study.arrivals))) == {24}


def test_close_loses_to_images_that_came_in_between(database: Database) -> None:
    _receive(database, new_instance(1))
    seen = _study(database)
    _receive(database, new_instance(2, received_at=NOW + SECOND))
    with database.write() as session:
        assert not studies.close(session, seen, evidence={}, problem="", at=NOW)
    assert _study(database).state == "receiving"


def test_close_loses_to_images_of_a_slower_listener(database: Database) -> None:
    """Their clock is behind the newest image, so that no time tells that they came."""
    _receive(database, new_instance(1))
    seen = _study(database)
    _receive(database, new_instance(2, received_at=NOW - SECOND))
    with database.write() as session:
        assert not studies.close(session, seen, evidence={}, problem="", at=NOW)


def test_close_waits_for_an_intake_that_is_under_way(database: Database) -> None:
    # Given a study, and an intake of another image that is not committed yet
    _receive(database, new_instance(1))
    seen = _study(database)

    def close() -> bool:
        with database.write() as session:
            return studies.close(session, seen, evidence={}, problem="", at=NOW)

    with database.write() as session:
        intake.record_instances(session, [new_instance(2)])
        closing = together.Meanwhile(close)
        assert closing.waits
    # Then the close sees the image and gives up
    assert closing.answer() is False
    assert _study(database).state == "receiving"


def test_an_intake_that_waits_for_a_close_opens_the_next_revision(database: Database) -> None:
    _receive(database, new_instance(1))
    seen = _study(database)
    with database.write() as session:
        assert studies.close(session, seen, evidence={}, problem="", at=NOW)
        receiving = together.Meanwhile(lambda: _receive(database, new_instance(2)))
        assert receiving.waits
    receiving.answer()
    assert (_study(database).state, _study(database).revision) == ("receiving", 2)


@pytest.mark.parametrize(
    "database", [pytest.param("postgresql", marks=pytest.mark.peer("postgresql"))], indirect=True
)
def test_an_event_of_a_study_does_not_wait_for_its_intake(database: Database) -> None:
    """A reference to the study's row must not need its lock (SQLite has but one writer at all)."""
    _receive(database, new_instance(1))
    study_id = _study(database).id

    def note() -> None:
        with database.write() as session:
            session.add(Event(at=NOW, kind="x", message="", study_id=study_id))

    with database.write() as session:
        intake.record_instances(session, [new_instance(2)])
        noting = together.Meanwhile(note)
        assert not noting.waits
    noting.answer()


def test_a_batch_that_fails_leaves_nothing(database: Database) -> None:
    with pytest.raises(Exception, match="naive"):
        _receive(database, new_instance(1), replace(new_instance(2), received_at=NOW.replace(tzinfo=None)))
    with database.read() as session:
        assert (_count(session, Study), _count(session, Instance)) == (0, 0)
