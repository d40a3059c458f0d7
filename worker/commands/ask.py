"""Commands that ask: jobs, findings, why. Every one takes --json."""

from __future__ import annotations

import csv
import dataclasses
import sys
from datetime import UTC, datetime
from typing import Annotated

import pydantic_core
import typer

from db import found as found_rows
from db import jobs as job_rows
from db import studies as study_rows
from db.states import JobState
from engines import printing
from worker import edge, explain, status
from worker.edge import ConfigOption, DataOption, JsonOption
from worker.errors import ConfigurationError, WorkerError

JobStateOption = Annotated[JobState | None, typer.Option("--state", help="Only those in this state.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="At most so many, newest first.")]

_JOB_COLUMNS = ("id", "model", "state", "priority", "attempts", "age_seconds", "engine", "reason", "error")
_FINDING_COLUMNS = (
    "study_instance_uid",
    "model",
    "key",
    "segment",
    "value",
    "unit",
    "current",
    "explanation",
)

jobs_app = typer.Typer(help="The jobs: list, show, retry, cancel.", no_args_is_help=False)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(jobs_app, name="jobs")
    app.command()(findings)
    app.command()(why)


@jobs_app.command("list")
def list_jobs(
    config: ConfigOption = None,
    data: DataOption = None,
    state: JobStateOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the jobs, newest first."""
    with edge.database(config, data) as database, database.read() as session:
        lines = [status.job_line(row) for row in job_rows.newest(session, state=state, limit=limit)]
    edge.show(lines, as_json=as_json, columns=_JOB_COLUMNS)


@jobs_app.command("show")
def show_job(
    job_id: int, config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Show everything about a job."""
    from worker import engine_lines

    with edge.database(config, data) as database, database.read() as session:
        detail = status.job_detail(session, job_id)
    detail = engine_lines.with_plan(detail, edge.load(config, data).plans)
    if as_json:
        edge.show(detail, as_json=True)
    else:
        edge.console.print(explain.job_tree(detail))


@jobs_app.command("retry")
def retry_job(job_id: int, config: ConfigOption = None, data: DataOption = None) -> None:
    """Run a failed or cancelled job again."""
    from worker import enqueue

    with edge.database(config, data) as database:
        with database.write() as session:
            state = job_rows.get(session, job_id).state
            if not job_rows.retry(session, job_id):
                raise WorkerError(f"job {job_id} is {state}; only a failed or cancelled job can be retried")
        enqueue.jobs(database, [job_id], edge.load(config, data).work)
    edge.console.print(f"job {job_id} is queued again")


@jobs_app.command("cancel")
def cancel_job(job_id: int, config: ConfigOption = None, data: DataOption = None) -> None:
    """Stop a job that has not ended."""
    with edge.database(config, data) as database, database.write() as session:
        job = job_rows.get(session, job_id)
        now = datetime.now(UTC)
        if not job_rows.cancel(session, job_id, now):
            raise WorkerError(f"job {job_id} is {job.state}; it has ended already")
        study_rows.finish_if_ended(session, job.study_id, now)
    edge.console.print(f"job {job_id} is cancelled")


def findings(
    config: ConfigOption = None,
    data: DataOption = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    code: Annotated[str | None, typer.Option(help="Code value, or the manifest's key, e.g. laa950.")] = None,
    since: Annotated[str | None, typer.Option(help="7d, 12h, or a date YYYY-MM-DD.")] = None,
    above: Annotated[float | None, typer.Option(help="Only values greater than this.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List what the models measured and found, from SQL."""
    try:
        start = status.since(since, datetime.now(UTC)) if since else None
    except ValueError as error:
        raise ConfigurationError(f"--since {since}: write 7d, 12h, 30m or a date YYYY-MM-DD") from error
    with edge.database(config, data) as database, database.read() as session:
        found = found_rows.search(session, model=model, code=code, since=start, above=above)
    if as_csv:
        names = [field.name for field in dataclasses.fields(found_rows.FoundValue)]
        writer = csv.DictWriter(sys.stdout, fieldnames=names)
        writer.writeheader()
        writer.writerows(pydantic_core.to_jsonable_python(found))
    else:
        shown = (
            found if as_json else [dataclasses.replace(each, unit=printing.unit(each.unit)) for each in found]
        )
        edge.show(shown, as_json=as_json, columns=_FINDING_COLUMNS)


def why(
    study_instance_uid: str, config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Say what was seen of a study, which rules matched, what ran and what left."""
    with edge.database(config, data) as database, database.read() as session:
        answer = status.why(session, study_instance_uid)
    if as_json:
        edge.show(answer, as_json=True)
    else:
        edge.console.print(explain.why_tree(answer))


@jobs_app.callback(invoke_without_command=True)
def _jobs(context: typer.Context, config: ConfigOption = None, data: DataOption = None) -> None:
    if context.invoked_subcommand is None:
        list_jobs(config=config, data=data)
