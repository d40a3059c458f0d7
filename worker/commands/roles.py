"""Commands that run: everything (`up`), or one role to scale out."""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from db import events
from worker import alive as living
from worker import edge, heartbeat, logs, supervise
from worker.edge import ConfigOption, DataOption
from worker.logs import ROLE_VARIABLE

if TYPE_CHECKING:
    from worker.plan_keeper import Prepare
    from worker.settings import Settings
    from worker.station import Station


def add_to(app: typer.Typer) -> None:
    """Register the commands."""
    for command in (up, listen, work, sweep, web, plans, alive):
        app.command()(command)


def up(config: ConfigOption = None, data: DataOption = None) -> None:
    """Run listener, workers, sweep and page on this machine; says when it is ready."""
    from worker import up as everything

    everything.run(edge.load(config, data), supervise.stop_on_signals())


def listen(config: ConfigOption = None, data: DataOption = None) -> None:
    """Run one listener process; several may share a port."""
    from worker import listen as listener
    from worker import station

    settings = edge.load(config, data)
    logs.set_up(os.environ.get(ROLE_VARIABLE, "listen"))
    with closing(station.open_station(settings)) as opened:
        listener.run(opened, supervise.stop_on_signals())


def work(
    config: ConfigOption = None,
    data: DataOption = None,
    queue: Annotated[
        list[str] | None,
        typer.Option(help="A queue to take: cpu, gpu, deliver. Default: that of work.engine, and deliver."),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Worker processes. Default: work.jobs_at_once.")
    ] = None,
) -> None:
    """Run a worker for analyses and deliveries."""
    settings = edge.load(config, data)
    os.environ.setdefault(ROLE_VARIABLE, queue[0] if queue and len(queue) == 1 else "work")
    logs.set_up(os.environ[ROLE_VARIABLE])
    from worker.app import app as celery
    from worker.queueing import QUEUES

    unknown = set(queue or ()) - set(QUEUES)
    if unknown:
        raise typer.BadParameter(f"there is no queue {sorted(unknown)[0]!r}; queues: {', '.join(QUEUES)}")
    arguments = [
        "--quiet",
        "worker",
        "--queues",
        ",".join(queue or (settings.work.queue, "deliver")),
        "--concurrency",
        str(concurrency or settings.work.jobs_at_once),
    ]
    arguments += ["--pool", "prefork", "--hostname", f"{os.environ[ROLE_VARIABLE]}-{os.getpid()}@%h"]
    arguments += ["--without-gossip", "--without-mingle"]
    # Celery warns root about pickle; our messages are row ids in JSON.
    warnings.filterwarnings("ignore", message="(?s).*superuser privileges")
    celery.start(arguments)


def sweep(config: ConfigOption = None, data: DataOption = None) -> None:
    """Run the sweep: closes studies, sends lost messages again, takes jobs from dead workers."""
    from worker import station
    from worker import sweep as sweeping

    settings = edge.load(config, data)
    logs.set_up(os.environ.get(ROLE_VARIABLE, "sweep"))
    with closing(station.open_station(settings)) as opened:
        sweeping.run(opened, supervise.stop_on_signals())


def plans(
    config: ConfigOption = None,
    data: DataOption = None,
    once: Annotated[
        bool, typer.Option("--once", help="Look once; 1 where something is to be tried again.")
    ] = False,
) -> None:
    """Build and compare the plans for the GPU that the routes' models lack, now and then."""
    from worker import plan_keeper, station

    settings = edge.load(config, data)
    logs.set_up(os.environ.get(ROLE_VARIABLE, "plans"))
    # Everything else goes first.
    os.nice(plan_keeper.NICENESS)
    with closing(station.open_station(settings)) as opened:
        if once:
            raise typer.Exit(
                0 if plan_keeper.look(settings, _prepare(settings), _teller(opened)) else edge.FAILED
            )
        with heartbeat.Heartbeat(opened, "plans"):
            command = [sys.executable, "-m", "worker.cli", "plans", "--once"]
            plan_keeper.keep(command, supervise.stop_on_signals())


def _prepare(settings: Settings) -> Prepare:
    """The parity gate's way to a plan; one thread, beside the work."""
    from engines.plans import Plans
    from worker import gate

    kept = Plans(folder=settings.plans)
    engine = settings.work.engine
    return partial(gate.prepare, kept=kept, engine=engine, beside=settings.models, threads=1)


def _teller(here: Station) -> Callable[[str], None]:
    """Writes an event; the same one again after an hour only."""

    def tell(text: str) -> None:
        with here.database.write() as session:
            events.note_once(session, "plan", text)

    return tell


def web(config: ConfigOption = None, data: DataOption = None) -> None:
    """Run the status page and the REST API."""
    import uvicorn

    from worker import station
    from worker.web import create_app

    settings = edge.load(config, data)
    logs.set_up(os.environ.get(ROLE_VARIABLE, "web"))
    # uvicorn finishes what it has in hand, then raises the signal again: that must not end us before the goodbye.
    supervise.stop_on_signals()
    with closing(station.open_station(settings)) as opened, heartbeat.Heartbeat(opened, "web"):
        uvicorn.run(
            create_app(opened),
            host=settings.web.host,
            port=settings.web.port,
            log_config=None,
            access_log=False,
        )


def alive(role: living.Role, config: ConfigOption = None, data: DataOption = None) -> None:
    """Ask whether a role works on this machine, or in this container; for health checks."""
    living.check(edge.load(config, data), role)
    edge.console.print(f"{role} is alive")
