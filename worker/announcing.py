"""Announces failed jobs to the destinations of routes that ask for it: silence would be read as "nothing found"."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from db import announcements, jobs, purging, studies
from db.models import Job
from dicom_node import results
from dicom_node.results import Failure, ResultFile, not_performed
from engines.findings import ModelIdentity
from worker import records, version
from worker.bench import Bench

logger = logging.getLogger(__name__)

#: Jobs that are looked at in one go.
_BATCH = 20
#: Reasons that leave it open whose images these are: a document would bear one patient's name.
_NOBODY_S = ("mixed-patient", "mixed-study", "mixed-series")
_NO_NAME = "it cannot be said whose images they are"
_NO_HEADER = "no file of the series has a readable header, so that nothing says whose it is"


def announce(bench: Bench, now: datetime) -> int:
    """Make the documents that are due, and their deliveries; how many jobs were looked after.

    May be repeated after a crash at any point: the same failure is the same document.
    """
    with bench.database.read() as session:
        due = announcements.due(session, _BATCH)
    for job_id in due:
        _announce(bench, job_id, now)
    return len(due)


def _announce(bench: Bench, job_id: int, now: datetime) -> None:
    with bench.database.write() as session:
        job = jobs.get(session, job_id)
        against = announcements.against(session, job)
        paths = [bench.spool_root / row.path for row in studies.instances_of(session, job.series_id)]
        if paths:
            # Its folder may be doomed by an earlier purge; what is written there now must stay.
            purging.spare_results(session, job.identity)
    made, against = (None, against) if against else _make(bench, job, paths)
    note = announcements.nowhere(against) if against else ""
    row = records.result_object(made, bench.results_root) if made is not None else None
    with bench.database.write() as session:
        if announcements.record(session, job_id, failed_at=job.finished_at, made=row, note=note, at=now):
            to = against or ", ".join(job.announce_to)
            logger.warning("job %s failed; announced: %s", job_id, to)


def _make(bench: Bench, job: Job, paths: Sequence[Path]) -> tuple[ResultFile | None, str]:
    """The document, or why there is none."""
    if job.reason in _NOBODY_S:
        return None, _NO_NAME
    headers = not_performed.headers_of(paths)
    if not headers:
        return None, _NO_HEADER
    failure = Failure(
        headers=headers,
        job_identity=job.identity,
        model=_model(bench, job),
        created_at=job.created_at,
        secondread_version=version.VERSION,
        reason=job.reason,
        error=job.error,
    )
    made = results.make_failure(failure, bench.results_root / job.identity)
    return made, made.problem


def _model(bench: Bench, job: Job) -> ModelIdentity:
    """The model as its package says it, or where that is gone, as the job does."""
    package = bench.shelf.packages.get(job.model)
    if package is not None and package.digest == job.model_digest:
        return package.identity
    return ModelIdentity(
        name=job.model, version=job.model_version, manufacturer="unknown", digest=job.model_digest
    )
