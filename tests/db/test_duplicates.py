"""Images that come again: which file is analysed, whatever order the reports come in, and what is said of it."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from db import intake, parents, studies
from db.base import Database
from db.models import Event, Instance, Series, Study
from db.new_instance import NewInstance
from tests.db import rows, together
from tests.db.rows import NOW, SECOND, new_instance

#: Three files of one image: the first has the image's own name, the others lie beside it.
A = new_instance(1, association_id="a")
B = replace(
    A, path="1.2.1/1.2.1.1/b.dcm", sha256=rows.digest("B"), conflicting=True, received_at=NOW + 60 * SECOND
)
C = replace(B, path="1.2.1/1.2.1.1/c.dcm", sha256=rows.digest("C"), received_at=NOW + 120 * SECOND)
A_AGAIN = replace(A, duplicate=True, received_at=NOW + 180 * SECOND)


def _receive(database: Database, *reports: NewInstance, keep_last: bool = True) -> list[NewInstance]:
    with database.write() as session:
        return intake.record_instances(session, reports, keep_last=keep_last)


def _finish(database: Database) -> None:
    """Let the study be complete and done."""
    with database.write() as session:
        study = session.scalars(select(Study)).one()
        assert studies.close(session, study, evidence={}, problem="", at=NOW)
        assert studies.finish_if_ended(session, study.id, NOW)


def _study(database: Database) -> Study:
    with database.read() as session:
        return session.scalars(select(Study)).one()


def _rows(database: Database) -> dict[str, tuple[bool, int, int]]:
    """What the rows say by path: conflicting, changes, revision."""
    with database.read() as session:
        return {
            row.path: (row.conflicting, row.changes, row.revision)
            for row in session.scalars(select(Instance))
        }


def _analysed(database: Database) -> str:
    """The path of the image's file that is analysed; there must be just one."""
    (path,) = [path for path, (conflicting, _, _) in _rows(database).items() if not conflicting]
    return path


def test_the_file_that_came_last_is_analysed_as_a_new_revision(database: Database) -> None:
    _receive(database, A)
    _finish(database)
    assert [report.path for report in _receive(database, B)] == [B.path]
    assert _rows(database) == {A.path: (True, 0, 1), B.path: (False, 1, 2)}
    study = _study(database)
    assert (study.state, study.revision, study.arrivals) == ("receiving", 2, 2)
    # And a batch that is repeated changes nothing
    assert _receive(database, B, A) == []
    assert _rows(database) == {A.path: (True, 0, 1), B.path: (False, 1, 2)}
    assert _study(database).arrivals == 2


def test_the_first_bytes_that_come_again_take_their_place_back(database: Database) -> None:
    for number, report in enumerate([A, B, A_AGAIN], start=1):
        _receive(database, report)
        _finish(database)
        assert _study(database).revision == number
    assert _rows(database) == {A.path: (False, 2, 3), B.path: (True, 1, 2)}
    # And so do the second
    _receive(database, replace(B, duplicate=True, received_at=NOW + 240 * SECOND))
    assert _rows(database) == {A.path: (True, 2, 3), B.path: (False, 3, 4)}


@pytest.mark.parametrize("order", list(itertools.permutations([A, B, C])))
def test_one_batch_of_a_scan_gives_the_rows_of_the_live_path(
    database: Database, order: tuple[NewInstance, ...]
) -> None:
    live = {A.path: (True, 0, 1), B.path: (True, 1, 1), C.path: (False, 2, 1)}
    _receive(database, *(replace(report, association_id=None) for report in order))
    assert _rows(database) == live


@pytest.mark.parametrize("order", list(itertools.permutations([A, B, C, A_AGAIN])))
def test_whichever_listener_reports_first_the_last_file_is_analysed(
    database: Database, order: tuple[NewInstance, ...]
) -> None:
    for report in order:
        _receive(database, report)
    assert _analysed(database) == A.path


def test_the_first_file_is_analysed_where_the_first_is_kept(database: Database) -> None:
    for order in itertools.permutations([A, B, C, A_AGAIN]):
        for report in order:
            _receive(database, report, keep_last=False)
        assert _analysed(database) == A.path
    assert _study(database).revision == 1


def test_an_older_file_whose_row_comes_late_changes_nothing(database: Database) -> None:
    """The listener that took it died before it could write its row."""
    _receive(database, B)
    _finish(database)
    assert _receive(database, replace(A, association_id=None)) == []
    assert _rows(database) == {A.path: (True, 0, 1), B.path: (False, 0, 1)}
    assert (_study(database).state, _study(database).revision) == ("done", 1)


def _reports(database: Database, reports: list[NewInstance]) -> None:
    for report in reports:
        _receive(database, report)


def test_processes_that_report_one_image_s_files_at_once_agree(database: Database) -> None:
    again = [replace(A_AGAIN, received_at=NOW + (200 + n) * SECOND) for n in range(5)]
    together.processes(_reports, database.url, [[A, C], [B, B], again])
    assert _analysed(database) == A.path


def test_the_same_uid_in_another_series_or_study_is_another_image(database: Database) -> None:
    same: dict[str, Any] = {"sop_instance_uid": A.sop_instance_uid, "sha256": rows.digest("other")}
    _receive(
        database,
        A,
        new_instance(1, series="1.2.1.2", received_at=NOW + SECOND, **same),
        new_instance(1, study="1.2.2", received_at=NOW + SECOND, **same),
    )
    assert {conflicting for conflicting, _, _ in _rows(database).values()} == {False}


@pytest.mark.parametrize("keep_last", [False, True])
def test_other_bytes_in_a_damaged_file_s_place_are_another_image(database: Database, keep_last: bool) -> None:
    # Given a finished study whose file was damaged, when the listener stores other bytes under its name
    _receive(database, A, keep_last=keep_last)
    _finish(database)
    other = replace(A, sha256=rows.digest("B"), received_at=NOW + 60 * SECOND)
    assert [report.sha256 for report in _receive(database, other, keep_last=keep_last)] == [other.sha256]
    # Then a job's identity tells them apart
    assert _rows(database) == {A.path: (False, 1, 2)}
    # but not from the very same bytes
    same = replace(other, received_at=NOW + 120 * SECOND)
    assert _receive(database, same, keep_last=keep_last) == []
    assert _rows(database) == {A.path: (False, 1, 2)}


def test_a_file_that_is_not_analysed_and_came_anew_moves_nothing(database: Database) -> None:
    _receive(database, A, B, keep_last=False)
    _finish(database)
    _receive(database, replace(B, received_at=NOW + 90 * SECOND), keep_last=False)
    assert _analysed(database) == A.path
    assert _study(database).revision == 1


def test_a_file_in_a_damaged_one_s_place_is_known_by_its_time(database: Database) -> None:
    """However soon after a start-up scan saw the damaged one."""
    _receive(database, replace(A, association_id=None))
    _finish(database)
    _receive(database, replace(A, received_at=NOW + SECOND / 1000))
    assert _study(database).revision == 2


@pytest.mark.parametrize("keep_last", [False, True])
def test_many_conflicts_are_one_event_for_each_association(database: Database, keep_last: bool) -> None:
    first = [new_instance(n, association_id="a") for n in range(30)]
    others = [
        replace(
            one,
            path=f"{one.path}.b",
            sha256=rows.digest(one.path),
            conflicting=True,
            association_id="b" if number else "c",
            received_at=NOW + SECOND,
        )
        for number, one in enumerate(first)
    ]
    _receive(database, *first, keep_last=keep_last)
    _receive(database, *others, keep_last=keep_last)
    with database.read() as session:
        said = {
            event.association_id: event.message
            for event in session.scalars(select(Event).where(Event.kind == "conflicting-duplicate"))
        }
    which = "the last ones are analysed" if keep_last else "the first ones are analysed"
    assert said == {
        "c": f"SOP Instance UID 1.2.1.1.0 came again with other bytes: {which}, all are kept",
        "b": f"SOP Instance UID 1.2.1.1.1 and 28 others came again with other bytes: {which}, all are kept",
    }


def test_a_changed_image_speaks_for_its_series_and_study(database: Database) -> None:
    _receive(database, replace(A, attributes={"StudyDescription": "CT chest", "SliceThickness": 1}))
    changed = replace(B, patient_id="P2", modality="MR")
    assert _receive(database, changed) == [changed]
    with database.write() as session:
        parents.describe_anew(session, changed, {})
        parents.describe_anew(
            session, changed, {"StudyDescription": "MR", "SeriesDescription": "t2", "SliceThickness": 5}
        )
    with database.read() as session:
        series = session.scalars(select(Series)).one()
    assert (series.modality, series.series_description) == ("MR", "t2")
    assert series.attributes is not None and series.attributes["SliceThickness"] == 5
    assert (_study(database).patient_id, _study(database).study_description) == ("P2", "MR")
