"""The read model: what the commands, the page, the API and the metrics say, so that they never disagree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import Any

from sqlalchemy.orm import Session

from db import (
    associations,
    decisions,
    deliveries,
    duplicates,
    events,
    figures,
    job_series,
    jobs,
    results,
    studies,
    supersession,
)
from db.models import Decision, Delivery, Event, Job, Series, Study
from db.priorities import Priority
from db.states import DeliveryState, JobState, StudyState
from worker import completeness, evidence, heartbeat, parameters, views
from worker.report_views import ReportView


def study_lines(session: Session, rows: list[Study]) -> list[views.StudyLine]:
    """Studies as lines."""
    files = duplicates.count(session, [row.id for row in rows])
    now = datetime.now(UTC)
    return [_study_line(row, files, now) for row in rows]


def _study_line(row: Study, files: Mapping[int, duplicates.Count], now: datetime) -> views.StudyLine:
    present = [job for job in row.jobs if job.revision == row.revision]
    failed = [job.error for job in present if job.state in ("failed", "skipped") and job.error]
    problems = [evidence.shortfall(row.evidence), *failed]
    # Counted as its PACS does: each image once, and no results of ours that it sent back.
    held = [files[series.id] for series in row.series if not series.guarded]
    changed = max(at for at in (row.done_at, row.ready_at, row.last_instance_at) if at is not None)
    return views.StudyLine(
        study_instance_uid=row.study_instance_uid,
        state=row.state,
        revision=row.revision,
        patient_id=row.patient_id,
        accession_number=row.accession_number,
        study_date=row.study_date,
        description=row.study_description,
        modalities=sorted({series.modality for series in row.series if series.modality}),
        instances=row.purged_instances
        if row.state == StudyState.PURGED
        else sum(each.images for each in held),
        set_aside=sum(each.set_aside for each in held),
        purged_at=row.purged_at,
        guarded=sum(bool(series.guarded) for series in row.series),
        received_at=row.received_at,
        age_seconds=round((now - changed).total_seconds(), 1),
        jobs=dict(Counter(job.state for job in present)),
        problem=row.problem or "; ".join(filter(None, dict.fromkeys(problems))),
    )


def job_line(row: Job) -> views.JobLine:
    """A job as a line."""
    return views.JobLine(**_job_values(row))


def _job_values(row: Job) -> dict[str, Any]:
    end = row.finished_at or datetime.now(UTC)
    return {
        "id": row.id,
        "study_instance_uid": row.study.study_instance_uid,
        "route": row.route,
        "model": row.model,
        "model_version": row.model_version,
        "revision": row.revision,
        "supersedes": row.supersedes_id,
        "state": row.state,
        "priority": Priority(row.priority).word,
        "attempts": row.attempts,
        "created_at": row.created_at,
        "started_at": row.started_at,
        "finished_at": row.finished_at,
        "age_seconds": round((end - row.created_at).total_seconds(), 1),
        "reason": row.reason,
        "error": row.error,
        "engine": row.engine + row.fallback,
    }


def delivery_line(row: Delivery) -> views.DeliveryLine:
    """A delivery as a line."""
    return views.DeliveryLine(
        id=row.id,
        job_id=row.result.job_id,
        kind=row.result.kind,
        sop_instance_uid=row.result.sop_instance_uid,
        destination=row.destination,
        state=row.state,
        attempts=row.attempts,
        next_attempt_at=row.next_attempt_at,
        sent_at=row.sent_at,
        status=_status_text(row.status),
        comment=row.comment,
        warning=row.state in (DeliveryState.SENT, DeliveryState.COMMITTED)
        and bool(row.status and row.comment),
        committed_at=row.committed_at,
        commitment=_commitment(row),
    )


def _commitment(row: Delivery) -> str:
    """How the commitment stands that a delivery waits for; "" where it waits for none."""
    if row.state != DeliveryState.SENT or not row.awaits_commitment:
        return ""
    asked = row.commitment
    if asked is None:
        return "to be asked for"
    if row.next_attempt_at is None:
        return f"asked for {row.commitment_attempts} times, no report yet"
    return f"asked for {row.commitment_attempts} times: {asked.comment}; it is asked for again"


def _status_text(status: int | None) -> str:
    """A status as people read it: HTTP in decimal, DIMSE in hexadecimal. No number is used by both."""
    if status is None:
        return ""
    return str(status) if status in set(HTTPStatus) else f"0x{status:04X}"


def job_detail(session: Session, job_id: int) -> views.JobDetail:
    """Everything about a job. Raises NotFound."""
    row = jobs.get(session, job_id)
    return views.JobDetail(
        **_job_values(row),
        not_before=row.not_before if row.state == JobState.QUEUED else None,
        deadline_at=row.deadline_at,
        identity=row.identity,
        model_digest=row.model_digest,
        parameters=parameters.values(row.parameters),
        series_instance_uid=session.get_one(Series, row.series_id).series_instance_uid,
        roles=job_series.uids(session, row),
        replaced_by=supersession.replaced_by(session, row),
        destinations=[str(name) for name in row.destinations],
        seconds={stage: float(value) for stage, value in (row.seconds or {}).items()},
        notes=[str(note) for note in row.notes or []],
        segments=[
            views.SegmentLine(
                number=segment.number,
                label=segment.label,
                code=f"({segment.code_value}, {segment.code_scheme})",
                voxels=segment.voxels,
            )
            for segment in results.segments_of(session, job_id)
        ],
        measurements=[
            views.MeasurementLine(
                key=measured.key,
                meaning=measured.code_meaning
                + (f", {measured.derivation.lower()}" if measured.derivation else ""),
                code=f"({measured.code_value}, {measured.code_scheme})",
                segment=measured.segment_label,
                value=measured.value,
                unit=measured.unit,
            )
            for measured in results.measurements_of(session, job_id)
        ],
        findings=[
            views.FindingLine(
                key=finding.key,
                meaning=finding.code_meaning,
                code=f"({finding.code_value}, {finding.code_scheme})",
                present=finding.present,
                urgency=finding.urgency,
                explanation=finding.explanation,
            )
            for finding in results.findings_of(session, job_id)
        ],
        report=ReportView.model_validate(row.report) if row.report else None,
        objects=[views.ObjectLine.model_validate(made, from_attributes=True) for made in row.results],
        deliveries=[delivery_line(delivery) for made in row.results for delivery in made.deliveries],
    )


def why(session: Session, study_instance_uid: str) -> views.Why:
    """Everything that is known of a study. Raises NotFound."""
    study = studies.by_uid(session, study_instance_uid)
    files = duplicates.count(session, [study.id])
    uids = {series.id: series.series_instance_uid for series in study.series}
    receiving = study.state == StudyState.RECEIVING
    return views.Why(
        study=study_lines(session, [study])[0],
        series=[
            views.SeriesView(
                series_instance_uid=series.series_instance_uid,
                modality=series.modality,
                description=series.series_description,
                instances=files[series.id].images,
                repeated=files[series.id].repeated,
                set_aside=files[series.id].set_aside,
                guarded=series.guarded,
                complete_at=series.complete_at,
                evidence=series.evidence,
            )
            for series in study.series
        ],
        evidence=study.evidence,
        waiting_for=completeness.waiting_for(session, study, datetime.now(UTC)) if receiving else [],
        decisions=[
            _decision_line(row, uids) for row in decisions.of_revision(session, study.id, study.revision)
        ],
        jobs=[job_detail(session, job.id) for job in study.jobs],
        events=event_lines(session, events.of_study(session, study.id)),
    )


def _decision_line(row: Decision, uids: dict[int, str]) -> views.DecisionLine:
    return views.DecisionLine(
        route=row.route,
        model=row.model,
        series_instance_uid=uids.get(row.series_id or 0, ""),
        matched=row.matched,
        reason=row.reason,
        trace=row.trace,
    )


def event_lines(session: Session, rows: Sequence[Event]) -> list[views.EventLine]:
    """Events as lines."""
    uids = studies.uids(session, [row.study_id for row in rows if row.study_id is not None])
    return [
        views.EventLine(
            at=row.at,
            kind=row.kind,
            message=row.message,
            study_instance_uid=uids.get(row.study_id or 0, ""),
            job_id=row.job_id,
        )
        for row in rows
    ]


def process_lines(session: Session) -> list[views.ProcessLine]:
    """The processes that live, by role."""
    rows = associations.living(session, datetime.now(UTC) - heartbeat.SILENT)
    return [views.ProcessLine.model_validate(row, from_attributes=True) for row in rows]


def snapshot(session: Session) -> views.Snapshot:
    """Counts of everything."""
    now = datetime.now(UTC)
    oldest = figures.oldest_waiting(session)
    roles: dict[str, int] = {}
    for process in associations.living(session, now - heartbeat.SILENT):
        roles[process.role] = roles.get(process.role, 0) + 1
    return views.Snapshot(
        studies=studies.count_by_state(session),
        jobs=jobs.count_by_state(session),
        deliveries=deliveries.count_by_state(session),
        retrying=deliveries.retrying(session),
        processes=roles,
        oldest_job_seconds=(now - oldest).total_seconds() if oldest else 0.0,
    )


def unknown_destination(session: Session, peers: Sequence[str], name: str) -> str:
    """That nothing ever goes to a destination of this name, in words; "" where it is a peer, or was one."""
    if name in peers or deliveries.newest(session, destination=name, limit=1):
        return ""
    return f"no peer is called {name}; peers: {', '.join(sorted(peers))}"


def since(text: str, now: datetime) -> datetime:
    """A point in time as people write it: "7d", "12h", "30m", or a date YYYY-MM-DD (local midnight).

    Raises ValueError.
    """
    units = {"d": "days", "h": "hours", "m": "minutes", "w": "weeks"}
    try:
        if len(text) > 1 and text[-1] in units and text[:-1].isdigit():
            return now - timedelta(**{units[text[-1]]: int(text[:-1])})
        return datetime.fromisoformat(text).astimezone(UTC)
    except OverflowError as error:
        raise ValueError(f"{text} is before the first year") from error
