"""The pages as HTML: what they say, and what they let nobody do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest

from tests.db import rows
from tests.worker import answer, compiled, night
from tests.worker.served import served
from worker.station import Station

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>"


class Reader(HTMLParser):
    """The tags and links of a page; complains about what was not closed."""

    VOID = frozenset({"meta", "link", "img", "br", "wbr", "input", "rect"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        assert not self.open, self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        self.links += [values[name] or "" for name in ("href", "src") if name in values]
        self.ids += [values["id"] or ""] if "id" in values else []
        assert not any(name.startswith("on") or name == "style" for name in values), "the policy forbids it"
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in self.VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, tag


def addresses(here: Station) -> list[str]:
    """Every page of the night."""
    uids = (
        night.CHEST,
        night.GAPPED,
        night.UNDELIVERED,
        night.BRAIN,
        night.MIXED,
        night.RUNNING,
        night.ARRIVING,
    )
    with here.database.read():
        jobs = [
            night.job_of(here.database, uid)
            for uid in (night.CHEST, night.GAPPED, night.MIXED, night.RUNNING)
        ]
    fixed = [
        "/",
        "/?show=attention",
        "/?show=done",
        "/deliveries",
        "/deliveries?state=dead",
        "/system",
        "/api/docs",
    ]
    return [*fixed, *(f"/studies/{uid}" for uid in uids), *(f"/jobs/{job}" for job in jobs)]


def test_every_page_is_sound_and_every_link_on_it_leads_somewhere(web: httpx.Client, told: Station) -> None:
    seen: set[str] = set()
    for address in addresses(told):
        answer = web.get(address)
        assert answer.status_code == 200, address
        page = Reader(answer.text)
        assert len(set(page.ids)) == len(page.ids), address
        assert page.tags.count("h1") == 1 and page.tags.count("main") == 1, address
        for link in page.links:
            target = str(httpx.URL(str(web.base_url)).join(address).join(link))
            assert target.startswith(str(web.base_url)), link
            seen.add(target.split("#")[0])
    assert {httpx.URL(link).path for link in seen} >= {
        "/static/page.css",
        "/static/page.js",
        "/static/icon.svg",
    }
    assert {link: web.get(link).status_code for link in seen} == dict.fromkeys(seen, 200)


def test_the_first_page_says_what_needs_a_person(web: httpx.Client) -> None:
    text = web.get("/").text
    assert "3 need attention" in text
    assert "2 slices are missing" in text
    assert "carry 2 different Patient IDs" in text
    assert "MOD17 at 10.20.3.9 was rejected" in text
    assert text.index(night.ARRIVING.split(".")[-1]) < text.index(night.CHEST.split(".")[-1])


def test_a_study_explains_itself(web: httpx.Client) -> None:
    brain = web.get(f"/studies/{night.BRAIN}").text
    assert "the route does not match" in brain
    assert "<b>Modality</b>" in brain and "is <code>MR</code>" in brain and "<code>CT</code>" in brain
    assert 'aria-label="fails"' in brain
    arriving = web.get(f"/studies/{night.ARRIVING}").text
    assert "not complete yet" in arriving and "No route has been asked yet" in arriving


def test_a_study_that_still_arrives_says_what_it_waits_for(web: httpx.Client) -> None:
    page = web.get(f"/studies/{night.ARRIVING}").text
    assert "It is not complete yet. It waits for:" in page
    assert "open since" in page or "quiet for" in page


def test_a_job_says_that_nobody_verified_it_and_shows_its_pictures(web: httpx.Client, told: Station) -> None:
    # Given
    job = night.job_of(told.database, night.CHEST)

    # When
    text = web.get(f"/jobs/{job}").text

    # Then
    assert "AI result, not verified; research only" in text
    assert 'fill="#50aaff"' in text, "the legend has the model's colours"
    assert "2\u202f412" in text and "<code class=uid>" in text
    assert text.count(f'<img src="/jobs/{job}/pictures/') == 5
    picture = web.get(f"/jobs/{job}/pictures/coronal.png")
    assert picture.headers["content-type"] == "image/png"
    assert picture.content.startswith(b"\x89PNG")
    assert picture.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "name",
    [
        "..%2f..%2fsecondread.db",
        "%2e%2e%2f%2e%2e%2fsecondread.db",
        "..%5c..%5csecondread.db",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        "secret.txt",
        "linked.png",
        "folder.png",
        "coronal.png%00.txt",
        "*.png",
        "",
    ],
)
def test_only_pictures_of_the_job_can_be_asked_for(web: httpx.Client, told: Station, name: str) -> None:
    # Given a job's folder with things in it that are no pictures
    job = night.job_of(told.database, night.CHEST)
    folder = next(path.parent for path in told.settings.results.glob("*/coronal.png"))
    (folder / "secret.txt").write_text("secret")
    (folder / "folder.png").mkdir(exist_ok=True)
    if not (folder / "linked.png").is_symlink():
        (folder / "linked.png").symlink_to(told.settings.storage / "secondread.db")

    # When
    answer = web.get(f"/jobs/{job}/pictures/{name}")

    # Then
    assert answer.status_code == 404
    assert b"SQLite" not in answer.content and b"root:" not in answer.content


def test_a_picture_of_another_job_is_not_had_by_its_name(web: httpx.Client, told: Station) -> None:
    assert (
        web.get(f"/jobs/{night.job_of(told.database, night.GAPPED)}/pictures/coronal.png").status_code == 404
    )
    assert web.get("/jobs/999/pictures/coronal.png").status_code == 404


def test_a_job_says_how_its_plan_was_verified_or_what_it_ran_in_place_of(
    web: httpx.Client, told: Station
) -> None:
    on_plan, instead = (night.job_of(told.database, uid) for uid in (night.CHEST, night.UNDELIVERED))
    page = web.get(f"/jobs/{on_plan}").text
    for said in ("onnxruntime 1.31.1 CPU float32", "0.31 %", "2 % allowed", "0.9987", "41.7 times", "812 MB"):
        assert said in page
    assert compiled.WHY not in page
    page = web.get(f"/jobs/{instead}").text
    assert "It ran on the fallback engine" in page and f"in place of tensorrt: {compiled.WHY}" in page
    assert 'id="plan"' not in page
    shown = web.get(f"/api/jobs/{on_plan}", headers={"Accept": "application/json"}).json()
    assert (shown["plan"]["dice"], shown["plan"]["serves"], shown["in_place_of"]) == (0.9987, True, "")
    shown = web.get(f"/api/jobs/{instead}", headers={"Accept": "application/json"}).json()
    assert (shown["plan"], shown["in_place_of"]) == (None, f"tensorrt: {compiled.WHY}")


def test_the_plans_of_all_gpus_are_shown_with_what_keeps_them_from_serving(web: httpx.Client) -> None:
    page = web.get("/system").text
    assert page.count("NVIDIA H200 (9.0), tensorrt 11.4.0.106") == 2 and "NVIDIA L4" in page
    assert "without bound" in page and "holds values that are not finite numbers" in page
    assert "node 3 (NonZero): is not supported" in page
    view = web.get("/api/engines", headers={"Accept": "application/json"}).json()
    assert view["engine"] == "openvino" and view["machine"] is None
    assert sorted((plan["serves"], plan["current"]) for plan in view["plans"]) == [
        (False, True),
        (False, True),
        (True, True),
    ]


def test_what_a_sender_wrote_is_shown_as_text(tmp_path: Path) -> None:
    # Given a study whose every text is hostile
    here = night.open_station(tmp_path)
    at = datetime.now(UTC) - timedelta(minutes=1)
    night.send(
        here,
        "1.2.3",
        at,
        count=1,
        modality="CT",
        study=HOSTILE,
        series=HOSTILE,
        patient=HOSTILE,
        accession=HOSTILE,
    )

    # When
    with (
        served(here) as address,
        httpx.Client(base_url=address, timeout=60, headers={"Accept": "text/html"}) as web,
    ):
        pages = [web.get("/").text, web.get("/studies/1.2.3").text, web.get(f"/{HOSTILE}").text]
    here.close()

    # Then
    for text in pages:
        assert "<script>alert" not in text and "<img src=x" not in text
        assert Reader(text).tags.count("script") == 1
    assert "&lt;script&gt;alert(1)" in pages[0] and "&lt;script&gt;alert(1)" in pages[1]


def test_a_job_shows_its_report_in_words_and_nothing_in_it_is_markup(tmp_path: Path) -> None:
    # Given an answer in Chinese, and one whose words are hostile
    here = night.open_station(tmp_path)
    reports = (answer.report("zh"), answer.report() | {"title": HOSTILE, "limitations": [HOSTILE]})
    reports[1]["measurements"]["rows"] = [[HOSTILE] * 4]
    with here.database.write() as session:
        study = rows.receive(session)
        ids = []
        for number, report in enumerate(reports):
            job = rows.make_job(session, study, identity=str(number))
            job.report = report
            session.flush()
            ids.append(job.id)
    # When
    with (
        served(here) as address,
        httpx.Client(base_url=address, timeout=60, headers={"Accept": "text/html"}) as web,
    ):
        chinese, hostile = (web.get(f"/jobs/{id}").text for id in ids)
        shown = web.get(f"/api/jobs/{ids[0]}", headers={"Accept": "application/json"}).json()["report"]
    here.close()
    # Then
    assert '<section class="report" lang="zh"' in chinese and "人工智能结果，未经医师核实。" in chinese
    assert chinese.index('<li class="urgent">紧急：肺气肿') < chinese.index('<li class="absent">')
    assert shown["comparison"]["rows"][0][:3] == ["体积", "左肺", "2200 mL"]
    assert Reader(chinese).tags.count("table") >= 2
    assert "<script>alert" not in hostile and "<img src=x" not in hostile
    assert hostile.count("&lt;script&gt;alert(1)") >= 6 and Reader(hostile).tags.count("script") == 1


def test_a_long_list_comes_in_pages(tmp_path: Path) -> None:
    # Given more studies than three pages hold
    here = night.open_station(tmp_path)
    at = datetime.now(UTC) - timedelta(minutes=1)
    with here.database.write() as session:
        for number in range(160):
            rows.receive(session, f"1.2.{number + 1000}", received_at=at + timedelta(milliseconds=number))

    # When
    with (
        served(here) as address,
        httpx.Client(base_url=address, timeout=60, headers={"Accept": "text/html"}) as web,
    ):
        first, last, beyond = (web.get("/", params={"page": page}).text for page in (1, 4, 5))
        api = web.get("/api/studies", params={"limit": 1000}).json()
    here.close()

    # Then
    assert first.count("<tr>") - 1 == 50 and last.count("<tr>") - 1 == 10
    assert "page 1 of 4" in first and 'rel="next"' in first and 'rel="prev"' not in first
    assert 'rel="next"' not in last and 'href="?page=3"' in last
    assert "This page of the list is empty" in beyond
    assert len(api) == 160


def test_an_empty_installation_says_what_to_do(tmp_path: Path) -> None:
    here = night.open_station(tmp_path)
    with (
        served(here) as address,
        httpx.Client(base_url=address, timeout=60, headers={"Accept": "text/html"}) as web,
    ):
        text, deliveries = web.get("/").text, web.get("/deliveries").text
    here.close()
    assert "No study has arrived yet" in text
    assert "no sign of life" in text
    assert "No result has been made" in deliveries


@pytest.mark.parametrize(
    ("address", "code"),
    [("/studies/1.2.3", 404), ("/jobs/999", 404), ("/nothing", 404), ("/jobs/abc", 422), ("/?show=x", 422)],
)
def test_an_error_is_a_page_for_people(web: httpx.Client, address: str, code: int) -> None:
    answer = web.get(address)
    assert answer.status_code == code
    assert Reader(answer.text).tags.count("h1") == 1
    assert "Back to the studies" in answer.text
