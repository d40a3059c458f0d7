"""Whether a role works on this very machine, or in this container: what a health check asks.

The page's /readyz answers for the whole installation; an orchestrator must know which process to look after.
"""

from __future__ import annotations

import http.client
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from enum import StrEnum

from db import associations
from db.base import Database
from worker import heartbeat, machine
from worker.errors import WorkerError
from worker.settings import Settings

#: How long a listener or the page may take to answer.
ANSWER_SECONDS = 5.0


class Role(StrEnum):
    """The roles of an installation, as their signs of life name them; "work" takes every queue."""

    LISTEN = "listen"
    CPU = "cpu"
    GPU = "gpu"
    DELIVER = "deliver"
    WORK = "work"
    SWEEP = "sweep"
    WEB = "web"
    PLANS = "plans"


def check(settings: Settings, role: Role) -> None:
    """Return where the role works here. Raises WorkerError, and what the database raises."""
    asked: dict[Role, Callable[[Settings], None]] = {Role.LISTEN: _listener, Role.WEB: _page}
    if role in asked:
        asked[role](settings)
    else:
        _signs_of_life(settings, role)


def _listener(settings: Settings) -> None:
    """A caller that says nothing and hangs up is let go at once; the kernel alone would not do that.

    It is no event (`dicom_node/door.py`), and it is asked without the database: a listener works on while that is away.
    """
    host, port = _reached(settings.node.host), settings.node.port
    try:
        with socket.create_connection((host, port), timeout=ANSWER_SECONDS) as connection:
            connection.shutdown(socket.SHUT_WR)
            connection.recv(1)
    except OSError as error:
        raise WorkerError(
            f"no listener answers at {host}:{port} ({type(error).__name__}); look at its log"
        ) from error


def _page(settings: Settings) -> None:
    """The web process answers; what else works is asked at /readyz."""
    host, port = _reached(settings.web.host), settings.web.port
    connection = http.client.HTTPConnection(host, port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise WorkerError(
            f"no page answers at {host}:{port} ({type(error).__name__}); look at its log"
        ) from error
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise WorkerError(f"{host}:{port} answers {status} to /healthz; is it ours?")


def _signs_of_life(settings: Settings, role: Role) -> None:
    """A process of the role gave a sign of life from here, and still runs."""
    with Database(settings.database_url) as database, database.read() as session:
        living = associations.living(session, datetime.now(UTC) - heartbeat.SILENT)
    if not any(
        process.role == role and machine.is_ours(process.id) and not machine.is_gone(process.id)
        for process in living
    ):
        silent = heartbeat.SILENT.total_seconds()
        raise WorkerError(f"no sign of life from {role} on this machine for {silent:.0f} s; look at its log")


def _reached(host: str) -> str:
    """Where a server is reached from its own machine that was bound to this address."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)
