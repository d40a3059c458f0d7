"""What comes again: the same bytes, other bytes under the same UID, or a file in a damaged one's place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session, aliased

from db import events, parents
from db.models import Instance, Series, Study
from db.new_instance import NewInstance

#: Keys that a single statement may name; SQLite allows 32,766 variables.
_CHUNK = 500


class Files:
    """The rows of the files that a batch speaks of, as its reports change them one after another.

    Of two files of one image the first is analysed; with `keep_last` the one that came last.
    """

    def __init__(self, rows: Iterable[Instance], *, keep_last: bool) -> None:
        self._keep_last = keep_last
        self._by_path: dict[str, Instance] = {}
        self._by_image: defaultdict[tuple[int, str], list[Instance]] = defaultdict(list)
        for row in rows:
            self._know(row)
        #: Rows that are not in the database yet.
        self.fresh: list[Instance] = []
        #: Reports of files that are analysed from now on.
        self.arrived: list[NewInstance] = []
        #: Those of them whose bytes took the place of others.
        self.changed: list[NewInstance] = []
        #: Reports of files that took the place of damaged or lost ones.
        self.replaced: list[NewInstance] = []
        #: Reports of other bytes than those known under their SOP Instance UID.
        self.conflicts: list[NewInstance] = []

    def __getitem__(self, path: str) -> Instance:
        return self._by_path[path]

    def take(self, report: NewInstance, series_id: int) -> None:
        """Let a report change the rows. Reports must come in the order in which their files did.

        A batch that is repeated changes nothing, nor does a start-up scan that saw what the listener reports.
        """
        row = self._by_path.get(report.path)
        if row is None:
            row = Instance(series_id=series_id, changes=0, duplicates=0, conflicting=report.conflicting)
            _describe(row, report)
            self._know(row)
            self.fresh.append(row)
            self._settle(row, report, is_new=True, is_other=False)
        elif _is_another_file(report, row):
            is_other = report.sha256 != row.sha256
            row.changes += is_other
            _describe(row, report)
            self.replaced.append(report)
            self._settle(row, report, is_new=True, is_other=is_other)
        elif report.duplicate:
            row.duplicates += 1
            self._settle(row, report, is_new=False, is_other=False)

    def _know(self, row: Instance) -> None:
        self._by_path[row.path] = row
        self._by_image[row.series_id, row.sop_instance_uid].append(row)

    def _settle(self, row: Instance, report: NewInstance, *, is_new: bool, is_other: bool) -> None:
        """Say which file of the image is analysed from now on, and remember what that means."""
        takes_over = self._keep_last and self._comes_last(row, report)
        if takes_over or (is_new and row.conflicting):
            self.conflicts.append(report)
        if not row.conflicting and (is_new or takes_over):
            self.arrived.append(report)
            if takes_over or is_other:
                self.changed.append(report)

    def _comes_last(self, row: Instance, report: NewInstance) -> bool:
        """Let the row be analysed where its file came last; whether another one was analysed until now."""
        row.received_at = max(row.received_at, report.received_at)
        image = self._by_image[row.series_id, row.sop_instance_uid]
        rival = next((other for other in image if other is not row and not other.conflicting), None)
        row.conflicting = rival is not None and row.received_at <= rival.received_at
        if rival is None or row.conflicting:
            return False
        rival.conflicting = True
        row.changes = max(row.changes, rival.changes) + 1
        return True


def _is_another_file(report: NewInstance, row: Instance) -> bool:
    """Whether the report's path has another file than the row tells of.

    The listener reports a path as no duplicate only when it has just put the file there; a start-up scan
    names no association. Both say the file's own time, so that a batch that is repeated is not newer.
    """
    put_there = not report.duplicate and report.association_id is not None
    return report.received_at > row.received_at and (put_there or report.sha256 != row.sha256)


def _describe(row: Instance, report: NewInstance) -> None:
    """Let a row tell of the report's file."""
    row.path = report.path
    row.sop_instance_uid = report.sop_instance_uid
    row.sop_class_uid = report.sop_class_uid
    row.transfer_syntax_uid = report.transfer_syntax_uid
    row.size = report.size
    row.sha256 = report.sha256
    row.patient_id = parents.clean(report.patient_id, 64)
    row.association_id = report.association_id
    row.received_at = report.received_at


def known(session: Session, places: Sequence[tuple[NewInstance, int]], *, keep_last: bool) -> Files:
    """The rows of the reports' files, each report given with the id of its series; with `keep_last` also the
    rows of other files of the same images."""
    rows: list[Instance] = []
    for start in range(0, len(places), _CHUNK):
        chunk = places[start : start + _CHUNK]
        wanted = [Instance.path.in_({report.path for report, _ in chunk})]
        if keep_last:
            wanted = [
                Instance.series_id.in_({series_id for _, series_id in chunk}),
                Instance.sop_instance_uid.in_({report.sop_instance_uid for report, _ in chunk}),
            ]
        rows += session.scalars(select(Instance).where(*wanted)).all()
    return Files(rows, keep_last=keep_last)


def known_paths(session: Session, paths: Sequence[str]) -> set[str]:
    """Those of the paths that have a row."""
    found: set[str] = set()
    for start in range(0, len(paths), _CHUNK):
        found.update(
            session.scalars(select(Instance.path).where(Instance.path.in_(paths[start : start + _CHUNK])))
        )
    return found


def rivals(session: Session) -> list[dict[str, datetime]]:
    """The files of each image that has several: when each came last, as far as its row knows, by path."""
    aside = aliased(Instance)
    same_image = (aside.series_id == Instance.series_id) & (
        aside.sop_instance_uid == Instance.sop_instance_uid
    )
    rows = session.execute(
        select(Instance.series_id, Instance.sop_instance_uid, Instance.path, Instance.received_at)
        .join(aside, same_image)
        .where(aside.conflicting.is_(True))
        .distinct()
    )
    images: defaultdict[tuple[int, str], dict[str, datetime]] = defaultdict(dict)
    for series_id, sop_instance_uid, path, received_at in rows:
        images[series_id, sop_instance_uid][path] = received_at
    return list(images.values())


def note(session: Session, files: Files, studies: dict[str, Study], *, keep_last: bool) -> None:
    """Say once for each study, and association, which images came again in a way that matters."""
    for study_id in sorted({studies[report.study_instance_uid].id for report in files.replaced}):
        text = "files that were damaged or gone came again"
        events.note(session, "file-replaced", text, study_id=study_id)
    kept = "the last ones are analysed" if keep_last else "the first ones are analysed"
    groups: defaultdict[tuple[int, str | None], list[str]] = defaultdict(list)
    for report in files.conflicts:
        place = (studies[report.study_instance_uid].id, report.association_id)
        groups[place].append(report.sop_instance_uid)
    for (study_id, association_id), uids in groups.items():
        others = f" and {len(uids) - 1} others" if len(uids) > 1 else ""
        text = f"SOP Instance UID {uids[0]}{others} came again with other bytes: {kept}, all are kept"
        events.note(session, "conflicting-duplicate", text, study_id=study_id, association_id=association_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class Count:
    """The files of one series, apart as a PACS would count them."""

    #: Files that are analysed: one for each image.
    images: int = 0
    #: How often the very same bytes came again.
    repeated: int = 0
    #: Those of images of which other bytes are analysed.
    set_aside: int = 0


def count(session: Session, study_ids: Sequence[int]) -> defaultdict[int, Count]:
    """The files of some studies by series, by row id."""
    aside = case((Instance.conflicting.is_(True), 1), else_=0)
    rows = session.execute(
        select(
            Instance.series_id,
            func.count(Instance.id),
            func.sum(Instance.duplicates),
            func.sum(aside),
        )
        .join(Series, Series.id == Instance.series_id)
        .where(Series.study_id.in_(study_ids))
        .group_by(Instance.series_id)
    )
    found = {
        series_id: Count(images=files - set_aside, repeated=repeated, set_aside=set_aside)
        for series_id, files, repeated, set_aside in rows
    }
    return defaultdict(Count, found)
