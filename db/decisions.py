"""Decisions: what each route said about each series, kept whole for whoever asks why."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import delete, or_, select
from sqlalchemy.orm import Session

from db.models import Decision


def record(session: Session, values: dict[str, Any]) -> None:
    """Keep what a route said about a series."""
    session.add(Decision(**values))


def forget(session: Session, study_id: int, revision: int, series_ids: Collection[int]) -> None:
    """Drop what the routes said about these series of a revision, and about its study: they are asked again."""
    session.execute(
        delete(Decision)
        .where(
            Decision.study_id == study_id,
            Decision.revision == revision,
            or_(Decision.series_id.in_(series_ids), Decision.series_id.is_(None)),
        )
        .execution_options(synchronize_session=False)
    )


def of_revision(session: Session, study_id: int, revision: int) -> list[Decision]:
    """What the routes said about a revision of a study, in the order of the routes."""
    return list(
        session.scalars(
            select(Decision)
            .where(Decision.study_id == study_id, Decision.revision == revision)
            .order_by(Decision.id)
        )
    )
