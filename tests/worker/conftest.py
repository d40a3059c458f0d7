"""Fixtures of the worker's tests."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from db import models
from db.base import Database
from tests.db.conftest import cluster, database, migrated_cluster, migrated_file  # noqa: F401 - fixtures
from tests.worker import journey as journeys
from tests.worker import night
from tests.worker.journey import Journey
from tests.worker.served import served
from worker import logs
from worker.shelf import Shelf
from worker.station import Station


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """A station after a night at a hospital; for tests that change nothing.

    Made for each file of tests: its processes' signs of life are good for half a minute.
    """
    here = night.open_station(tmp_path_factory.mktemp("night"))
    night.tell(here)
    yield here
    here.close()


@pytest.fixture(scope="module")
def web(told: Station) -> Iterator[httpx.Client]:
    """A client of the web application over `told`."""
    with (
        served(told) as address,
        httpx.Client(base_url=address, timeout=60, headers={"Accept": "text/html"}) as client,
    ):
        yield client


@pytest.fixture
def contained(monkeypatch: pytest.MonkeyPatch) -> None:
    """For commands in this process: what they do to its logging and environment is undone."""
    monkeypatch.setattr(logs, "set_up", lambda role: None)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    for name in [name for name in os.environ if name.startswith("SECONDREAD_")]:
        del os.environ[name]


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shelf]:
    """One tiny model, warm for all journeys."""
    folder = tmp_path_factory.mktemp("models")
    journeys.write_model(folder / "tiny")
    opened = Shelf([folder], threads=1)
    assert not opened.problems
    yield opened
    opened.close()


@pytest.fixture
def journey(
    database: Database,  # noqa: F811 - the fixture
    tmp_path: Path,
    shelf: Shelf,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> Iterator[Journey]:
    """An installation on SQLite, then on PostgreSQL; whatever the test does, nothing names the patient."""
    caplog.set_level(logging.INFO)
    made = Journey(database=database, storage=tmp_path, shelf=shelf)
    yield made
    said = [_as_logged(record) for record in caplog.get_records("call")]
    said += [*capfd.readouterr(), *_messages(made)]
    assert not [line for line in said if any(token in line for token in journeys.TOKENS)]


def _as_logged(record: logging.LogRecord) -> str:
    """A record as the product writes it."""
    record.exc_text = None  # what another formatter made of it
    return logs.DiscreetFormatter("%(message)s").format(record)


def _messages(journey: Journey) -> Iterator[str]:
    """Every sentence that the tables keep for people."""
    for job in journey.rows(models.Job):
        yield f"{job.reason} {job.error} {job.notes}"
    for event in journey.rows(models.Event):
        yield event.message
    for delivery in journey.rows(models.Delivery):
        yield delivery.comment
    for made in journey.rows(models.ResultObject):
        yield made.problem
