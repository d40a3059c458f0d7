"""Commands about the studies that are kept: listed, and purged of their files."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Annotated

import typer
from pydantic import BaseModel
from sqlalchemy.orm import Session

from db import purging
from db import studies as study_rows
from db.models import Study
from db.states import StudyState
from worker import edge, status, words
from worker.commands.ask import LimitOption
from worker.edge import ConfigOption, DataOption, JsonOption
from worker.errors import ConfigurationError
from worker.settings import Settings

if TYPE_CHECKING:
    from worker.retention import Look, Store

_COLUMNS = (
    "study_instance_uid",
    "patient_id",
    "accession_number",
    "state",
    "modalities",
    "instances",
    "jobs",
    "problem",
)
_PURGE_COLUMNS = ("study_instance_uid", "study_date", "files", "megabytes", "verdict", "reason")

StudyStateOption = Annotated[StudyState | None, typer.Option("--state", help="Only those in this state.")]

studies_app = typer.Typer(help="The studies: list, purge.", no_args_is_help=False)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(studies_app, name="studies")


class Purged(BaseModel):
    """What became, or would become, of a study's files."""

    study_instance_uid: str
    study_date: str
    last_image_at: datetime
    #: Those of its images, kept aside and guarded ones too.
    files: int
    #: With its results.
    bytes: int
    megabytes: float
    #: "purged", "would be purged", or "stays".
    verdict: str
    #: Why it stays.
    reason: str


@studies_app.callback(invoke_without_command=True)
def studies(
    context: typer.Context,
    config: ConfigOption = None,
    data: DataOption = None,
    state: StudyStateOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the studies that arrived, newest first; or purge them of their files."""
    if context.invoked_subcommand is None:
        list_studies(config=config, data=data, state=state, limit=limit, as_json=as_json)


@studies_app.command("list")
def list_studies(
    config: ConfigOption = None,
    data: DataOption = None,
    state: StudyStateOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the studies that arrived, newest first."""
    with edge.database(config, data) as database, database.read() as session:
        lines = status.study_lines(session, study_rows.newest(session, state=state, limit=limit))
    edge.show(lines, as_json=as_json, columns=_COLUMNS)


@studies_app.command()
def purge(
    config: ConfigOption = None,
    data: DataOption = None,
    older_than: Annotated[
        str | None,
        typer.Option(help="Those whose last image came before: 30d, 12h, or a date YYYY-MM-DD."),
    ] = None,
    study: Annotated[list[str] | None, typer.Option(help="This study, by its Study Instance UID.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Say what would go, and change nothing.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete the files of finished and delivered studies; what was found stays known."""
    from worker import retention

    settings = edge.load(config, data)
    now = datetime.now(UTC)
    before = None if study else _before(older_than, settings, now)
    with edge.database(config, data) as database:
        store = retention.open_store(database, settings)
        with database.read() as session:
            chosen = list(_chosen(session, study or [], before))
        lines = [_purge(store, each, now=now, dry_run=dry_run) for each in chosen]
        if not dry_run:
            _delete(store, now)
    edge.show(lines, as_json=as_json, columns=_PURGE_COLUMNS)
    if not as_json:
        _sum_up(lines, verdict="would be purged" if dry_run else "purged")
    if study and any(line.reason for line in lines):
        raise typer.Exit(edge.FAILED)


def _before(older_than: str | None, settings: Settings, now: datetime) -> datetime:
    """The time that the last image of a study must be older than. Raises ConfigurationError."""
    if older_than is None and settings.retention.days is None:
        raise ConfigurationError("say which: --older-than 30d, or --study UID, or set retention.days")
    if older_than is None:
        return now - timedelta(days=settings.retention.days or 0)
    try:
        return status.since(older_than, now)
    except ValueError as error:
        raise ConfigurationError(
            f"--older-than {older_than}: write 30d, 12h, 30m or a date YYYY-MM-DD"
        ) from error


def _chosen(session: Session, uids: list[str], before: datetime | None) -> Iterable[Study]:
    """The named studies, or all that are old enough. Raises NotFound."""
    if before is None:
        return [study_rows.by_uid(session, uid) for uid in uids]
    return purging.with_files(session, last_before=before)


def _purge(store: Store, study: Study, *, now: datetime, dry_run: bool) -> Purged:
    from worker import retention

    seen = retention.look(store, study, now=now, untouched_for=retention.SETTLED)
    if dry_run:
        return _line(study, seen, reason=seen.reason, verdict="would be purged")
    return _line(study, seen, reason=retention.purge(store, study, seen, now=now), verdict="purged")


def _line(study: Study, seen: Look, *, reason: str, verdict: str) -> Purged:
    return Purged(
        study_instance_uid=study.study_instance_uid,
        study_date=study.study_date,
        last_image_at=study.last_instance_at,
        files=seen.holding.images,
        bytes=seen.holding.size,
        megabytes=round(seen.holding.size / 1e6, 1),
        verdict="stays" if reason else verdict,
        reason=reason,
    )


def _delete(store: Store, now: datetime) -> None:
    """Delete what is doomed; a sweep may do the same beside us."""
    from worker import retention

    after: int | None = 0
    while after is not None:
        after = retention.delete_doomed(store, after=after, now=now)


def _sum_up(lines: list[Purged], *, verdict: str) -> None:
    """What went, or would go, altogether."""
    going = [line for line in lines if not line.reason]
    size = sum(line.bytes for line in going) / 1e9
    edge.console.print(
        f"{words.count(len(going), 'study', 'studies')} with "
        f"{words.count(sum(line.files for line in going), 'file')} and {size:.2f} GB: {verdict}; "
        f"{len(lines) - len(going)} stay"
    )
