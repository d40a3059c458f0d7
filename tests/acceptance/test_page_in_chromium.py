"""The pages in a real browser: they load, are legible in the light and in the dark, stay fresh, and obey."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from db import events
from tests.support.browser import Page, browser
from tests.worker import night
from tests.worker.served import served
from worker import enqueue
from worker.station import Station

pytestmark = pytest.mark.peer("chromium")

#: Every text's contrast against what it stands on (WCAG 2.2, 1.4.3: at least 4.5); returns those below.
FAINT = """(() => {
  const parse = (colour) => {
    const canvas = FAINT.canvas ||= new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const light = ([r, g, b]) => [r, g, b].map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = parse(getComputedStyle(node).backgroundColor);
      if (colour[3] > 250) return colour;
    }
    return [255, 255, 255];
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    const box = node.getBoundingClientRect();
    if (!text || box.width < 2 || node.closest(".skip, .unseen, script, title")) continue;
    const a = light(parse(getComputedStyle(node).color)), b = light(ground(node));
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) faint.push(`${text.slice(0, 30)}: ${contrast.toFixed(2)}`);
  }
  return faint;
})()""".replace("FAINT.canvas", "globalThis.pixel")

OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """A station after a night at a hospital."""
    station = night.open_station(tmp_path_factory.mktemp("night"))
    night.tell(station)
    with pytest.MonkeyPatch.context() as patch:
        # Never the broker that somebody runs in this checkout.
        patch.setattr(enqueue, "app", night.queue(station))
        yield station
    station.close()


@pytest.fixture(scope="module")
def address(here: Station) -> Iterator[str]:
    """Where its pages are served."""
    with served(here) as at:
        yield at


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """One browser for all tests."""
    with browser(tmp_path_factory.mktemp("profile")) as page:
        yield page


@pytest.fixture
def page(chromium: Page) -> Iterator[Page]:
    """The browser's tab; nothing may go wrong in it."""
    chromium.errors.clear()
    chromium.size(1280, 900)
    yield chromium
    assert chromium.errors == []


def places(here: Station) -> dict[str, str]:
    """Every kind of page."""
    done, failed, instead = (
        night.job_of(here.database, uid) for uid in (night.CHEST, night.GAPPED, night.UNDELIVERED)
    )
    return {
        "studies": "/",
        "study": f"/studies/{night.CHEST}",
        "study-with-problem": f"/studies/{night.MIXED}",
        "study-unmatched": f"/studies/{night.BRAIN}",
        "job": f"/jobs/{done}",
        "job-failed": f"/jobs/{failed}",
        "job-in-place": f"/jobs/{instead}",
        "deliveries": "/deliveries",
        "system": "/system",
        "api": "/api/docs",
    }


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_every_page_fits_and_is_legible(
    page: Page, address: str, here: Station, tmp_path: Path, *, width: int, dark: bool
) -> None:
    page.size(width, 900, dark=dark)
    for name, path in places(here).items():
        page.open(address + path)
        page.wait_for("[...document.images].every((image) => image.complete)")
        page.photograph(tmp_path / f"{name}-{width}-{'dark' if dark else 'light'}.png")
        assert page.evaluate(OVERFLOW) == 0, name
        assert page.evaluate(FAINT) == [], name
    assert page.errors == []


def test_the_first_page_shows_the_studies(page: Page, address: str) -> None:
    page.open(address)
    rows = page.evaluate("[...document.querySelectorAll('.studies tbody tr')].map((row) => row.innerText)")
    assert len(rows) == 7
    gapped = next(row for row in rows if night.GAPPED in row)
    assert "failed" in gapped and "2 slices are missing" in gapped and "PAT-0103" in gapped


def test_pictures_are_drawn(page: Page, address: str, here: Station) -> None:
    page.open(f"{address}/jobs/{night.job_of(here.database, night.CHEST)}")
    page.wait_for("[...document.querySelectorAll('figure img')].every((image) => image.naturalWidth >= 300)")
    assert page.evaluate("document.querySelectorAll('figure img').length") == 5


def test_it_is_usable_by_keyboard_alone(page: Page, address: str) -> None:
    # Given the first page, nothing touched
    page.open(address)

    # When Tab is pressed once, the skip link shows; once followed, the next stop is in the content
    page.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.evaluate("document.activeElement.getBoundingClientRect().width") > 50
    page.evaluate("document.activeElement.click()")
    page.press("Tab")

    # Then
    assert page.evaluate("document.getElementById('main').contains(document.activeElement)")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"


def test_it_stays_fresh_and_leaves_the_reader_in_peace(page: Page, address: str, here: Station) -> None:
    # Given a study's page with a closed trace and the focus on a link
    page.open(f"{address}/studies/{night.CHEST}")
    page.evaluate("document.querySelector('details').open = false")
    page.evaluate("document.querySelector('h3 a').focus()")

    # When something happens to the study
    with here.database.write() as session:
        study = night.study_of(session, night.CHEST)
        events.note(session, "late-images", "one more <b>came</b>", study_id=study)

    # Then it shows by itself, as text, and what the reader did is as it was
    page.wait_for("document.body.innerText.includes('one more <b>came</b>')")
    assert page.evaluate("document.querySelector('details').open") is False
    assert page.evaluate("document.activeElement.matches('h3 a')")
    assert page.evaluate("document.getElementById('fresh').textContent") == "live"


def test_a_person_can_retry_and_cancel(page: Page, address: str, here: Station) -> None:
    # Given a failed job
    job = night.job_of(here.database, night.UNDELIVERED)
    page.open(f"{address}/jobs/{job}")

    # When its button is pressed
    page.evaluate(f"document.querySelector('[data-post=\"/api/jobs/{job}/retry\"]').click()")

    # Then it waits, and can be cancelled, which asks first (the browser says yes)
    page.wait_for("document.querySelector('h1 .chip').textContent === 'queued'")
    page.evaluate(f"document.querySelector('[data-post=\"/api/jobs/{job}/cancel\"]').click()")
    page.wait_for("document.querySelector('h1 .chip').textContent === 'cancelled'")


def test_a_server_that_is_gone_is_said(page: Page, tmp_path: Path) -> None:
    # Given a page whose server ends
    here = night.open_station(tmp_path)
    with served(here) as address:
        page.open(address)
        page.wait_for("document.getElementById('fresh').textContent === 'live'")
    here.close()

    # Then the page says since when it is not fresh any more
    page.wait_for("document.getElementById('fresh').textContent.startsWith('no answer since')")
    page.errors[:] = [error for error in page.errors if "ERR_CONNECTION" not in error]
