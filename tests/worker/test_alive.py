"""What a health check asks: whether a role works on this very machine."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from db import associations
from dicom_node.listener import Listener
from dicom_node.spool import Spool
from tests.support.listening import Recorder
from tests.worker import night
from tests.worker.served import served
from worker import alive, machine
from worker import listen as listening
from worker.alive import Role
from worker.errors import WorkerError
from worker.settings import Settings
from worker.station import Station


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Station]:
    """A station without a process."""
    with closing(night.open_station(tmp_path)) as opened:
        yield opened


def beat(station: Station, role: str, process_id: str, *, ago: float = 0) -> None:
    """A sign of life that a process gave so many seconds ago."""
    at = datetime.now(UTC) - timedelta(seconds=ago)
    with station.database.write() as session:
        associations.heartbeat(session, process_id=process_id, role=role, started_at=at, at=at)


def at(settings: Settings, section: str, port: int) -> Settings:
    """The settings with the port of a section, bound to every address as in a container."""
    changed = getattr(settings, section).model_copy(update={"host": "0.0.0.0", "port": port})
    return settings.model_copy(update={section: changed})


@pytest.mark.parametrize("role", [Role.CPU, Role.GPU, Role.DELIVER, Role.WORK, Role.SWEEP, Role.PLANS])
def test_a_process_of_this_machine_is_a_sign_of_life(here: Station, role: Role) -> None:
    with pytest.raises(WorkerError, match=f"no sign of life from {role} on this machine"):
        alive.check(here.settings, role)
    beat(here, role, machine.process_id())
    alive.check(here.settings, role)


def _of_another_machine() -> tuple[str, float]:
    return machine.process_id().replace(socket.gethostname(), "another", 1), 0


def _silent() -> tuple[str, float]:
    return machine.process_id(), 31


def _ended() -> tuple[str, float]:
    """Of a process that gave its sign just now, and ended since."""
    child = subprocess.Popen(["true"])
    child.wait()
    return machine.process_id().replace(f":{os.getpid()}:", f":{child.pid}:", 1), 0


@pytest.mark.parametrize("who", [_of_another_machine, _silent, _ended])
def test_one_elsewhere_a_silent_one_and_one_that_ended_are_none(
    here: Station, who: Callable[[], tuple[str, float]]
) -> None:
    process_id, ago = who()
    beat(here, "cpu", process_id, ago=ago)
    with pytest.raises(WorkerError):
        alive.check(here.settings, Role.CPU)


def test_another_role_here_is_none(here: Station) -> None:
    beat(here, "deliver", machine.process_id())
    with pytest.raises(WorkerError):
        alive.check(here.settings, Role.CPU)


def test_a_listener_answers_and_writes_no_event(here: Station, tmp_path: Path) -> None:
    told = Recorder()
    config = listening.listener_config(at(here.settings, "node", 0))
    with (
        Spool(tmp_path / "spool", watermark_bytes=0) as spool,
        Listener(config, spool, told) as listener,
    ):
        settings = at(here.settings, "node", listener.port)
        alive.check(settings, Role.LISTEN)
        assert (told.associations, told.refusals) == ([], [])
    with pytest.raises(WorkerError, match=f"no listener answers at 127.0.0.1:{settings.node.port}"):
        alive.check(settings, Role.LISTEN)


def test_a_port_behind_which_nobody_works_is_no_listener(
    here: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel still accepts for a process that has stopped."""
    monkeypatch.setattr(alive, "ANSWER_SECONDS", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as stopped, pytest.raises(WorkerError, match="TimeoutError"):
        alive.check(at(here.settings, "node", stopped.getsockname()[1]), Role.LISTEN)


def test_the_page_answers(here: Station) -> None:
    with served(here) as address:
        settings = at(here.settings, "web", int(address.rpartition(":")[2]))
        alive.check(settings, Role.WEB)
    with pytest.raises(WorkerError, match=f"no page answers at 127.0.0.1:{settings.web.port}"):
        alive.check(settings, Role.WEB)
