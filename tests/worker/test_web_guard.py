"""What other sites' pages, other names and caches get: nothing."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.worker import night
from worker import sections, web_guard
from worker.station import Station


@pytest.mark.parametrize("address", ["/", "/api/studies", "/nothing", "/healthz", "/api/docs"])
def test_every_answer_forbids_frames_foreign_code_and_caching(web: httpx.Client, address: str) -> None:
    headers = web.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy and "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy and "http" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["cache-control"] == "no-store"


def test_the_style_sheet_may_be_kept_but_is_asked_for_again(web: httpx.Client) -> None:
    first = web.get("/static/page.css")
    assert first.headers["cache-control"] == "no-cache"
    again = web.get("/static/page.css", headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    assert web.get("/static/../web.py").status_code == 404
    assert web.get("/static/%2e%2e/web.py").status_code == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", ""])
def test_a_foreign_name_for_this_machine_is_refused(web: httpx.Client, host: str) -> None:
    """A page elsewhere whose name was made to resolve to 127.0.0.1 must not read patient data."""
    answer = web.get("/api/studies", headers={"Host": host})
    assert answer.status_code == 400
    assert night.CHEST not in answer.text


@pytest.mark.parametrize("host", ["localhost:8080", "127.0.0.1", "[::1]:8080"])
def test_this_machines_own_names_are_answered(web: httpx.Client, host: str) -> None:
    assert web.get("/healthz", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize(
    ("host", "any_name"),
    [("127.0.0.1", False), ("::1", False), ("localhost", False), ("0.0.0.0", True), ("ris-7", True)],
)
def test_names_are_only_known_on_the_loopback(host: str, any_name: bool) -> None:
    assert ("*" in web_guard.allowed_hosts(sections.Web(host=host))) is any_name


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "text/plain"},
        {"X-Secondread": "0"},
        {"X-Secondread": "1", "Sec-Fetch-Site": "cross-site"},
        {"X-Secondread": "1", "Sec-Fetch-Site": "same-site"},
    ],
)
@pytest.mark.parametrize(
    "change", ["/api/jobs/{job}/retry", "/api/jobs/{job}/cancel", "/api/deliveries/1/retry"]
)
def test_a_change_that_another_site_could_send_is_refused(
    web: httpx.Client, told: Station, headers: dict[str, str], change: str
) -> None:
    # When
    job = night.job_of(told.database, night.GAPPED)
    answer = web.post(change.format(job=job), headers=headers)

    # Then nothing has changed
    assert answer.status_code == 403
    assert web.get(f"/api/jobs/{job}").json()["state"] == "failed"


def test_a_link_cannot_change_anything(web: httpx.Client, told: Station) -> None:
    job = night.job_of(told.database, night.GAPPED)
    assert web.get(f"/api/jobs/{job}/retry", headers={"X-Secondread": "1"}).status_code == 405


def test_no_other_origin_is_allowed_to_ask(web: httpx.Client) -> None:
    asked = web.options(
        "/api/jobs/1/retry",
        headers={
            "Origin": "https://evil.example",
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "x-secondread",
        },
    )
    assert "access-control-allow-origin" not in asked.headers
    assert asked.status_code >= 400


def test_the_templates_hold_nothing_that_the_policy_would_block() -> None:
    folder = Path(web_guard.__file__).parent / "templates"
    pages = [path for path in folder.glob("*.html") if '"base.html"' in path.read_text()]
    assert len(pages) >= 7
    for template in [*pages, folder / "base.html", folder / "parts.html"]:
        text = template.read_text()
        assert "style=" not in text and "<style" not in text and "onclick" not in text, template.name
        assert "| safe" not in text and "autoescape" not in text, template.name
