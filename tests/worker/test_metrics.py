"""Metrics: right numbers, known labels, no patient."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tests.worker import night
from worker import metrics
from worker.station import Station

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


def samples(text: str) -> Samples:
    """Values by name and labels."""
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_every_figure_is_that_of_the_rows(web: httpx.Client) -> None:
    answer = web.get("/metrics", headers={"Accept": "text/plain"})
    assert answer.headers["content-type"].startswith("text/plain")
    found = samples(answer.text)
    assert value(found, "secondread_studies", state="done") == 5
    assert value(found, "secondread_jobs", state="failed") == 2
    assert value(found, "secondread_jobs", state="cancelled") == 0
    assert value(found, "secondread_deliveries", state="dead") == 2
    assert value(found, "secondread_processes", role="listen") == 2
    assert value(found, "secondread_instances_received_total") == 24 + 40 + 12 + 4 + 18 + 30 + 7
    assert value(found, "secondread_events_total", kind="rejected") == 1
    assert value(found, "secondread_events_total", kind="refused") == 0
    assert value(found, "secondread_oldest_waiting_job_seconds") == 0
    assert value(found, "secondread_storage_free_bytes") > 0
    stage = {"model": "chest-ct", "stage": "infer", "quantile": "0.95"}
    assert value(found, "secondread_job_stage_seconds", **stage) == 11.42


def test_the_oldest_waiting_job_has_an_age(tmp_path: Path) -> None:
    # Given a job that nobody takes
    here = night.open_station(tmp_path)
    night.send(here, night.CHEST, datetime.now(UTC) - timedelta(minutes=10), count=2)

    # When
    found = samples(generate_latest(metrics.registry(here)).decode())
    here.close()

    # Then it has waited since the quiet time was over
    assert 590 < value(found, "secondread_oldest_waiting_job_seconds") < 620
    assert value(found, "secondread_jobs", state="queued") == 1


def test_quantiles_are_those_of_the_newest_jobs() -> None:
    families = metrics.stage_quantiles(
        {("m", "infer"): [float(n) for n in range(1, 102)], ("m", "read"): [3.0]}
    )
    found = {(s.labels["stage"], s.labels["quantile"]): s.value for s in families.samples}
    assert found == {("infer", "0.5"): 51, ("infer", "0.95"): 96, ("read", "0.5"): 3, ("read", "0.95"): 3}


def test_nothing_of_a_patient_and_no_uid_is_told(web: httpx.Client, told: Station) -> None:
    text = web.get("/metrics").text
    assert "PAT-" not in text and "A10023" not in text and "1.2.826" not in text and "Thorax" not in text
    labels = {name for _, pairs in samples(text) for name, _ in pairs}
    assert labels == {"state", "role", "kind", "version", "model", "stage", "quantile"}


def test_openmetrics_is_spoken_where_it_is_asked_for(web: httpx.Client) -> None:
    answer = web.get("/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.headers["content-type"].startswith("application/openmetrics-text")
    assert answer.text.endswith("# EOF\n")
