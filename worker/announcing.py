"""Announces failed jobs to the destinations of routes that ask for it: silence would be read as "nothing found"."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from db import announcements, jobs, purging, studies
from db.models import Job
from dicom_node import results
from dicom_node.errors import NO_SPACE
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
_UNFORESEEN = "no document can be made of the series' headers"


def announce(bench: Bench, now: datetime) -> int:
    """Make the documents that are due, and their deliveries; how many jobs were looked after.

    May be repeated after a crash at any point: the same failure is the same document. What the disk does
    not let be made is tried again at the next call, and holds up none of the others.
    """
    done, last = 0, 0
    while True:
        with bench.database.read() as session:
            due = announcements.due(session, _BATCH, after=last)
        refusals = [refusal for job_id in due if (refusal := _announce(bench, job_id, now)) is not None]
        done += len(due) - len(refusals)
        for words, count in Counter(refusal.strerror for refusal in refusals).items():
            logger.warning("failed jobs to announce later: %s; the storage does not work: %s", count, words)
        if not refusals or any(refusal.errno in NO_SPACE for refusal in refusals):
            return done
        # Who waits behind jobs whose own folders cannot be used would wait for good.
        last = due[-1]


def _announce(bench: Bench, job_id: int, now: datetime) -> OSError | None:
    """Announce one job; what the disk said where it refused, and the job is as before."""
    with bench.database.write() as session:
        job = jobs.get(session, job_id)
        against = announcements.against(session, job)
        paths = [bench.spool_root / row.path for row in studies.instances_of(session, job.series_id)]
        if paths:
            # Its folder may be doomed by an earlier purge; what is written there now must stay.
            purging.spare_results(session, job.identity)
    try:
        made, against = (None, against) if against else _make(bench, job, paths)
    except OSError as error:
        return error
    note = announcements.nowhere(against) if against else ""
    row = records.result_object(made, bench.results_root) if made is not None else None
    with bench.database.write() as session:
        if announcements.record(session, job_id, failed_at=job.finished_at, made=row, note=note, at=now):
            logger.warning("job %s failed; %s", job_id, note or f"announced: {', '.join(job.announce_to)}")
    return None


def _make(bench: Bench, job: Job, paths: Sequence[Path]) -> tuple[ResultFile | None, str]:
    """The document, or why there is none. Raises OSError where the disk refuses it."""
    if job.reason in _NOBODY_S:
        return None, _NO_NAME
    try:
        return _document(bench, job, paths)
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        # It lies in these headers, and would be so each time: everybody else is still to be told.
        logger.exception("job %s cannot be announced", job.id)
        return None, f"{_UNFORESEEN} ({type(error).__name__}); the log of the sweep has the details"


def _document(bench: Bench, job: Job, paths: Sequence[Path]) -> tuple[ResultFile | None, str]:
    """The document of what the series' headers say, and why it is not to be sent."""
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
