"""Decisions: what each route said about each series, kept whole for whoever asks why."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Decision


def record(session: Session, values: dict[str, Any]) -> None:
    """Keep what a route said about a series."""
    session.add(Decision(**values))


def of_revision(session: Session, study_id: int, revision: int) -> list[Decision]:
    """What the routes said about a revision of a study, in the order of the routes."""
    return list(
        session.scalars(
            select(Decision)
            .where(Decision.study_id == study_id, Decision.revision == revision)
            .order_by(Decision.id)
        )
    )
