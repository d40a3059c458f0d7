"""Storage commitment requests as evidence: what they name, what is here of it, and which came lately."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy.orm import Session

from db import intake, naming, studies
from db.base import Database
from db.models import CommitmentReference, CommitmentRequest
from tests.db import rows
from tests.db.rows import NOW, SECOND, new_instance


def _request(session: Session, number: int, *uids: str, at: datetime = NOW) -> int:
    request = CommitmentRequest(
        transaction_uid=f"1.5.{number}",
        association_id="a",
        calling_ae_title="CT1",
        address="127.0.0.1",
        received_at=at,
        state="pending",
    )
    session.add(request)
    session.flush()
    session.add_all(
        CommitmentReference(request_id=request.id, sop_class_uid="1.2", sop_instance_uid=uid) for uid in uids
    )
    return request.id


def test_what_is_named_is_known_by_series_with_what_never_came(database: Database) -> None:
    with database.write() as session:
        intake.record_instances(
            session,
            [new_instance(n) for n in (1, 2, 3)]
            + [new_instance(1, series="1.2.1.2"), new_instance(1, study="1.2.9")],
        )
        one = _request(session, 1, "1.2.1.1.1", "1.2.1.1.2", "1.2.9.1.1", "1.7.1")
        two = _request(session, 2, "1.2.1.1.2", "1.2.1.1.3")
        _request(session, 3, "1.2.9.1.1", "1.7.2")
    with database.read() as session:
        study = studies.by_uid(session, "1.2.1")
        first, second = (series.id for series in study.series)
        found = naming.named(session, study.id)
    assert found.here == {first: 3}
    assert found.requests == {first: {one, two}}
    assert found.absent == {one: 1}
    assert (found.absent_with([first, second]), found.absent_with([second])) == (1, 0)


def test_nothing_named_is_nothing(database: Database) -> None:
    with database.write() as session:
        study_id = rows.receive(session).id
    with database.read() as session:
        assert naming.named(session, study_id) == naming.Named(requests={}, here={}, absent={})
        assert naming.lately(session, NOW) == set()


def test_fresh_requests_point_at_studies_that_receive(database: Database) -> None:
    with database.write() as session:
        ids = {number: rows.receive(session, f"1.2.{number}").id for number in (1, 2, 3)}
        _request(session, 1, "1.2.1.1.1", at=NOW - 9 * SECOND)
        _request(session, 2, "1.2.2.1.1", "1.2.3.1.1", at=NOW)
        closed = studies.by_uid(session, "1.2.3")
        assert studies.close(session, closed, evidence={}, problem="", at=NOW)
    with database.read() as session:
        assert naming.lately(session, NOW - 5 * SECOND) == {ids[2]}
        assert naming.lately(session, NOW - 10 * SECOND) == {ids[1], ids[2]}
        assert naming.lately(session, NOW + SECOND) == set()
