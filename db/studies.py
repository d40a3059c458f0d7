"""Studies: what carried them, what they hold, and how they close."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import Subquery, func, select, text, union
from sqlalchemy.orm import Session, defer, selectinload

from db import states
from db.errors import FilesGone, NotFound
from db.models import Association, Instance, Job, Series, Study
from db.models.arrivals import STUDY_IN_TROUBLE
from db.states import JOB_ENDED, JobState, StudyState


def carriers(session: Session, study_id: int) -> list[Association]:
    """The associations that carried a study, in the order they opened."""
    used = (
        select(Instance.association_id)
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study_id)
    )
    return list(
        session.scalars(
            select(Association)
            .where(Association.id.in_(used))
            .order_by(Association.opened_at, Association.id)
        )
    )


def patient_ids(session: Session, study_id: int) -> list[str]:
    """The distinct Patient IDs of a study's images; more than one is a fault at the sender.

    A result that came back is no image: a PACS may have corrected its patient in between.
    """
    return list(
        session.scalars(
            select(Instance.patient_id)
            .join(Series, Series.id == Instance.series_id)
            .where(Series.study_id == study_id, Series.guarded == "", Instance.conflicting.is_(False))
            .distinct()
            .order_by(Instance.patient_id)
        )
    )


def instances_of(session: Session, series_id: int) -> list[Instance]:
    """A series' files that may be analysed, late ones too, ordered by SOP Instance UID."""
    return list(
        session.scalars(
            select(Instance)
            .where(Instance.series_id == series_id, Instance.conflicting.is_(False))
            .order_by(Instance.sop_instance_uid)
        )
    )


def close(session: Session, study: Study, *, evidence: dict[str, Any], problem: str, at: datetime) -> bool:
    """RECEIVING -> READY with the evidence; False where new images came in between.

    `study` is the row as it was when the evidence was taken. Its count of arrivals is compared, and
    not a time: a slower listener's image may be older than the newest that is known.
    """
    return states.advance(
        session,
        Study,
        study.id,
        StudyState.RECEIVING,
        StudyState.READY,
        Study.revision == study.revision,
        Study.arrivals == study.arrivals,
        evidence=evidence,
        missing=evidence.get("missing", 0),
        problem=problem,
        ready_at=at,
    )


def finish_if_ended(session: Session, study_id: int, at: datetime) -> bool:
    """READY -> DONE where every job of the study's revision has ended."""
    # Of two workers that end the last two jobs at once, the second must see the first one's end.
    lock(session, study_id)
    running = select(Job.id).where(
        Job.study_id == study_id,
        Job.revision == Study.revision,
        Job.state.not_in([state.value for state in JOB_ENDED]),
    )
    return states.advance(
        session, Study, study_id, StudyState.READY, StudyState.DONE, ~running.exists(), done_at=at
    )


def reopen(session: Session, study_id: int) -> None:
    """DONE -> READY, because one of its jobs was revived."""
    lock(session, study_id)
    states.advance(session, Study, study_id, StudyState.DONE, StudyState.READY, done_at=None)


def lock(session: Session, study_id: int) -> None:
    """Wait for other transactions that move this study or end its jobs, and keep new ones waiting.

    PostgreSQL lets transactions run side by side, so each that decides by what it counts takes this
    lock first. The order is the same everywhere, or two could wait for each other: deliveries, then
    the study, then its jobs. SQLite has one writer at a time, and ignores it.
    """
    session.execute(select(Study.id).where(Study.id == study_id).with_for_update(key_share=True))


def require_files(session: Session, study_id: int) -> None:
    """Raise FilesGone where the study's images and results were deleted and did not come again."""
    study = session.get_one(Study, study_id, populate_existing=True)
    if study.state == StudyState.PURGED:
        raise FilesGone(
            f"the images and results of study {study.study_instance_uid} were deleted on "
            f"{study.purged_at:%Y-%m-%d}; send the study again"
        )


def by_uid(session: Session, study_instance_uid: str) -> Study:
    """One study with its series and jobs. Raises NotFound."""
    study = session.scalar(
        select(Study)
        .where(Study.study_instance_uid == study_instance_uid)
        .options(selectinload(Study.series), selectinload(Study.jobs))
    )
    if study is None:
        raise NotFound(_not_here(study_instance_uid))
    return study


def _not_here(asked: str) -> str:
    """That there is no such study; and what to ask for instead, where it is an accession number or a name."""
    if "." in asked and set(asked) <= set("0123456789."):
        return f"no study {asked} has arrived here"
    return (
        f"{asked} is no Study Instance UID (numbers and dots); `secondread studies` and the page list the "
        "studies that arrived, each with its UID and its accession number"
    )


def newest(
    session: Session,
    *,
    state: str | None = None,
    attention: bool = False,
    limit: int = 100,
    offset: int = 0,
) -> list[Study]:
    """Studies, newest first; with `attention` those that need a person."""
    listed = _listed(state, attention)
    newest_first = select(listed.c.id).order_by(listed.c.received_at.desc(), listed.c.id.desc())
    ids = session.scalars(newest_first.limit(limit).offset(offset)).all()
    # A list says nothing of attributes, stages or notes: they are most of what there is to read.
    whole = (
        selectinload(Study.jobs).options(defer(Job.seconds), defer(Job.notes), defer(Job.destinations)),
        selectinload(Study.series).options(defer(Series.attributes), defer(Series.evidence)),
    )
    found = {row.id: row for row in session.scalars(select(Study).where(Study.id.in_(ids)).options(*whole))}
    return [found[study_id] for study_id in ids if study_id in found]


def count(session: Session, *, state: str | None = None, attention: bool = False) -> int:
    """How many studies `newest` would list without limits."""
    return session.scalar(select(func.count()).select_from(_listed(state, attention))) or 0


def _listed(state: str | None, attention: bool) -> Subquery:
    """The ids of a list's studies, and what they are ordered by."""
    columns = (Study.id, Study.received_at)
    conditions = [] if state is None else [Study.state == state]
    if not attention:
        return select(*columns).where(*conditions).subquery()
    # Of one whose images were deleted nobody can do anything any more.
    conditions.append(Study.state != StudyState.PURGED.value)
    # A problem of the study, images it is missing, or a job of its revision that failed or was skipped: from
    # the few that have something wrong, each part by an index that holds no others.
    in_trouble = select(*columns).where(text(f"({STUDY_IN_TROUBLE})"), *conditions)
    badly = [JobState.FAILED.value, JobState.SKIPPED.value]
    of_revision = (Job.study_id == Study.id) & (Job.revision == Study.revision)
    ended_badly = select(*columns).join(Job, of_revision).where(Job.state.in_(badly), *conditions)
    return union(in_trouble, ended_badly).subquery()


def uids(session: Session, study_ids: Iterable[int]) -> dict[int, str]:
    """Study Instance UIDs by row id."""
    rows = session.execute(select(Study.id, Study.study_instance_uid).where(Study.id.in_(set(study_ids))))
    return {study_id: uid for study_id, uid in rows}


def count_by_state(session: Session) -> dict[str, int]:
    """Studies per state."""
    return states.count(session, Study)
