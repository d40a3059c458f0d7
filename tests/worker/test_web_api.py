"""The REST API over a real database, asked through a real server."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.worker import night
from worker import status
from worker.station import Station


def test_studies_come_newest_first_in_slices_with_their_total(web: httpx.Client) -> None:
    # When
    first = web.get("/api/studies", params={"limit": 3})
    second = web.get("/api/studies", params={"limit": 3, "offset": 3})

    # Then
    uids = [study["study_instance_uid"] for study in [*first.json(), *second.json()]]
    assert uids == [night.ARRIVING, night.RUNNING, night.GAPPED, night.MIXED, night.UNDELIVERED, night.CHEST]
    assert first.headers["X-Total-Count"] == "7"


@pytest.mark.parametrize(("state", "uids"), [("receiving", [night.ARRIVING]), ("ready", [night.RUNNING])])
def test_studies_are_filtered_by_state(web: httpx.Client, state: str, uids: list[str]) -> None:
    answer = web.get("/api/studies", params={"state": state})
    assert [study["study_instance_uid"] for study in answer.json()] == uids
    assert answer.headers["X-Total-Count"] == "1"


def test_attention_leaves_only_what_needs_a_person(web: httpx.Client) -> None:
    answer = web.get("/api/studies", params={"attention": True})
    assert [study["study_instance_uid"] for study in answer.json()] == [
        night.GAPPED,
        night.MIXED,
        night.UNDELIVERED,
    ]
    assert answer.headers["X-Total-Count"] == "3"
    both = web.get("/api/studies", params={"attention": True, "state": "receiving"})
    assert (both.json(), both.headers["X-Total-Count"]) == ([], "0")


def test_why_is_the_read_models_own_answer(web: httpx.Client, told: Station) -> None:
    # Given what the command would print
    with told.database.read() as session:
        expected = json.loads(status.why(session, night.CHEST).model_dump_json())

    # When
    why = web.get(f"/api/studies/{night.CHEST}/why").json()

    # Then only the ages may have moved on
    assert _without_ages(why) == _without_ages(expected)
    assert why["evidence"]["signal"] == "associations released"
    assert why["decisions"][0]["trace"]["children"][0]["children"][0]["subject"] == "Modality"


def _without_ages(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_ages(inner) for key, inner in value.items() if key != "age_seconds"}
    return [_without_ages(inner) for inner in value] if isinstance(value, list) else value


def test_a_job_shows_what_it_measured_made_and_sent(web: httpx.Client, told: Station) -> None:
    job = web.get(f"/api/jobs/{night.job_of(told.database, night.CHEST)}").json()
    assert job["state"] == "done"
    assert {"meaning": "Mean attenuation", "segment": "Left lung", "unit": "[hnsf'U]"}.items() <= job[
        "measurements"
    ][2].items()
    assert [made["kind"] for made in job["objects"]] == ["seg", "sr"]
    assert {delivery["state"] for delivery in job["deliveries"]} == {"sent"}
    assert job["segments"][0]["voxels"] == 1_402_331


def test_deliveries_are_filtered_by_state(web: httpx.Client) -> None:
    dead = web.get("/api/deliveries", params={"state": "dead"})
    assert [row["status"] for row in dead.json()] == ["0xA900", "0xA900"]
    assert dead.headers["X-Total-Count"] == "2"
    assert len(web.get("/api/deliveries").json()) == 4


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ({"code": "laa950", "above": 10}, 2),
        ({"code": "laa950", "above": 12.34}, 0),
        ({"code": "87433001", "model": "chest-ct"}, 2),
        ({"model": "another"}, 0),
        ({"code": "laa950", "since": "150m"}, 1),
        ({"code": "laa950", "since": "1d"}, 2),
    ],
)
def test_findings_are_one_question(web: httpx.Client, query: dict[str, str], found: int) -> None:
    assert len(web.get("/api/findings", params=query).json()) == found


def test_models_and_events(web: httpx.Client) -> None:
    models = web.get("/api/models").json()
    assert [(model["name"], model["version"]) for model in models["models"]] == [("chest-ct", "0.4.1")]
    assert models["problems"] == []
    kinds = [(event["kind"], event["study_instance_uid"]) for event in web.get("/api/events").json()]
    assert kinds == [("rejected", ""), ("dead-delivery", night.UNDELIVERED)]


@pytest.mark.parametrize(
    "address", ["/api/studies/1.2.3", "/api/studies/1.2.3/why", "/api/jobs/999", "/api/nothing"]
)
def test_what_is_not_there_is_a_sentence(web: httpx.Client, address: str) -> None:
    answer = web.get(address)
    assert answer.status_code == 404
    assert answer.json()["detail"].startswith(("no study", "there is no"))


@pytest.mark.parametrize(
    "address",
    [
        "/api/studies?state=nonsense",
        "/api/studies?limit=0",
        "/api/studies?limit=1001",
        "/api/studies?offset=-1",
        "/api/studies?offset=99999999999999999999",
        "/api/studies/1.2%00.3",
        "/api/jobs/abc",
        "/api/jobs/99999999999",
        "/api/deliveries?state=done",
        "/api/findings?since=yesterday",
        "/api/findings?since=99999999999d",
        "/api/findings?above=nan",
    ],
)
def test_wrong_values_are_refused_by_name(web: httpx.Client, address: str) -> None:
    answer = web.get(address)
    assert answer.status_code == 422
    named = (
        address.split("?")[1].split("=")[0] if "?" in address else ("uid" if "studies" in address else "id")
    )
    assert answer.json()["detail"].startswith(named)


def test_the_schema_describes_every_address_and_the_reference_needs_nobody_else(web: httpx.Client) -> None:
    schema = web.get("/api/openapi.json").json()
    wanted = {"/api/studies", "/api/studies/{uid}/why", "/api/jobs/{id}/retry", "/readyz", "/metrics"}
    assert wanted <= set(schema["paths"])
    assert schema["paths"]["/api/jobs"]["get"]["responses"]["422"]["content"]["application/json"][
        "schema"
    ] == {"$ref": "#/components/schemas/Problem"}
    page = web.get("/api/docs").text
    assert "receiving | ready | done" in page
    assert all(f"<code>{path}</code>" in page for path in schema["paths"])
    assert "http://" not in page.replace(str(web.base_url), "") and "https://" not in page
