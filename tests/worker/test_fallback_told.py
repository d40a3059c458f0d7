"""Jobs that ran on the fallback are told of: by themselves, and all together where the GPU stays away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from prometheus_client import generate_latest
from sqlalchemy import select

from db import figures
from db.models import Job
from tests.worker import night
from tests.worker.served import served
from worker import metrics, readiness, records
from worker.placing import IN_PLACE
from worker.station import Station

ENGINE = "openvino 2026.4.1 CPU float32"
WHY = f"{IN_PLACE}tensorrt: chest-ct has no plan: run `secondread engines build chest-ct`"


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Station]:
    """A station after a night with three answers, which is to work on a GPU."""
    station = night.open_station(tmp_path)
    night.tell(station)
    with station.database.write() as session:
        for row in session.scalars(select(Job).where(Job.state.in_(["done", "failed"]))):
            row.state, row.engine = "done", ENGINE
    work = station.settings.work.model_copy(update={"engine": "tensorrt"})
    yield replace(station, settings=station.settings.model_copy(update={"work": work}))
    station.close()


def mark(here: Station, count: int, fallback: str = WHY) -> list[int]:
    """Have the newest answers come from the fallback; their jobs, newest first."""
    with here.database.write() as session:
        answered = select(Job).where(Job.state.in_(["done", "delivering"]))
        rows = session.scalars(answered.order_by(Job.id.desc()).limit(count)).all()
        for row in rows:
            row.engine, row.fallback = ENGINE, fallback
        return [row.id for row in rows]


def told(here: Station) -> str:
    return generate_latest(metrics.registry(here)).decode()


@pytest.mark.parametrize(
    "engine",
    [
        f"{ENGINE}{WHY}",
        f"tensorrt 11.4 H200 float16; lungs on {ENGINE}{WHY}",
        f"{'x' * 300}{WHY}",
    ],
)
def test_a_long_sentence_is_stored_in_two_and_read_as_one(engine: str) -> None:
    row = records.ran_on(engine)
    assert row["engine"] + row["fallback"] == engine and row["fallback"] and len(row["engine"]) <= 128


def test_what_ran_where_it_was_to_has_no_fallback() -> None:
    assert records.ran_on(ENGINE) == {"engine": ENGINE, "fallback": ""}
    assert len(records.ran_on("x" * 300)["engine"]) == 128


def test_jobs_page_and_api_say_the_whole_sentence(here: Station) -> None:
    job, *_ = mark(here, 2)
    with served(here) as address, httpx.Client(base_url=address, timeout=60) as client:
        assert client.get(f"/api/jobs/{job}").json()["engine"] == ENGINE + WHY
        assert "in place of tensorrt: chest-ct has no plan" in client.get(f"/jobs/{job}").text
        # And the page of everything says how many there were
        page = client.get("/", headers={"Accept": "text/html"}).text
        assert "the last 2 jobs ran on the fallback, since" in page and "secondread doctor" in page
        assert "works, look at it" in client.get("/system", headers={"Accept": "text/html"}).text


def test_the_figures_count_those_since_the_last_that_ran_on_the_gpu(here: Station) -> None:
    assert "secondread_jobs_on_fallback 0.0" in told(here)
    assert [check.found for check in readiness._gpu(here, database=_well())] == ["jobs run on tensorrt"]
    oldest = mark(here, 3)[-1]
    mark(here, 1, fallback="")
    with here.database.read() as session:
        assert figures.on_fallback(session) is None
    mark(here, 1)
    assert "secondread_jobs_on_fallback 3.0" in told(here)
    with here.database.read() as session:
        found = figures.on_fallback(session)
        assert found is not None and found.since == session.get_one(Job, oldest).started_at
    assert found.sentence == ENGINE + WHY


def test_it_is_no_reason_not_to_be_ready(here: Station) -> None:
    mark(here, 1)
    (check,) = readiness._gpu(here, database=_well())
    assert check.ok and check.remedy and check.found.startswith("the last job ran on the fallback, since ")


def test_on_the_cpu_nobody_asks(here: Station) -> None:
    mark(here, 1)
    work = here.settings.work.model_copy(update={"engine": "openvino"})
    plain = replace(here, settings=here.settings.model_copy(update={"work": work}))
    assert readiness._gpu(plain, database=_well()) == []


def _well() -> readiness.views.Check:
    return readiness.views.Check(name="database", ok=True, found="", remedy="")
