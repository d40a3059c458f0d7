"""Intake: rows for the files that the listener put into the spool, in batches."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import counts, duplicates, events, guarded, parents, states
from db.base import insert_missing
from db.models import Association, Instance, Study
from db.new_instance import NewInstance
from db.states import StudyState

#: The columns that a new row sets.
_COLUMNS = tuple(column.key for column in Instance.__table__.columns if column.key != "id")


def record_instances(
    session: Session, instances: Sequence[NewInstance], *, keep_last: bool = False
) -> list[NewInstance]:
    """Write rows for received files; safe to repeat, and safe beside other processes.

    Only the count of duplicates grows when a batch is repeated.

    New images of a study that was READY or DONE open a new revision of it; so do files that took the
    place of damaged or lost ones. Where two files have one SOP Instance UID and other bytes, the first
    is analysed; with `keep_last` the one that came last, which then is a new image.

    Returns the reports whose bytes took the place of others that were analysed until now.
    """
    if not instances:
        return []
    reports = sorted(instances, key=lambda instance: instance.received_at)
    studies = parents.ensure_studies(session, reports)
    series = parents.ensure_series(session, reports, studies)
    results = guarded.mark(session, reports, studies, series)
    places = [
        (report, series[studies[report.study_instance_uid].id, report.series_instance_uid])
        for report in reports
    ]
    files = duplicates.known(session, places, keep_last=keep_last)
    for report, series_id in places:
        files.take(report, series_id)
    # What the loop guard keeps from the models moves nothing.
    images = [report for report in files.arrived if files[report.path].series_id not in results]
    images += _of_purged(reports, studies, images)
    _reopen(session, studies, images)
    counts.reopen_series(session, {files[report.path].series_id for report in images})
    revisions = {series_id: studies[report.study_instance_uid].revision for report, series_id in places}
    for row in [*files.fresh, *(files[report.path] for report in files.arrived)]:
        row.revision = revisions[row.series_id]
    rows = [{name: getattr(row, name) for name in _COLUMNS} for row in files.fresh]
    insert_missing(session, Instance, rows, ["path"])
    duplicates.note(session, files, studies, keep_last=keep_last)
    return files.changed


def _of_purged(
    reports: Sequence[NewInstance], studies: dict[str, Study], images: Sequence[NewInstance]
) -> list[NewInstance]:
    """Further reports, of results or of side files, of studies without files: what came must go again, too."""
    purged = {uid for uid, study in studies.items() if study.state == StudyState.PURGED}
    known = {report.path for report in images}
    return [report for report in reports if report.study_instance_uid in purged and report.path not in known]


def _reopen(session: Session, studies: dict[str, Study], fresh: Sequence[NewInstance]) -> None:
    """Move the studies' clocks on; one that was complete becomes a new revision."""
    newest: dict[str, datetime] = {}
    reports: defaultdict[str, list[NewInstance]] = defaultdict(list)
    for instance in fresh:
        uid = instance.study_instance_uid
        reports[uid].append(instance)
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
            _note_late(session, study, reports[uid])
            session.refresh(study)
        study.last_instance_at = max(study.last_instance_at, at)


def _note_late(session: Session, study: Study, reports: Sequence[NewInstance]) -> None:
    """Say how many images began a new revision, and who sent them where that is known; more may follow."""
    carriers = {report.association_id for report in reports if report.association_id is not None}
    named = session.execute(
        select(Association.peer, Association.calling_ae_title).where(Association.id.in_(carriers))
    )
    senders = sorted({peer or calling for peer, calling in named})
    source = f" from {', '.join(senders)}" if senders else ""
    images = "1 image" if len(reports) == 1 else f"{len(reports)} images"
    after = "its files were deleted" if study.state == StudyState.PURGED else "it was complete"
    events.note(session, "late-images", f"{images} so far{source} came after {after}", study_id=study.id)


def paths_without_rows(session: Session, paths: Sequence[str]) -> list[str]:
    """Those of the paths that no row knows, in their order."""
    known = duplicates.known_paths(session, paths)
    return [path for path in paths if path not in known]
