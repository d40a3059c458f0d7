"""Readiness: each check can fail by itself, and says what to do."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from sqlalchemy import update

from db import models, troubles
from tests.worker import night
from tests.worker.served import served, served_broker
from worker import doctor, readiness, sections, views
from worker.station import Station


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Station]:
    """A station whose broker runs and whose processes live."""
    opened = night.open_station(tmp_path)
    night.beat(opened)
    with served_broker(opened):
        yield opened
    opened.close()


def failing(station: Station) -> dict[str, views.Check]:
    """The checks that fail, by name."""
    return {check.name: check for check in readiness.readiness(station).checks if not check.ok}


def test_ready_when_everything_holds(here: Station) -> None:
    with served(here) as address:
        answer = httpx.get(f"{address}/readyz")
        page = httpx.get(f"{address}/").text
    assert (answer.status_code, answer.json()["ready"]) == (200, True)
    assert "Everything works." in page


def test_not_ready_is_503_with_every_check_and_its_remedy(web: httpx.Client) -> None:
    answer = web.get("/readyz")
    assert answer.status_code == 503
    failed = [check for check in answer.json()["checks"] if not check["ok"]]
    assert [check["name"] for check in failed] == ["broker"]
    assert "secondread up" in failed[0]["remedy"]
    assert web.get("/healthz").json() == {"status": "alive"}


def test_an_old_schema_is_named(here: Station) -> None:
    with here.database.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0000'")
    assert "secondread db upgrade" in failing(here)["database"].remedy


def test_a_database_that_is_away_fails_what_hangs_on_it_and_pages_say_so(here: Station) -> None:
    # Given a database without a file behind it
    here.database.close()
    for file in here.settings.storage.glob("secondread.db*"):
        file.unlink()
    (here.settings.storage / "secondread.db").mkdir()

    # Then
    assert set(failing(here)) == {"database", "listener", "analysis worker", "delivery worker", "sweep"}
    with served(here) as address:
        assert httpx.get(f"{address}/healthz").status_code == 200
        assert httpx.get(f"{address}/readyz").status_code == 503
        assert httpx.get(f"{address}/metrics").status_code == 503
        assert "the database does not answer" in httpx.get(f"{address}/api/studies").json()["detail"]
        page = httpx.get(f"{address}/", headers={"Accept": "text/html"})
        system = httpx.get(f"{address}/system", headers={"Accept": "text/html"})
    assert page.status_code == 503 and "Not now" in page.text
    assert system.status_code == 200 and "None gives a sign of life" in system.text


@pytest.mark.parametrize(
    ("roles", "missing"),
    [
        (("listen", "work", "sweep"), set()),
        (("cpu", "sweep", "deliver"), {"listener"}),
        (("listen", "sweep", "deliver"), {"analysis worker"}),
        (("listen", "cpu", "sweep"), {"delivery worker"}),
        (("listen", "work"), {"sweep"}),
    ],
)
def test_each_role_must_live(tmp_path: Path, roles: tuple[str, ...], missing: set[str]) -> None:
    here = night.open_station(tmp_path)
    night.beat(here, *roles)
    assert set(failing(here)) - {"broker"} == missing
    here.close()


def test_a_step_that_the_sweep_keeps_failing_at_is_named(here: Station) -> None:
    with here.database.write() as session:
        for step in ("retention", "announcing failures"):
            troubles.begin(session, step, "it fails again and again (ValueError)")
        troubles.end(session, "retention")
    check = failing(here)["sweep"]
    assert check.found == "1 alive; announcing failures: it fails again and again (ValueError)"
    assert "the sweep's log" in check.remedy
    with served(here) as address:
        assert httpx.get(f"{address}/readyz").status_code == 503
        assert 'secondread_events_total{kind="sweep-failing"} 2.0' in httpx.get(f"{address}/metrics").text
    [told] = [found for found in doctor.examine(here.settings) if found.subject == "sweep"]
    assert not told.healthy and "announcing failures" in told.remark
    # What has not been told of for long is over, or a step of an earlier version
    with here.database.write() as session:
        session.execute(update(models.Event).values(at=datetime.now(UTC) - timedelta(hours=2)))
    assert "sweep" not in failing(here)
    # And where it lasts it is told again
    with here.database.write() as session:
        troubles.begin(session, "announcing failures", "it fails again and again (ValueError)")
    assert "sweep" in failing(here)


def test_a_disk_below_the_watermark_is_what_the_listener_refuses_for(tmp_path: Path) -> None:
    here = night.open_station(tmp_path, node=sections.Node(min_free_mb=10**9))
    assert "0xA700" in failing(here)["disk"].remedy
    here.close()


def test_a_route_to_a_model_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    here = night.open_station(tmp_path)
    (here.settings.models[0] / "chest-ct" / "model.onnx").write_bytes(b"other bytes")
    again = night.open_station(tmp_path)
    assert "chest-ct" in failing(again)["models"].found
    with served(again) as address:
        assert "model.onnx" in httpx.get(f"{address}/api/models").json()["problems"][0]
    here.close()
    again.close()
