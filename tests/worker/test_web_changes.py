"""What a person may change: job and delivery rows move, and the queue is told, with a real broker."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest
from celery import Celery

from tests.worker import night
from tests.worker.served import served, served_broker
from worker import broker, enqueue
from worker.station import Station

CHANGE = {"X-Secondread": "1"}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Station]:
    """A station of the test's own."""
    station = night.open_station(tmp_path)
    night.tell(station)
    yield station
    station.close()


@pytest.fixture
def queue(here: Station, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
    """The embedded broker, running, and the app that `enqueue` uses connected to it."""
    app = night.queue(here)
    monkeypatch.setattr(enqueue, "app", app)
    with served_broker(here):
        yield app
        app.close()


@pytest.fixture
def client(here: Station) -> Iterator[httpx.Client]:
    """A client over `here`."""
    with served(here) as address, httpx.Client(base_url=address, timeout=60) as opened:
        yield opened


def wait_for_messages(here: Station, queue: str, count: int) -> None:
    """Messages are sent after the answer; wait for them."""
    deadline = time.monotonic() + 60
    while broker.queue_lengths(here.settings, [queue]) != {queue: count}:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_retry_queues_the_job_and_tells_the_workers(
    client: httpx.Client, here: Station, queue: Celery
) -> None:
    # Given
    job = night.job_of(here.database, night.GAPPED)

    # When
    answer = client.post(f"/api/jobs/{job}/retry", headers=CHANGE)

    # Then
    assert answer.status_code == 200
    assert answer.json() == {
        "id": job,
        "state": "queued",
        "changed": True,
        "message": "it waits for a worker",
    }
    assert client.get(f"/api/studies/{night.GAPPED}").json()["state"] == "ready"
    wait_for_messages(here, "cpu", 1)

    # And a second wish changes nothing and sends nothing
    again = client.post(f"/api/jobs/{job}/retry", headers=CHANGE)
    assert again.status_code == 409
    assert again.json()["message"] == "it is queued and cannot be retried; nothing was changed"
    assert broker.queue_lengths(here.settings, ["cpu"]) == {"cpu": 1}


def test_retry_of_a_dead_delivery_sends_only_that_one(
    client: httpx.Client, here: Station, queue: Celery
) -> None:
    # Given
    with here.database.read() as session:
        delivery = night.dead_delivery(session)

    # When
    answer = client.post(f"/api/deliveries/{delivery}/retry", headers={"Content-Type": "application/json"})

    # Then
    assert answer.json()["changed"] is True and answer.json()["state"] == "pending"
    states = {row["id"]: row["state"] for row in client.get("/api/deliveries").json()}
    assert sorted(states.values()) == ["dead", "pending", "sent", "sent"] and states[delivery] == "pending"
    wait_for_messages(here, "deliver", 1)
    assert client.post(f"/api/deliveries/{delivery}/retry", headers=CHANGE).status_code == 409


def test_what_a_newer_answer_has_overtaken_is_not_brought_back(client: httpx.Client, here: Station) -> None:
    with here.database.read() as session:
        dead = night.dead_delivery(session)
    job = night.job_of(here.database, night.UNDELIVERED)
    newer = night.overtake(here.database, job)
    for address in (f"/api/jobs/{job}/retry", f"/api/deliveries/{dead}/retry"):
        refused = client.post(address, headers=CHANGE)
        assert refused.status_code == 409
        assert refused.json() == {"detail": f"job {newer} of revision 2 answers in the place of job {job}"}
    # What was overtaken says so, wherever it is shown
    assert client.get(f"/api/jobs/{job}").json()["replaced_by"] is None
    night.finish(here, newer, datetime.now(UTC))
    assert client.get(f"/api/jobs/{job}").json()["replaced_by"] == newer
    assert f'Replaced by <a href="/jobs/{newer}">job {newer}</a>' in client.get(f"/jobs/{job}").text
    assert f"replaced by job {newer}" in client.get(f"/studies/{night.UNDELIVERED}").text


def test_all_dead_deliveries_are_sent_again_at_once(
    client: httpx.Client, here: Station, queue: Celery
) -> None:
    # Given
    page = client.get("/deliveries?state=dead").text
    assert 'data-post="/api/deliveries/retry"' in page

    # When those of a destination that nobody knows are retried, then all
    unknown = client.post("/api/deliveries/retry?destination=archive", headers=CHANGE)
    assert (unknown.status_code, "no peer is called archive" in unknown.text) == (422, True)
    assert client.post("/api/deliveries/retry").status_code == 403
    assert client.post("/api/deliveries/retry", headers=CHANGE).json()["count"] == 2

    # Then
    states = [row["state"] for row in client.get("/api/deliveries").json()]
    assert sorted(states) == ["pending", "pending", "sent", "sent"]
    wait_for_messages(here, "deliver", 2)


def test_cancel_stops_a_job_and_ends_its_study(client: httpx.Client, here: Station) -> None:
    job = night.job_of(here.database, night.RUNNING)
    assert client.post(f"/api/jobs/{job}/cancel", headers=CHANGE).json()["state"] == "cancelled"
    assert client.get(f"/api/studies/{night.RUNNING}").json()["state"] == "done"
    assert client.post(f"/api/jobs/{job}/cancel", headers=CHANGE).status_code == 409


def test_without_the_broker_a_retry_waits_for_the_sweep(
    client: httpx.Client, here: Station, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a broker that is away
    app = night.queue(here)
    monkeypatch.setattr(enqueue, "app", app)

    # When
    job = night.job_of(here.database, night.GAPPED)
    began = time.monotonic()
    answer = client.post(f"/api/jobs/{job}/retry", headers=CHANGE)

    # Then
    assert answer.json()["state"] == "queued"
    assert time.monotonic() - began < 15, "the answer must not wait for the broker"
    app.close()


@pytest.mark.parametrize(
    "address", ["/api/jobs/999/retry", "/api/jobs/999/cancel", "/api/deliveries/999/retry"]
)
def test_what_is_not_there_cannot_be_changed(web: httpx.Client, address: str) -> None:
    answer = web.post(address, headers=CHANGE)
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith("there is no")
