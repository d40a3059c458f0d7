"""Decisions: what the routes said, kept word for word."""

from __future__ import annotations

from db import decisions, studies
from db.base import Database
from tests.db import rows
from tests.db.rows import NOW


def test_decisions_come_back_in_their_order(database: Database) -> None:
    with database.write() as session:
        study = rows.receive(session)
        for revision, route in ((1, "old"), (2, "chest"), (2, "brain")):
            decisions.record(
                session,
                {
                    "study_id": study.id,
                    "series_id": None,
                    "revision": revision,
                    "route": route,
                    "matched": route == "chest",
                    "reason": "Modality is CT",
                    "trace": {"rules": [{"keyword": "Modality", "value": "CT"}]},
                    "decided_at": NOW,
                },
            )
    with database.read() as session:
        found = decisions.of_revision(session, studies.by_uid(session, "1.2.1").id, 2)
    assert [(d.route, d.matched) for d in found] == [("chest", True), ("brain", False)]
    assert found[0].trace == {"rules": [{"keyword": "Modality", "value": "CT"}]}
