"""A private PostgreSQL server: real, on a unix socket, gone when the block ends."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from tests.support import peers

#: Seconds that the server may take to answer after its start.
START_SECONDS = 60
#: The server's settings: no durability, which a test does not need, and no port, which it could not choose.
_SETTINGS = ("listen_addresses=", "fsync=off", "full_page_writes=off", "max_connections=200")


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """A running PostgreSQL server that only this machine's user reaches."""

    #: The folder of its unix socket.
    socket: Path

    def url(self, name: str) -> str:
        """SQLAlchemy's URL of the database `name`."""
        return f"postgresql+psycopg://postgres@/{name}?host={self.socket}"

    def create(self, name: str, *, template: str = "template1") -> str:
        """Make the database `name` as a copy of `template`, which nobody may use just now; return its URL."""
        self._say("CREATE DATABASE {} TEMPLATE {}", name, template)
        return self.url(name)

    def drop(self, name: str) -> None:
        """Remove the database `name`, whoever is still connected to it."""
        self._say("DROP DATABASE {} WITH (FORCE)", name)

    def _say(self, statement: str, *names: str) -> None:
        with self.connect() as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def connect(self) -> psycopg.Connection[Any]:
        """A connection to the maintenance database, each statement its own transaction."""
        return psycopg.connect(host=str(self.socket), user="postgres", dbname="postgres", autocommit=True)


@contextmanager
def postgres_cluster(folder: Path, *settings: str) -> Iterator[Cluster]:
    """Run a fresh PostgreSQL server, with more `settings` (name=value) where given.

    Its log goes to `folder`. Its data do not: root runs it as the user postgres, whom root's
    temporary folders keep out, and a unix socket's path has little room (107 bytes).
    """
    home = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        who = _owner(home)
        make = ["initdb", "-D", str(home / "data"), "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"]
        make[0] = peers.path("initdb")
        subprocess.run(make, check=True, capture_output=True, cwd=home, **who)
        command = [peers.path("postgres"), "-D", str(home / "data"), "-k", str(home)]
        for setting in (*_SETTINGS, *settings):
            command += ["-c", setting]
        with (folder / "postgresql.log").open("wb") as log:
            server = subprocess.Popen(command, stdout=log, stderr=log, cwd=home, **who)
        try:
            yield _answering(Cluster(socket=home), server, folder / "postgresql.log")
        finally:
            server.send_signal(signal.SIGINT)  # fast shutdown: connections are cut
            server.wait(timeout=START_SECONDS)
    finally:
        shutil.rmtree(home)


def _owner(home: Path) -> dict[str, Any]:
    """Whom the server runs as: ourselves, or postgres where we are root, which initdb refuses."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam("postgres")
    os.chown(home, user.pw_uid, user.pw_gid)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _answering(cluster: Cluster, server: subprocess.Popen[bytes], log: Path) -> Cluster:
    """The cluster, once it accepts connections."""
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and server.poll() is None:
        try:
            cluster.connect().close()
        except psycopg.OperationalError:
            time.sleep(0.05)
        else:
            return cluster
    raise RuntimeError(f"PostgreSQL did not start:\n{log.read_text()}")
