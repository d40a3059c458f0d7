"""Purging: which studies may lose their files, the transaction that dooms these, and what is still doomed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, delete, func, insert, literal, or_, select, text, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from db import job_series, states, studies
from db.base import UtcDateTime
from db.models import Delivery, DoomedFile, Instance, Job, ResultObject, Series, Study
from db.models.answers import UNCOMMITTED
from db.states import JOB_ENDED, DeliveryState, JobState, StudyState

#: Folders of the storage: what the paths of instances, and those of results, are relative to.
SPOOL, RESULTS = "spool", "results"
#: Keys that a single statement may name; SQLite allows 32,766 variables.
_CHUNK = 500
#: A delivery of these states is owed; so is one that was sent and must be committed to.
_OWED = (DeliveryState.PENDING.value, DeliveryState.DEAD.value)


@dataclass(frozen=True, kw_only=True, slots=True)
class Holding:
    """What a study has on disk, by its rows. Two that are equal: nothing arrived in between."""

    images: int
    #: How often images came again.
    duplicates: int
    #: Bytes of images and results.
    size: int


def oldest(session: Session, *, quiet_before: datetime, limit: int) -> list[Study]:
    """Finished and delivered studies, the one first whose last image is oldest.

    None whose last image came, or whose last job ended, after `quiet_before`.
    """
    # Studies that something speaks against are few and found by indexes, whichever study comes next.
    busy = _unended_jobs().with_only_columns(Job.study_id)
    owing = _owed_deliveries().with_only_columns(Job.study_id)
    return list(
        session.scalars(
            select(Study)
            .where(
                Study.state == StudyState.DONE.value,
                Study.last_instance_at < quiet_before,
                or_(Study.done_at.is_(None), Study.done_at < quiet_before),
                Study.id.not_in(busy),
                Study.id.not_in(owing),
            )
            .order_by(Study.last_instance_at, Study.id)
            .limit(limit)
        )
    )


def with_files(session: Session, *, last_before: datetime) -> Iterator[Study]:
    """Every study that has files and whose last image came before a time, oldest first."""
    position: ColumnElement[bool] = literal(True)
    while True:
        page = session.scalars(
            select(Study)
            .where(Study.state != StudyState.PURGED.value, Study.last_instance_at < last_before, position)
            .order_by(Study.last_instance_at, Study.id)
            .limit(_CHUNK)
        ).all()
        if not page:
            return
        yield from page
        at, study_id = page[-1].last_instance_at, page[-1].id
        later = Study.last_instance_at > at
        position = or_(later, and_(Study.last_instance_at == at, Study.id > study_id))


def held_back(session: Session, study: Study) -> str:
    """Why a study's files may not be deleted, in words; "" where they may."""
    if study.state == StudyState.PURGED:
        return f"its files were deleted on {_day(study.purged_at)}"
    if study.state == StudyState.RECEIVING:
        return "it is still receiving"
    job_id = session.scalar(_unended_jobs().where(Job.study_id == study.id).limit(1))
    if job_id is not None or study.state != StudyState.DONE:
        return f"job {job_id} has not ended" if job_id is not None else "it is not done"
    owed = session.execute(
        _owed_deliveries()
        .add_columns(Delivery.state, Delivery.destination, Job.id)
        .where(Job.study_id == study.id)
        .order_by(Delivery.id)
    ).all()
    if not owed:
        return ""
    dead = [row for row in owed if row[1] == DeliveryState.DEAD.value]
    delivery_id, state, destination, job_id = (dead or owed)[0]
    if dead:
        return (
            f"delivery {delivery_id} to {destination} is dead: retry it, or cancel job {job_id} "
            "where its result is not to be sent any more"
        )
    missing = "is not committed to" if state == DeliveryState.SENT.value else "has not been sent"
    return f"delivery {delivery_id} to {destination} {missing} yet"


def _unended_jobs() -> Select[int]:
    """Jobs, of any revision, that have not ended."""
    return select(Job.id).where(Job.state.in_([state.value for state in JobState if state not in JOB_ENDED]))


def _owed_deliveries() -> Select[int]:
    """Deliveries that must not be lost: all but those of cancelled jobs that nobody sends just now."""
    return (
        select(Delivery.id)
        .join(ResultObject, ResultObject.id == Delivery.result_id)
        .join(Job, Job.id == ResultObject.job_id)
        .where(
            or_(Delivery.state.in_(_OWED), text(UNCOMMITTED)),
            or_(Job.state != JobState.CANCELLED.value, Delivery.lease_until.is_not(None)),
        )
    )


def holding(session: Session, study_id: int) -> Holding:
    """What a study has on disk, by its rows."""
    images, duplicates, size = session.execute(
        select(
            func.count(Instance.id),
            func.coalesce(func.sum(Instance.duplicates), 0),
            func.coalesce(func.sum(Instance.size), 0),
        )
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study_id)
    ).one()
    made = session.scalar(
        select(func.coalesce(func.sum(ResultObject.size), 0))
        .join(Job, Job.id == ResultObject.job_id)
        .where(Job.study_id == study_id, ResultObject.purged_at.is_(None))
    )
    return Holding(images=images, duplicates=int(duplicates), size=int(size) + int(made or 0))


def total_size(session: Session) -> int:
    """Bytes of all images and results; looks at every row of them."""
    images = session.scalar(select(func.sum(Instance.size)))
    made = session.scalar(select(func.sum(ResultObject.size)).where(ResultObject.purged_at.is_(None)))
    return int(images or 0) + int(made or 0)


def _count_images(session: Session, study_id: int) -> int:
    """How many images of the patient a study has: no results, and each once."""
    images = (
        select(func.count(Instance.id))
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id == study_id, Series.guarded == "", Instance.conflicting.is_(False))
    )
    return session.scalar(images) or 0


def image_paths(session: Session, study_id: int) -> list[str]:
    """The paths of a study's images, relative to the spool."""
    return list(
        session.scalars(
            select(Instance.path)
            .join(Series, Series.id == Instance.series_id)
            .where(Series.study_id == study_id)
            .order_by(Instance.path)
        )
    )


def doom(session: Session, study_id: int, *, known: Holding, unchanged_since: datetime, at: datetime) -> bool:
    """DONE -> PURGED: the study's files are doomed, and no other row names them any more.

    `known` is what the study held when its files were looked at, `unchanged_since` when the newest of
    them changed. False, and nothing is changed, where something came or began since.
    """
    studies.lock(session, study_id)
    study = session.get_one(Study, study_id, populate_existing=True)
    if held_back(session, study) or holding(session, study_id) != known:
        return False
    # A part of it may have come again since an earlier purge: the whole is what it once was.
    images = max(_count_images(session, study_id), study.purged_instances)
    values = {"purged_at": at, "purged_instances": images}
    if not states.advance(session, Study, study_id, StudyState.DONE, StudyState.PURGED, **values):
        return False
    of_study = select(Series.id).where(Series.study_id == study_id)
    ours = select(Job.id).where(Job.study_id == study_id)
    since = literal(unchanged_since, UtcDateTime())
    for paths in (
        select(literal(f"{SPOOL}/").concat(Instance.path), since).where(Instance.series_id.in_(of_study)),
        # A job's whole folder: pictures, and what attempts left that never came to an end.
        select(literal(f"{RESULTS}/").concat(Job.identity), since).where(Job.study_id == study_id),
    ):
        # One that came anew after an earlier purge may be known as doomed still.
        stale = DoomedFile.path.in_(paths.with_only_columns(paths.selected_columns[0]))
        session.execute(delete(DoomedFile).where(stale).execution_options(synchronize_session=False))
        session.execute(insert(DoomedFile).from_select(["path", "unchanged_since"], paths))
    session.execute(
        update(ResultObject)
        .where(ResultObject.job_id.in_(ours), ResultObject.purged_at.is_(None))
        .values(purged_at=at)
        .execution_options(synchronize_session=False)
    )
    session.execute(
        delete(Instance).where(Instance.series_id.in_(of_study)).execution_options(synchronize_session=False)
    )
    return True


def carry_answers(session: Session, study: Study) -> None:
    """Let the answers about series whose images were deleted, and did not come again, stay those of the study.

    Of several series it is enough that one did not come again: the rest cannot be answered about anew.
    """
    if study.purged_at is None:
        return
    session.execute(
        update(Job)
        .where(
            Job.study_id == study.id,
            Job.revision == study.revision - 1,
            Job.state == JobState.DONE.value,
            job_series.lacks_images(),
        )
        .values(revision=study.revision)
        .execution_options(synchronize_session=False)
    )


def doomed(session: Session, *, after: int, limit: int) -> list[DoomedFile]:
    """Doomed files in the order in which they were doomed, beginning after a row's id."""
    return list(
        session.scalars(select(DoomedFile).where(DoomedFile.id > after).order_by(DoomedFile.id).limit(limit))
    )


def count_doomed(session: Session) -> int:
    """How many files wait for their deletion."""
    return session.scalar(select(func.count()).select_from(DoomedFile)) or 0


def doomed_among(session: Session, paths: Sequence[str]) -> set[str]:
    """Those of the paths, relative to the spool, whose files wait for their deletion."""
    wanted = [f"{SPOOL}/{path}" for path in paths]
    found = _among(session, DoomedFile.path, wanted)
    return {path.removeprefix(f"{SPOOL}/") for path in found}


def recorded_among(session: Session, rows: Sequence[DoomedFile]) -> set[int]:
    """Ids of those doomed files that an instance's row names again."""
    paths = {row.path.removeprefix(f"{SPOOL}/"): row.id for row in rows if row.path.startswith(f"{SPOOL}/")}
    return {paths[path] for path in _among(session, Instance.path, sorted(paths))}


def _among(session: Session, column: InstrumentedAttribute[str], wanted: Sequence[str]) -> set[str]:
    """Those of the values that a column holds."""
    found: set[str] = set()
    for start in range(0, len(wanted), _CHUNK):
        found.update(session.scalars(select(column).where(column.in_(wanted[start : start + _CHUNK]))))
    return found


def lock_doomed(session: Session, doomed_id: int) -> bool:
    """Keep others from sparing a doomed folder until this transaction ends; False where one has."""
    found = select(DoomedFile.id).where(DoomedFile.id == doomed_id).with_for_update()
    return session.scalar(found) is not None


def forget(session: Session, doomed_ids: Sequence[int]) -> None:
    """Doomed files that are gone, or that came anew."""
    for start in range(0, len(doomed_ids), _CHUNK):
        chunk = DoomedFile.id.in_(doomed_ids[start : start + _CHUNK])
        session.execute(delete(DoomedFile).where(chunk).execution_options(synchronize_session=False))


def spare_results(session: Session, identity: str) -> None:
    """Let a job's folder stay: it is about to write into it again."""
    session.execute(
        delete(DoomedFile)
        .where(DoomedFile.path == f"{RESULTS}/{identity}")
        .execution_options(synchronize_session=False)
    )


def _day(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d}" if at else "an unknown day"
