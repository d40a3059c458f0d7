"""Commands that look after an installation: doctor, conformance, routes test, send, db upgrade."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.progress import Progress
from rich.tree import Tree

from db import migrate
from db.base import Database
from worker import edge, explain, folder, routing
from worker.edge import ConfigOption, DataOption, JsonOption
from worker.errors import ConfigurationError, WorkerError
from worker.loop_guard import ConfiguredGuard
from worker.settings import CONFIG_VARIABLE
from worker.views import DecisionLine

routes_app = typer.Typer(help="The routes.", no_args_is_help=True)
db_app = typer.Typer(help="The database.", no_args_is_help=True)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(doctor)
    app.command()(conformance)
    app.command()(send)
    app.add_typer(routes_app, name="routes")
    app.add_typer(db_app, name="db")


class Remark(BaseModel):
    """A line of the doctor's report."""

    subject: str
    healthy: bool
    remark: str


def doctor(config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False) -> None:
    """Look at configuration, disk, database, broker, models, routes, loop guard and peers."""
    from worker import doctor as examination

    settings = edge.load(config, data)
    remarks = [Remark.model_validate(found, from_attributes=True) for found in examination.examine(settings)]
    if as_json:
        edge.show(remarks, as_json=True)
    else:
        for line in remarks:
            mark = "[green]ok[/]  " if line.healthy else "[red]BAD[/] "
            edge.console.print(f"{mark} [bold]{line.subject}[/]: ", end="")
            edge.console.print(line.remark, markup=False, soft_wrap=True)
    if not all(line.healthy for line in remarks):
        raise typer.Exit(edge.FAILED)


def conformance(config: ConfigOption = None, data: DataOption = None) -> None:
    """Print the DICOM conformance statement of this version with this configuration, in Markdown."""
    from worker import conformance as stated

    settings = edge.load(config, data)
    source = os.environ.get(CONFIG_VARIABLE) or "the default one"
    typer.echo(stated.statement(settings, source=source), nl=False)


@routes_app.command("test")
def test_routes(
    path: Path, config: ConfigOption = None, data: DataOption = None, as_json: JsonOption = False
) -> None:
    """Say what the routes would do with these files; nothing is stored or run."""
    from worker import station
    from worker.shelf import Shelf

    settings = edge.load(config, data)
    found = folder.read(path)
    shelf = Shelf(settings.models)
    guard = ConfiguredGuard.of(settings.guard)
    lines = []
    for study in found.studies():
        seen = [
            replace(series.view, guarded=guard.reason_of_file(series.paths[0], series.view.attributes))
            for series in study
        ]
        decisions = routing.decide(station.route_rules(settings), shelf.rules, seen)
        lines += [_tried(decision) for decision in decisions]
    if as_json:
        edge.show(lines, as_json=True)
        return
    tree = Tree(f"[bold]{path}[/]: {len(found.series)} series")
    for line in lines:
        explain.add_decided(tree.add(explain.decision_label(line)), line)
    for file, reason in found.others:
        tree.add(f"[yellow]{file.name}: {reason}[/]")
    edge.console.print(tree)


def send(
    path: Path, peer: Annotated[str, typer.Argument(help="A peer's name.")], config: ConfigOption = None,
    data: DataOption = None,
) -> None:  # fmt: skip
    """Send DICOM files to a configured peer."""
    from dicom_node.senders import Outcome, Verdict, open_sender
    from worker import station

    settings = edge.load(config, data)
    named = next((known for known in settings.peers if known.name == peer), None)
    if named is None:
        known = ", ".join(entry.name for entry in settings.peers)
        raise ConfigurationError(f"no peer is called {peer!r}; peers: {known or 'none'}")
    paths = folder.files(path)
    refused: list[Outcome] = []
    with Progress(console=edge.errors, transient=True) as progress:
        task = progress.add_task(f"to {peer}", total=len(paths))

        def answered(outcome: Outcome) -> None:
            progress.advance(task)
            if outcome.verdict not in (Verdict.DELIVERED, Verdict.WARNING):
                refused.append(outcome)

        open_sender(station.destination(named, settings)).send(paths, answered)
    edge.console.print(f"{len(paths) - len(refused)} of {len(paths)} objects stored by {peer}")
    if refused:
        lines = [
            f"{outcome.path.name if outcome.path else outcome.sop_instance_uid}: {outcome.comment}"
            for outcome in refused[:10]
        ]
        lines += [f"and {len(refused) - 10} more"] if len(refused) > 10 else []
        raise WorkerError("\n".join([f"{len(refused)} were not stored:", *lines]))


@db_app.command("upgrade")
def upgrade(config: ConfigOption = None, data: DataOption = None) -> None:
    """Bring the database to the newest schema."""
    settings = edge.load(config, data)
    settings.storage.mkdir(parents=True, exist_ok=True, mode=0o700)
    with Database(settings.database_url) as database:
        edge.console.print(f"the database is at revision {migrate.upgrade(database)}")


def _tried(decision: routing.Decision) -> DecisionLine:
    """A decision about files that were only tried."""
    return DecisionLine(
        route=decision.route,
        model=decision.model,
        series_instance_uid=decision.series.series_instance_uid if decision.series else "",
        matched=decision.matched,
        reason=decision.reason,
        trace=decision.trace.as_dict(),
    )
