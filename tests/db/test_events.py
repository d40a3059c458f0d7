"""Events: what an admin reads afterwards, in order."""

from __future__ import annotations

import pytest

from db import events, studies
from db.base import Database
from tests.db import rows


@pytest.fixture
def noted(database: Database) -> Database:
    """Two studies with an event each, one association's, and one of nobody."""
    with database.write() as session:
        one = rows.receive(session, "1.2.1", association_id="a1")
        two = rows.receive(session, "1.2.2", association_id="a2")
        events.note(session, "one", "of the first study", study_id=one.id)
        session.flush()
        events.note(session, "two", "of the second study", study_id=two.id)
        session.flush()
        events.note(session, "carried", "of what carried the first", association_id="a1")
        session.flush()
        events.note(session, "disk", "of nobody")
    return database


def test_a_study_has_its_own_events_and_those_of_what_carried_it(noted: Database) -> None:
    with noted.read() as session:
        first, second = (studies.by_uid(session, uid).id for uid in ("1.2.1", "1.2.2"))
        assert [event.kind for event in events.of_study(session, first)] == ["one", "carried"]
        assert [event.kind for event in events.of_study(session, second)] == ["two"]


def test_newest_come_first(noted: Database) -> None:
    with noted.read() as session:
        assert [event.kind for event in events.newest(session, 3)] == ["disk", "carried", "two"]
