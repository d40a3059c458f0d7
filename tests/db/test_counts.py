"""What arrived of a study, series by series, and the sender's own count of it."""

from __future__ import annotations

from sqlalchemy import text

from db import counts, intake, studies
from db.base import Database
from tests.db import rows
from tests.db.rows import NOW, SECOND, new_instance


def test_studies_that_receive_come_longest_silent_first(database: Database) -> None:
    with database.write() as session:
        for number in (2, 1, 3):
            rows.receive(session, f"1.2.{number}", received_at=NOW - number * SECOND)
        closed = studies.by_uid(session, "1.2.2")
        assert studies.close(session, closed, evidence={}, problem="", at=NOW)
    with database.read() as session:
        found = counts.receiving(session)
        assert [studies.uids(session, [row.id])[row.id] for row in found] == ["1.2.3", "1.2.1"]
    assert [row.last_instance_at for row in found] == [NOW - 3 * SECOND, NOW - SECOND]


def test_images_are_tallied_by_series_and_association(database: Database) -> None:
    with database.write() as session:
        intake.record_instances(
            session,
            [
                new_instance(1, association_id="a"),
                new_instance(2, association_id="a", received_at=NOW + SECOND),
                new_instance(3, association_id="b"),
                new_instance(3, association_id="b", path="other", sha256=rows.digest("x"), conflicting=True),
                new_instance(1, series="1.2.1.2"),
            ],
        )
    with database.read() as session:
        study = studies.by_uid(session, "1.2.1")
        first, second = (series.id for series in study.series)
        found = {(row.series_id, row.association_id): row for row in counts.tallies(session, study.id)}
    assert {key: row.images for key, row in found.items()} == {
        (first, "a"): 2,
        (first, "b"): 1,
        (second, None): 1,
    }
    assert found[first, "a"].last_at == NOW + SECOND


def test_a_count_is_written_by_who_saw_the_last_one(database: Database) -> None:
    with database.write() as session:
        study_id = rows.receive(session).id
        assert counts.put(session, study_id, seen=None, at=NOW, counted={"total": 1})
        assert not counts.put(session, study_id, seen=None, at=NOW, counted={"total": 2})
        assert counts.put(session, study_id, seen=NOW, at=NOW + SECOND, counted={"total": 3})
    with database.write() as session:
        study = studies.by_uid(session, "1.2.1")
        assert (study.counted, study.counted_at) == ({"total": 3}, NOW + SECOND)
        assert studies.close(session, study, evidence={}, problem="", at=NOW)
        assert not counts.put(session, study_id, seen=NOW + SECOND, at=NOW, counted={})


def test_a_series_of_which_more_comes_is_complete_no_more(database: Database) -> None:
    with database.write() as session:
        intake.record_instances(session, [new_instance(1), new_instance(1, series="1.2.1.2")])
        for series in studies.by_uid(session, "1.2.1").series:
            counts.complete_series(session, series.id, evidence={"signal": "x"}, at=NOW)
    with database.write() as session:
        intake.record_instances(session, [new_instance(2), new_instance(1, series="1.2.1.2", duplicate=True)])
    with database.read() as session:
        first, second = studies.by_uid(session, "1.2.1").series
    assert (first.complete_at, first.evidence) == (None, None)
    assert (second.complete_at, second.evidence) == (NOW, {"signal": "x"})


def test_our_own_results_are_known_by_their_series(database: Database) -> None:
    with database.write() as session:
        study = rows.receive(session)
        rows.delivering(session, study, objects=2)
        assert len(counts.own_series(session, study.id)) == 1
        assert counts.own_series(session, study.id + 1) == set()


def test_few_receiving_studies_are_found_by_an_index(database: Database) -> None:
    with database.read() as session:
        explain = "EXPLAIN QUERY PLAN" if database.url.startswith("sqlite") else "EXPLAIN"
        if database.url.startswith("postgresql"):
            session.execute(text("SET enable_seqscan = off"))
        plan = str(
            session.execute(
                text(
                    f"{explain} SELECT id FROM studies WHERE state = 'receiving' ORDER BY last_instance_at, id"
                )
            ).all()
        )
    assert "ix_studies_state_last_instance_at" in plan
