"""Fixtures of the worker's tests."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.worker import night
from tests.worker.served import served
from worker.station import Station


@pytest.fixture(scope="session")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """A station after a night at a hospital; for tests that change nothing."""
    here = night.open_station(tmp_path_factory.mktemp("night"))
    night.tell(here)
    yield here
    here.close()


@pytest.fixture(scope="session")
def web(told: Station) -> Iterator[httpx.Client]:
    """A client of the web application over `told`."""
    with served(told) as address, httpx.Client(base_url=address, headers={"Accept": "text/html"}) as client:
        yield client
