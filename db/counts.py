"""What arrived of a study, series by series, and what its sender says that it has."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import CursorResult, case, func, select, update
from sqlalchemy.orm import Session

from db.models import Instance, Job, ResultObject, Series, Study
from db.states import StudyState


@dataclass(frozen=True, kw_only=True, slots=True)
class Receiving:
    """A study that still receives, as far as one must know to tell whether it is worth a look."""

    id: int
    arrivals: int
    last_instance_at: datetime
    counted_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Tally:
    """The images of one series that one association carried."""

    series_id: int
    #: None for files of the start-up scan.
    association_id: str | None
    #: Images, each once, however often it came.
    images: int
    last_at: datetime


def receiving(session: Session) -> list[Receiving]:
    """The studies that still receive, those that were silent longest first; few of all that there are."""
    columns = (Study.id, Study.arrivals, Study.last_instance_at, Study.counted_at)
    rows = session.execute(
        select(*columns)
        .where(Study.state == StudyState.RECEIVING.value)
        .order_by(Study.last_instance_at, Study.id)
    )
    return [
        Receiving(id=study_id, arrivals=arrivals, last_instance_at=last, counted_at=counted)
        for study_id, arrivals, last, counted in rows
    ]


def tallies(session: Session, study_id: int) -> list[Tally]:
    """What arrived of a study."""
    # One file for each SOP Instance UID is analysed: those are the images.
    analysed = case((Instance.conflicting.is_(False), 1), else_=0)
    rows = session.execute(
        select(
            Instance.series_id,
            Instance.association_id,
            func.sum(analysed),
            func.max(Instance.received_at),
        )
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study_id)
        .group_by(Instance.series_id, Instance.association_id)
    )
    return [
        Tally(series_id=series_id, association_id=association_id, images=int(images), last_at=last_at)
        for series_id, association_id, images, last_at in rows
    ]


def own_series(session: Session, study_id: int) -> set[str]:
    """Series Instance UIDs of the results that we made of a study: its sender may have them by now."""
    return set(
        session.scalars(
            select(ResultObject.series_instance_uid)
            .join(Job, Job.id == ResultObject.job_id)
            .where(Job.study_id == study_id)
        )
    )


def put(
    session: Session, study_id: int, *, seen: datetime | None, at: datetime, counted: dict[str, Any]
) -> bool:
    """Write what is known of the sender's count; False where somebody else did since it was `seen`."""
    result = session.execute(
        update(Study)
        .where(
            Study.id == study_id,
            Study.state == StudyState.RECEIVING.value,
            Study.counted_at.is_not_distinct_from(seen),
        )
        .values(counted_at=at, counted=counted)
        .execution_options(synchronize_session=False)
    )
    assert isinstance(result, CursorResult)
    return result.rowcount == 1


def complete_series(session: Session, series_id: int, *, evidence: dict[str, Any], at: datetime) -> None:
    """Say that a series is complete, before its study is."""
    session.execute(
        update(Series)
        .where(Series.id == series_id)
        .values(complete_at=at, evidence=evidence)
        .execution_options(synchronize_session=False)
    )


def reopen_series(session: Session, series_ids: Collection[int]) -> None:
    """Take back that these series are complete: more of them came."""
    session.execute(
        update(Series)
        .where(Series.id.in_(series_ids), Series.complete_at.is_not(None))
        .values(complete_at=None, evidence=None)
        .execution_options(synchronize_session=False)
    )
