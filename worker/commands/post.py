"""Commands about what leaves: the deliveries, listed, explained where they are dead, and sent again."""

from __future__ import annotations

from typing import Annotated

import typer
from sqlalchemy.orm import Session

from db import dead_letters
from db import deliveries as delivery_rows
from db.base import Database
from db.errors import NotRevivable
from db.states import DeliveryState
from worker import edge, status, words
from worker.commands.ask import LimitOption
from worker.edge import ConfigOption, DataOption, JsonOption
from worker.errors import ConfigurationError, WorkerError

_COLUMNS = (
    "id",
    "job_id",
    "kind",
    "destination",
    "state",
    "attempts",
    "next_attempt_at",
    "status",
    "comment",
    "commitment",
)
DeliveryStateOption = Annotated[
    DeliveryState | None, typer.Option("--state", help="Only those in this state.")
]
DestinationOption = Annotated[str | None, typer.Option("--destination", help="Only to this peer.")]

deliveries_app = typer.Typer(help="The deliveries: list, retry.", no_args_is_help=False)


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    app.add_typer(deliveries_app, name="deliveries")


@deliveries_app.command("list")
def list_deliveries(
    config: ConfigOption = None,
    data: DataOption = None,
    state: DeliveryStateOption = None,
    destination: DestinationOption = None,
    limit: LimitOption = 50,
    as_json: JsonOption = False,
) -> None:
    """List the deliveries, newest first."""
    peers = [peer.name for peer in edge.load(config, data).peers]
    with edge.database(config, data) as database, database.read() as session:
        _require(session, peers, destination)
        rows = delivery_rows.newest(session, state=state, destination=destination, limit=limit)
        lines = [status.delivery_line(row) for row in rows]
    edge.show(lines, as_json=as_json, columns=_COLUMNS)
    if not as_json and any(line.state == DeliveryState.DEAD for line in lines):
        edge.console.print(
            "A dead delivery is not tried again by itself. Its comment says why: change that at its destination, "
            "then run `secondread deliveries retry ID...`, or `--all`.",
            soft_wrap=True,
        )


@deliveries_app.command("retry")
def retry_deliveries(
    delivery_ids: Annotated[list[int] | None, typer.Argument(metavar="[ID]...")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All dead ones that can be sent again.")] = False,
    destination: DestinationOption = None,
    config: ConfigOption = None,
    data: DataOption = None,
) -> None:
    """Send dead deliveries again, each with a fresh schedule."""
    from worker import enqueue

    if bool(delivery_ids) is everything or (destination and not everything):
        raise ConfigurationError(
            "name deliveries by their ids, or write --all, and with it --destination NAME"
        )
    peers = [peer.name for peer in edge.load(config, data).peers]
    with edge.database(config, data) as database:
        if everything:
            with database.read() as session:
                _require(session, peers, destination)
                delivery_ids = dead_letters.revivable(session, destination=destination)
        revived = [each for each in delivery_ids or () if _revive(database, each, must=not everything)]
        enqueue.deliveries(database, revived)
    if everything:
        edge.console.print(f"{words.count(len(revived), 'delivery is', 'deliveries are')} due again")
        return
    for delivery_id in revived:
        edge.console.print(f"delivery {delivery_id} is due again")


def _require(session: Session, peers: list[str], destination: str | None) -> None:
    """Raise ConfigurationError for a destination that there is not."""
    if destination is not None and (problem := status.unknown_destination(session, peers, destination)):
        raise ConfigurationError(problem)


def _revive(database: Database, delivery_id: int, *, must: bool) -> bool:
    """One by one: each locks its study. Raises WorkerError for one that must be revived and cannot be."""
    try:
        with database.write() as session:
            row = delivery_rows.get(session, delivery_id)
            revived = dead_letters.revive(session, delivery_id)
    except NotRevivable:
        if must:
            raise
        # It became too old a moment ago: the others are sent.
        return False
    if must and not revived:
        if row.state == DeliveryState.DEAD:
            raise WorkerError(f"delivery {delivery_id} stays dead: its object did not pass, and never leaves")
        raise WorkerError(f"delivery {delivery_id} is {row.state}; only a dead one can be retried")
    return revived


@deliveries_app.callback(invoke_without_command=True)
def _deliveries(context: typer.Context, config: ConfigOption = None, data: DataOption = None) -> None:
    if context.invoked_subcommand is None:
        list_deliveries(config=config, data=data)
