"""A study's journey, top to bottom: receive, close, analyse, deliver, commit.

No function here knows the queue: each takes its collaborators and returns the ids that must follow.
Every one may be repeated after a crash, at any point, and ends in the same rows and the same objects.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from db import decisions, deliveries, intake, jobs, leases, parents, purging, studies, supersession
from db.base import Database
from db.models import Delivery, Job
from db.states import JobState
from dicom_node import results as dicom_results
from dicom_node.errors import CommitmentRefused, SendError, SeriesError
from dicom_node.instance import StoredInstance
from dicom_node.results import report
from dicom_node.results.context import ResultContext
from dicom_node.senders import Destination, Outcome, Verdict
from engines.errors import DeviceLost, EngineError
from worker import (
    antecedents,
    completeness,
    hold,
    limits,
    outcomes,
    parameters,
    pictures,
    profiles,
    receipts,
    records,
    routing,
    stand_in,
    subjects,
    version,
)
from worker import commitment_ledger as ledger
from worker.antecedents import Antecedents
from worker.bench import Analysis, Bench, Post
from worker.hold import Hold
from worker.lease import Lease
from worker.loop_guard import ConfiguredGuard
from worker.replacement import hand_over
from worker.series_files import Files
from worker.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

# 1. Receive: files are in the spool; they get rows ------------------------------------------------


def receive(
    database: Database,
    spool_root: Path,
    instances: Sequence[StoredInstance],
    *,
    guard: ConfiguredGuard,
    read_series: set[tuple[str, str]],
    keep_last: bool = False,
) -> None:
    """Write rows for files that the listener made durable (or that the start-up scan found).

    `read_series` remembers, between calls, the series whose attributes were read already. Of two files of
    one image the first is analysed; with `keep_last` the one that came last.
    """
    rows = []
    seen: set[tuple[str, str]] = set()
    for stored in instances:
        key = (stored.study_instance_uid, stored.series_instance_uid)
        fresh = key not in read_series and key not in seen
        attributes = records.attributes(spool_root / stored.path) if fresh else None
        seen.add(key)
        rows.append(records.new_instance(stored, attributes, guarded=guard.reason(stored, attributes)))
    with database.write() as session:
        changed = intake.record_instances(session, rows, keep_last=keep_last)
        for row in {(row.study_instance_uid, row.series_instance_uid): row for row in changed}.values():
            parents.describe_anew(session, row, records.attributes(spool_root / row.path))
    read_series |= seen


# 2. Close: the study is complete; models are chosen -----------------------------------------------


def close(
    database: Database,
    *,
    routes: Sequence[routing.RouteRule],
    models: dict[str, routing.ModelRule],
    patience: completeness.Patience,
    now: datetime,
    looks: completeness.Looks | None = None,
) -> list[int]:
    """Close studies that are complete, start series that are before their study, and make the jobs.

    `looks` remembers, between calls, which studies are worth a look. Returns the ids of jobs to run.
    """
    follow: list[int] = []
    for study_id in completeness.ripe(database, patience, now, looks or completeness.Looks()):
        with database.write() as session:
            settled = completeness.settle(session, study_id, patience, now)
            if settled is None:
                continue
            made = _route(session, settled, routes, models, now)
            studies.finish_if_ended(session, study_id, now)
        uid = settled.study.study_instance_uid
        logger.info("study %s: %s complete, %s jobs to run", uid, settled.in_words, len(made))
        follow += made
    return follow


def _route(
    session: Session,
    settled: completeness.Settled,
    routes: Sequence[routing.RouteRule],
    models: dict[str, routing.ModelRule],
    now: datetime,
) -> list[int]:
    """Ask the routes about what is complete; write what they said and the jobs they made.

    They may be asked twice about a series: when it was complete, and again with its study.
    """
    study, series_ids, problem = settled.study, settled.series_ids, settled.problem
    by_name = {route.name: route for route in routes}
    wanted: dict[str, dict[str, Any]] = {}
    roles: dict[str, dict[str, int]] = {}
    decisions.forget(session, study.id, study.revision, series_ids)
    several = any(len(model.inputs) > 1 for model in models.values())
    asked, beside = subjects.series_views(session, study, series_ids, with_others=several)
    for decision in routing.decide(routes, models, asked, beside=beside):
        decisions.record(session, records.decision(study, decision, now))
        if not decision.taken:
            continue
        values = records.routed(study, decision, by_name[decision.route], models[decision.model], now)
        if problem:
            values = records.skipped(values, "study-problem", problem, now)
        # Two routes that ask the same of the same images get one job, which serves both.
        earlier = wanted.get(values["identity"], values)
        wanted[values["identity"]] = records.serve_both(earlier, values)
        roles[values["identity"]] = records.roles(decision)
    made = [jobs.create(session, values, roles[identity]) for identity, values in wanted.items()]
    purging.carry_answers(session, study)
    keep = [] if problem else [job.id for job in made]
    error = problem or "its series has other images by now, or no route asks for it any more"
    supersession.supersede(session, study.id, now, keep=keep, error=error, series_ids=series_ids)
    return [job.id for job in made if job.id in keep and job.state == JobState.QUEUED]


# 3. Analyse: a model answers ----------------------------------------------------------------------


def analyse(bench: Bench, job_id: int, *, send: Callable[[list[int]], None] | None = None) -> list[int]:
    """Run one job. Returns the ids of deliveries to send; empty where the job was not to be had.

    `send` gets them as soon as they are committed: the pictures are drawn while the results leave.
    """
    now = datetime.now(UTC)
    with bench.database.write() as session:
        allowed = limits.of_jobs(session, [job_id], bench.work)[job_id]
        job = leases.claim(
            session, job_id, owner=bench.owner, now=now, lease=bench.lease, deadline_at=now + allowed.hard
        )
        if job is None:
            return []
        about = subjects.of_job(session, job)
        if about is None:
            return outcomes.supersede(session, job, bench.owner)
        if hand_over(session, bench, job, about=about, now=now):
            return []
        before = antecedents.settle(session, job, now)
    logger.info("job %s: %s on study %s", job.id, job.model, job.study.study_instance_uid)
    watch = Stopwatch()
    try:
        with Lease(bench, job, allowed), bench.shelf.at_work():
            series = {role: subject.files(bench.spool_root) for role, subject in about.items()}
            analysis = _analyse(bench, job, series, before, watch)
    except SeriesError as error:
        return outcomes.fail(bench, job, error.reason, str(error), watch)
    except DeviceLost as error:
        return outcomes.lose_device(bench, job, error, watch)
    except EngineError as error:
        return outcomes.fail(bench, job, "engine", str(error), watch)
    except OSError as error:
        return outcomes.try_again(bench, job, error, watch)
    follow = outcomes.conclude(bench, job, analysis, watch)
    if send is not None:
        send(follow)
    try:
        pictures.draw(analysis.volume, analysis.findings, bench.results_root / job.identity)
    except OSError as error:
        # The answer is stored, and on its way: it does not need its pictures.
        logger.warning("job %s has no pictures, or not all: %s", job.id, error.strerror)
    return follow


def _analyse(
    bench: Bench, job: Job, series: Mapping[str, Files], before: Antecedents, watch: Stopwatch
) -> Analysis:
    """Files -> volumes -> findings -> objects, read back."""
    package, given = bench.shelf.package(job.model), parameters.values(job.parameters)
    answered = stand_in.answer(
        bench.shelf, job.model, series, watch, read=bench.lightbox.read, parameters=given
    )
    source, findings = answered.source, answered.findings
    context = ResultContext(
        source=source,
        others=answered.others,
        job_identity=job.identity,
        model=findings.model,
        engine=answered.engine,
        parameters=given,
        created_at=job.created_at,
        secondread_version=version.VERSION,
        predecessor=before.predecessor,
        announced=before.announced,
        comparison=before.comparison,
        language=bench.language,
    )
    wanted = profiles.wanted(job.sends, package.manifest.results)
    with watch("encode"):
        folder = bench.results_root / job.identity
        files = dicom_results.make_results(context, findings, wanted, folder)
    notes = (*source.notes, *findings.impossible, *dicom_results.left_out(context, findings, wanted))
    words = report.worded(context, findings)
    return Analysis(volume=source.volume, findings=findings, files=files, notes=notes, report=words)


# 4. Deliver: the results leave --------------------------------------------------------------------


def deliver(post: Post, delivery_id: int) -> None:
    """Send everything of one job that is due at one destination, on one association."""
    now = datetime.now(UTC)
    with post.database.write() as session:
        claimed = deliveries.claim(session, delivery_id, owner=post.owner, now=now, lease=hold.LEASE)
    if not claimed:
        return
    destination = post.destinations.get(claimed[0].destination)
    if destination is None:
        comment = f"no peer is called {claimed[0].destination!r} any more; add it to peers and retry"
        receipts.settle_alike(post, claimed, Verdict.REFUSED, comment)
        return
    whole, damaged = receipts.inspect(post, claimed)
    receipts.settle_alike(post, damaged, Verdict.REFUSED, receipts.DAMAGED)
    waiting = {row.result.sop_instance_uid: row for row in whole}
    with Hold(post.database, [row.id for row in whole], owner=post.owner):
        silence = _send(post, destination, waiting)
    receipts.settle_alike(post, list(waiting.values()), Verdict.RETRY, silence)


def _send(post: Post, destination: Destination, waiting: dict[str, Delivery]) -> str:
    """Send the objects; each answered one is settled and leaves `waiting`. Returns why others were not."""
    uids = {post.results_root / row.result.path: uid for uid, row in waiting.items()}

    def settle(outcome: Outcome) -> None:
        # A file that cannot be read gives no UID to be known by.
        row = waiting.pop(outcome.sop_instance_uid or uids.get(outcome.path or Path(), ""), None)
        if row is not None:
            receipts.settle(post, row, outcome)

    try:
        post.open_sender(destination).send(list(uids), settle)
    except SendError as error:
        return str(error)
    return "the destination gave no answer for this object"


# 5. Commit: the destination promises to keep them -------------------------------------------------


def commit(post: Post, delivery_id: int) -> None:
    """Ask a destination to commit to all that it took of one job; what it reports ends the deliveries.

    The report comes on the same association, on one of the peer's own to our listener, or never.
    """
    request = ledger.begin(post, delivery_id)
    if request is None:
        return
    try:
        with Hold(post.database, request.delivery_ids, owner=post.owner):
            post.ask_commitment(
                request.destination,
                request.ask,
                on_report=partial(ledger.report_here, post, request),
                wait_seconds=ledger.STAY_SECONDS,
                is_over=partial(ledger.is_over, post, request),
            )
    except SendError as error:
        ledger.lost(post, request.id, str(error), for_good=isinstance(error, CommitmentRefused))
    else:
        ledger.asked(post, request)
