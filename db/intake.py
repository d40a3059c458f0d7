"""Intake: rows for the files that the listener put into the spool, in batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, tuple_, update
from sqlalchemy.orm import Session

from db import events, states
from db.base import insert_missing
from db.models import Instance, Series, Study
from db.states import StudyState

#: Keys that a single statement may name; SQLite allows 32,766 variables.
_CHUNK = 500
#: Longer than a file takes from its last write to the listener's report of it.
_SCAN_MARGIN = timedelta(seconds=10)


@dataclass(frozen=True, kw_only=True, slots=True)
class NewInstance:
    """A file of the spool that needs a row."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    size: int
    sha256: str
    patient_id: str
    modality: str
    association_id: str | None
    received_at: datetime
    conflicting: bool
    duplicate: bool
    #: The routing attributes of the file, where this is the first of its series that we read.
    attributes: dict[str, Any] | None = None


def record_instances(session: Session, instances: Sequence[NewInstance]) -> None:
    """Write rows for received files; safe to repeat, and safe beside other processes.

    Only the count of duplicates grows when a batch is repeated.

    New images of a study that was READY or DONE open a new revision of it; so do files that took the
    place of damaged or lost ones.
    """
    if not instances:
        return
    studies = _ensure_studies(session, instances)
    series = _ensure_series(session, instances, studies)
    known = _known_paths(session, [instance.path for instance in instances])
    replaced = _replacements(session, [instance for instance in instances if instance.path in known])
    fresh: dict[str, NewInstance] = {}
    again: list[str] = []
    for instance in instances:
        if instance.path not in known and instance.path not in fresh:
            fresh[instance.path] = instance
        elif instance.duplicate:
            again.append(instance.path)
    sound = [instance for instance in fresh.values() if not instance.conflicting]
    _reopen(session, studies, [*sound, *replaced])
    rows = [
        _instance_row(instance, series, studies[instance.study_instance_uid]) for instance in fresh.values()
    ]
    insert_missing(session, Instance, rows, ["path"])
    for instance in replaced:
        _replace(session, _instance_row(instance, series, studies[instance.study_instance_uid]))
    for uid in sorted({instance.study_instance_uid for instance in replaced}):
        text = "files that were damaged or gone came again"
        events.note(session, "file-replaced", text, study_id=studies[uid].id)
    for path in again:
        _count_duplicate(session, path)
    _note_conflicts(session, studies, fresh.values())


def _ensure_studies(session: Session, instances: Sequence[NewInstance]) -> dict[str, Study]:
    """Rows of the studies that the instances name, locked until commit, made where missing."""
    first: dict[str, NewInstance] = {}
    for instance in instances:
        if instance.study_instance_uid not in first or instance.attributes:
            first[instance.study_instance_uid] = instance
    # In one order in every process: two that insert the same keys crosswise would wait for each other.
    wanted = [_study_row(first[uid]) for uid in sorted(first)]
    insert_missing(session, Study, wanted, ["study_instance_uid"])
    rows = session.scalars(
        select(Study)
        .where(Study.study_instance_uid.in_(first))
        .order_by(Study.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return {study.study_instance_uid: study for study in rows}


def _study_row(instance: NewInstance) -> dict[str, Any]:
    """Column values of a new study."""
    attributes = instance.attributes or {}
    return {
        "study_instance_uid": instance.study_instance_uid,
        "state": StudyState.RECEIVING.value,
        "revision": 1,
        "patient_id": _clean(instance.patient_id, 64),
        "accession_number": _text(attributes, "AccessionNumber", 64),
        "study_date": _text(attributes, "StudyDate", 16),
        "study_description": _text(attributes, "StudyDescription", 128),
        "received_at": instance.received_at,
        "last_instance_at": instance.received_at,
        "problem": "",
    }


def _text(attributes: dict[str, Any], keyword: str, length: int) -> str:
    """An attribute as text that fits its column; "" where it is missing or not text."""
    value = attributes.get(keyword)
    return _clean(str(value), length) if isinstance(value, str | int | float) else ""


def _clean(text: str, length: int) -> str:
    """The text as PostgreSQL takes it: no NUL, nothing that UTF-8 lacks, no longer than its column."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()[:length]


def _ensure_series(
    session: Session, instances: Sequence[NewInstance], studies: dict[str, Study]
) -> dict[tuple[int, str], int]:
    """Ids of the series that the instances name, by (study id, Series Instance UID)."""
    wanted: dict[tuple[int, str], dict[str, Any]] = {}
    for instance in instances:
        key = (studies[instance.study_instance_uid].id, instance.series_instance_uid)
        attributes = instance.attributes
        if key not in wanted or (attributes and not wanted[key]["attributes"]):
            wanted[key] = {
                "study_id": key[0],
                "series_instance_uid": key[1],
                "modality": _clean(instance.modality, 16),
                "series_description": _text(attributes or {}, "SeriesDescription", 128),
                "attributes": attributes,
            }
    insert_missing(session, Series, list(wanted.values()), ["study_id", "series_instance_uid"])
    for values in wanted.values():
        if values["attributes"]:
            _fill_attributes(session, values)
    found = session.execute(
        select(Series.id, Series.study_id, Series.series_instance_uid).where(
            tuple_(Series.study_id, Series.series_instance_uid).in_(list(wanted))
        )
    )
    return {(study_id, uid): series_id for series_id, study_id, uid in found}


def _fill_attributes(session: Session, values: dict[str, Any]) -> None:
    """Give a series that was made without attributes those of a later file."""
    session.execute(
        update(Series)
        .where(
            Series.study_id == values["study_id"],
            Series.series_instance_uid == values["series_instance_uid"],
            Series.attributes.is_(None),
        )
        .values(attributes=values["attributes"], series_description=values["series_description"])
        .execution_options(synchronize_session=False)
    )


def _known_paths(session: Session, paths: Sequence[str]) -> set[str]:
    """Those of the paths that have a row."""
    known: set[str] = set()
    for start in range(0, len(paths), _CHUNK):
        known.update(
            session.scalars(select(Instance.path).where(Instance.path.in_(paths[start : start + _CHUNK])))
        )
    return known


def _replacements(session: Session, reports: Sequence[NewInstance]) -> list[NewInstance]:
    """Of the reports of known paths those of files that came anew, the last one for each path.

    The listener reports a path as no duplicate only when it has just put the file there. A batch that is
    repeated says the same time as the row; a start-up scan names no association.
    """
    latest: dict[str, NewInstance] = {}
    for report in reports:
        if report.duplicate or report.conflicting or report.association_id is None:
            continue
        known = latest.get(report.path)
        if known is None or report.received_at > known.received_at:
            latest[report.path] = report
    paths = sorted(latest)
    rows: dict[str, tuple[datetime, str | None]] = {}
    for start in range(0, len(paths), _CHUNK):
        chunk = Instance.path.in_(paths[start : start + _CHUNK])
        found = session.execute(
            select(Instance.path, Instance.received_at, Instance.association_id).where(chunk)
        )
        rows.update({path: (at, association) for path, at, association in found})
    return [latest[path] for path in paths if _is_newer(latest[path], *rows[path])]


def _is_newer(report: NewInstance, received_at: datetime, association_id: str | None) -> bool:
    # A scan may have seen the very file that the listener reports a moment later; its time is the file's.
    margin = _SCAN_MARGIN if association_id is None else timedelta(0)
    return report.received_at > received_at + margin


def _replace(session: Session, values: dict[str, Any]) -> None:
    """Let a row tell of the file that now has its path."""
    del values["duplicates"]
    session.execute(
        update(Instance)
        .where(Instance.path == values["path"])
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def _count_duplicate(session: Session, path: str) -> None:
    """Count that the very same bytes came again."""
    session.execute(update(Instance).where(Instance.path == path).values(duplicates=Instance.duplicates + 1))


def _reopen(session: Session, studies: dict[str, Study], fresh: Sequence[NewInstance]) -> None:
    """Move the studies' clocks on; one that was complete becomes a new revision."""
    newest: dict[str, datetime] = {}
    for instance in fresh:
        uid = instance.study_instance_uid
        newest[uid] = max(instance.received_at, newest.get(uid, instance.received_at))
        studies[uid].arrivals += 1
    for uid, at in newest.items():
        study = studies[uid]
        if study.state != StudyState.RECEIVING:
            states.advance(
                session,
                Study,
                study.id,
                StudyState(study.state),
                StudyState.RECEIVING,
                revision=study.revision + 1,
                ready_at=None,
                done_at=None,
            )
            events.note(session, "late-images", "images came after it was complete", study_id=study.id)
            session.refresh(study)
        study.last_instance_at = max(study.last_instance_at, at)


def _instance_row(instance: NewInstance, series: dict[tuple[int, str], int], study: Study) -> dict[str, Any]:
    """Column values of a new instance."""
    return {
        "series_id": series[study.id, instance.series_instance_uid],
        "sop_instance_uid": instance.sop_instance_uid,
        "sop_class_uid": instance.sop_class_uid,
        "transfer_syntax_uid": instance.transfer_syntax_uid,
        "path": instance.path,
        "size": instance.size,
        "sha256": instance.sha256,
        "patient_id": _clean(instance.patient_id, 64),
        "association_id": instance.association_id,
        "received_at": instance.received_at,
        "revision": study.revision,
        "conflicting": instance.conflicting,
        "duplicates": 0,
    }


def _note_conflicts(session: Session, studies: dict[str, Study], fresh: Iterable[NewInstance]) -> None:
    """Say which SOP Instance UIDs came with other bytes than before."""
    for instance in fresh:
        if instance.conflicting:
            events.note(
                session,
                "conflicting-duplicate",
                f"SOP Instance UID {instance.sop_instance_uid} came again with other bytes: "
                "the first is kept and analysed, the second is kept beside it",
                study_id=studies[instance.study_instance_uid].id,
                association_id=instance.association_id,
            )


def paths_without_rows(session: Session, paths: Sequence[str]) -> list[str]:
    """Those of the paths that no row knows, in their order."""
    known = _known_paths(session, paths)
    return [path for path in paths if path not in known]
