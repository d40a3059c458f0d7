"""Files that came again: the same bytes, other bytes, or in the place of a damaged file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db import events
from db.models import Instance, Study
from db.new_instance import NewInstance

#: Keys that a single statement may name; SQLite allows 32,766 variables.
_CHUNK = 500
#: Longer than a file takes from its last write to the listener's report of it.
_SCAN_MARGIN = timedelta(seconds=10)


def known_paths(session: Session, paths: Sequence[str]) -> set[str]:
    """Those of the paths that have a row."""
    known: set[str] = set()
    for start in range(0, len(paths), _CHUNK):
        known.update(
            session.scalars(select(Instance.path).where(Instance.path.in_(paths[start : start + _CHUNK])))
        )
    return known


def replacements(session: Session, reports: Sequence[NewInstance]) -> list[NewInstance]:
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


def replace(session: Session, values: dict[str, Any]) -> None:
    """Let a row tell of the file that now has its path."""
    del values["duplicates"]
    session.execute(
        update(Instance)
        .where(Instance.path == values["path"])
        .values(**values)
        .execution_options(synchronize_session=False)
    )


def count(session: Session, path: str) -> None:
    """Count that the very same bytes came again."""
    session.execute(update(Instance).where(Instance.path == path).values(duplicates=Instance.duplicates + 1))


def note_conflicts(session: Session, studies: dict[str, Study], fresh: Iterable[NewInstance]) -> None:
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
