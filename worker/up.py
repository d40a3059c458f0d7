"""`secondread up`: everything on this machine, in the right order, ready when it says so."""

from __future__ import annotations

import fcntl
import logging
import shutil
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from db import associations, migrate
from db.base import Database
from worker import broker, heartbeat, logs, parameters, supervise
from worker.chronicle import Chronicle
from worker.errors import BrokerError, ConfigurationError, DiskFull, WorkerError
from worker.logs import ROLE_VARIABLE
from worker.settings import Settings
from worker.shelf import Shelf
from worker.supervise import Role, Supervisor

logger = logging.getLogger(__name__)

#: How long everything may take to be ready.
START_SECONDS = 90.0
#: With less free space SQLite cannot even open its database.
_LEAST_BYTES = 2**20
#: Sender processes, at least and at most.
FEWEST_SENDERS, MOST_SENDERS = 3, 8


def run(settings: Settings, stop: threading.Event, *, announce: bool = True) -> None:
    """Start every role, say when they are ready, keep them alive until `stop` is set."""
    logs.set_up("up")
    settings.storage.mkdir(parents=True, exist_ok=True, mode=0o700)
    check(settings)
    _refuse_full_disk(settings)
    if announce:
        # Not to standard output: its first line says that all is ready.
        sys.stderr.write("starting; ready in about 20 s\n")
        sys.stderr.flush()
    with _alone(settings), Database(settings.database_url) as database:
        migrate.upgrade(database)
        started_at = datetime.now(UTC)
        with Chronicle(database) as chronicle, Supervisor(roles(settings), chronicle.tell) as supervisor:
            _start_broker(settings, supervisor, stop)
            watcher = threading.Thread(target=supervisor.watch, args=(stop,), name="watch")
            watcher.start()
            try:
                _wait_until_ready(settings, database, started_at, stop)
                if announce and not stop.is_set():
                    sys.stdout.write(_ready_text(settings))
                    sys.stdout.flush()
                stop.wait()
                logger.info("stopping: what is in hand is finished first")
            finally:
                stop.set()
                watcher.join()


def check(settings: Settings) -> None:
    """Refuse to start what cannot work. Raises ConfigurationError with every problem found."""
    shelf = Shelf(settings.models)
    problems = [str(problem) for problem in shelf.problems]
    problems += [
        f"routes.{route.name}.run: there is no usable model {name!r}; usable: {sorted(shelf.packages) or 'none'}"
        for route in settings.routes
        for name in route.run
        if name not in shelf.packages
    ]
    problems += parameters.problems(settings.routes, shelf.manifests)
    for key, host, port in (
        ("node.port", settings.node.host, settings.node.port),
        ("web.port", settings.web.host, settings.web.port),
    ):
        problem = _port_problem(host, port)
        if problem:
            problems.append(f"{key}: {problem}")
    if settings.node.port == settings.web.port != 0:
        problems.append(f"web.port: {settings.web.port} is also node.port; choose two different ports")
    if problems:
        raise ConfigurationError("\n".join(problems))


def _refuse_full_disk(settings: Settings) -> None:
    """Raise DiskFull where the database lies in the storage folder, and could not be written."""
    if settings.database == "sqlite" and shutil.disk_usage(settings.storage).free < _LEAST_BYTES:
        raise DiskFull(settings.storage)


def _port_problem(host: str, port: int) -> str:
    """Why a port cannot be had; "" where it can. Listeners share theirs, so ask without sharing."""
    if port == 0:
        return "0 is for tests of one process; choose a port"
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            return (
                f"{host}:{port} cannot be had ({error.strerror}); stop what holds it or choose another port"
            )
    return ""


@contextmanager
def _alone(settings: Settings) -> Iterator[None]:
    """Hold the storage folder's lock: two of us on one storage would fight over the embedded broker."""
    folder = settings.storage / "run"
    folder.mkdir(exist_ok=True, mode=0o700)
    with (folder / "up.lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise WorkerError(f"{settings.storage}: another `secondread up` runs on this storage") from None
        yield


def senders(settings: Settings) -> int:
    """How many senders there are: a destination that hangs holds up one of them, and not the others' results."""
    destinations = {name for route in settings.routes for name in route.send_to}
    return min(max(len(destinations) + 1, FEWEST_SENDERS), MOST_SENDERS)


def roles(settings: Settings) -> list[Role]:
    """The processes of one machine, in the order they start."""
    own = [sys.executable, "-m", "worker.cli"]
    made = []
    if settings.broker == "embedded":
        command = broker.embedded_command(settings.storage)
        made.append(Role(name="broker", command=command, outlives_others=True))
    made += [
        Role(
            name=f"listen-{number}", command=[*own, "listen"], environment={ROLE_VARIABLE: f"listen-{number}"}
        )
        for number in range(1, settings.node.processes + 1)
    ]
    made += [
        Role(
            name=queue,
            command=[*own, "work", "--queue", queue, "--concurrency", str(concurrency)],
            environment={ROLE_VARIABLE: queue},
        )
        for queue, concurrency in (
            (settings.work.queue, settings.work.jobs_at_once),
            ("deliver", senders(settings)),
        )
    ]
    names = ["sweep", "web"]
    if settings.work.on_gpu:
        # What serves meanwhile is the fallback.
        names.append("plans")
    made += [Role(name=name, command=[*own, name], environment={ROLE_VARIABLE: name}) for name in names]
    return made


def _start_broker(settings: Settings, supervisor: Supervisor, stop: threading.Event) -> None:
    """The embedded broker goes first: everything else connects to it."""
    if settings.broker == "embedded":
        broker.socket_path(settings.storage).unlink(missing_ok=True)
        supervisor.start("broker")

    def answers() -> bool:
        try:
            broker.ping(settings)
        except BrokerError:
            return False
        return True

    if not supervise.wait_until(answers, timeout=15, stop=stop) and not stop.is_set():
        broker.ping(settings)


def _wait_until_ready(
    settings: Settings, database: Database, started_at: datetime, stop: threading.Event
) -> None:
    """Wait for a sign of life from every role. Raises WorkerError naming those that give none."""
    wanted = {"listen": settings.node.processes}
    wanted |= dict.fromkeys((settings.work.queue, "deliver", "sweep", "web"), 1)

    def missing() -> list[str]:
        with database.read() as session:
            living = [
                process.role
                for process in associations.living(session, datetime.now(UTC) - heartbeat.SILENT)
                if process.started_at >= started_at
            ]
        return [role for role, count in wanted.items() if living.count(role) < count]

    if (
        not supervise.wait_until(lambda: not missing(), timeout=START_SECONDS, stop=stop)
        and not stop.is_set()
    ):
        _refuse_full_disk(settings)
        raise WorkerError(
            f"not ready after {START_SECONDS:.0f} s: no sign of life from {', '.join(missing())}"
        )


def _ready_text(settings: Settings) -> str:
    """What the terminal says once everything is ready."""
    return (
        f"secondread is ready\n"
        f"  DICOM    {settings.node.ae_title} at {settings.node.host}:{settings.node.port}\n"
        f"  page     http://{settings.web.host}:{settings.web.port}/\n"
        f"  storage  {settings.storage}\n"
        f"  routes   {', '.join(route.name for route in settings.routes) or 'none'}\n"
        f"Stop with Ctrl-C.\n"
    )
