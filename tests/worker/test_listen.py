"""A listener that starts while the database is away takes images; their rows come when it is back."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import SQLAlchemyError

from db import models
from dicom_node import echo, senders
from dicom_node.senders import Destination, Outcome
from tests.support import phantoms
from tests.support.postgres import Cluster
from tests.worker import journey as journeys
from worker import heartbeat, indexer, listen, sections, station
from worker.settings import Settings
from worker.station import Station


@pytest.mark.peer("postgresql")
def test_a_listener_starts_without_a_database(
    migrated_cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indexer, "RETRY_SECONDS", 0.1)
    monkeypatch.setattr(heartbeat, "_AGAIN_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    node = sections.Node(host="127.0.0.1", port=port, min_free_mb=1, require_known_peers=False)
    url = migrated_cluster.url("late")
    stop = threading.Event()
    with closing(
        station.open_station(Settings(storage=tmp_path, models=(), node=node, database=url))
    ) as here:
        thread = threading.Thread(target=listen.run, args=(here, stop))
        thread.start()
        try:
            to = Destination(name="node", ae_title="SECONDREAD", host="127.0.0.1", port=port)
            _until(lambda: echo.verify(to).healthy)
            answers: list[Outcome] = []
            senders.open_sender(to).send(phantoms.write(journeys.datasets(), tmp_path / "in"), answers.append)
            assert [answer.status for answer in answers] == [0] * 6
            assert _count(here, models.Instance) == -1
            migrated_cluster.create("late", template="migrated")
            _until(lambda: _count(here, models.Instance) == 6)
            _until(lambda: _count(here, models.Process) == 1)
        finally:
            stop.set()
            thread.join(30)
        assert not thread.is_alive()
        assert _count(here, models.Process) == 0
    migrated_cluster.drop("late")


def _count(here: Station, table: type[models.Instance] | type[models.Process]) -> int:
    """How many rows there are; -1 while the database is away."""
    try:
        with here.database.read() as session:
            return session.scalar(select(func.count()).select_from(table)) or 0
    except SQLAlchemyError:
        return -1


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)
