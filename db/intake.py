"""Intake: rows for the files that the listener put into the spool, in batches."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from db import duplicates, events, guarded, parents, states
from db.base import insert_missing
from db.models import Instance, Study
from db.new_instance import NewInstance
from db.states import StudyState


def record_instances(session: Session, instances: Sequence[NewInstance]) -> None:
    """Write rows for received files; safe to repeat, and safe beside other processes.

    Only the count of duplicates grows when a batch is repeated.

    New images of a study that was READY or DONE open a new revision of it; so do files that took the
    place of damaged or lost ones. What the loop guard keeps from the models moves nothing.
    """
    if not instances:
        return
    studies = parents.ensure_studies(session, instances)
    series = parents.ensure_series(session, instances, studies)
    results = guarded.mark(session, instances, studies, series)
    known = duplicates.known_paths(session, [instance.path for instance in instances])
    replaced = duplicates.replacements(
        session, [instance for instance in instances if instance.path in known]
    )
    fresh: dict[str, NewInstance] = {}
    again: list[str] = []
    for instance in instances:
        if instance.path not in known and instance.path not in fresh:
            fresh[instance.path] = instance
        elif instance.duplicate:
            again.append(instance.path)
    sound = [instance for instance in fresh.values() if not instance.conflicting]
    images = [
        instance
        for instance in [*sound, *replaced]
        if series[studies[instance.study_instance_uid].id, instance.series_instance_uid] not in results
    ]
    _reopen(session, studies, images)
    rows = [
        _instance_row(instance, series, studies[instance.study_instance_uid]) for instance in fresh.values()
    ]
    insert_missing(session, Instance, rows, ["path"])
    for instance in replaced:
        duplicates.replace(session, _instance_row(instance, series, studies[instance.study_instance_uid]))
    for uid in sorted({instance.study_instance_uid for instance in replaced}):
        text = "files that were damaged or gone came again"
        events.note(session, "file-replaced", text, study_id=studies[uid].id)
    for path in again:
        duplicates.count(session, path)
    duplicates.note_conflicts(session, studies, fresh.values())


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
        "patient_id": parents.clean(instance.patient_id, 64),
        "association_id": instance.association_id,
        "received_at": instance.received_at,
        "revision": study.revision,
        "conflicting": instance.conflicting,
        "duplicates": 0,
    }


def paths_without_rows(session: Session, paths: Sequence[str]) -> list[str]:
    """Those of the paths that no row knows, in their order."""
    known = duplicates.known_paths(session, paths)
    return [path for path in paths if path not in known]
