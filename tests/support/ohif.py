"""The real OHIF in front of a real Orthanc, in a real Chromium: what a radiologist sees of a study."""

from __future__ import annotations

import base64
import mimetypes
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tests.support import ohif_build
from tests.support.browser import Page, browser
from tests.support.orthanc import Orthanc
from tests.support.sight import Sight

_HERE = Path(__file__).parent
CONFIG = (_HERE / "ohif-config.js").read_bytes()
EYES = (_HERE / "ohif-eyes.js").read_text()

#: The window of the browser.
WIDTH, HEIGHT = 1100, 800
#: How long a page may take on a busy machine; it is 2 to 5 s on an idle one.
_PATIENCE = 60.0

#: OHIF's own fault, in half of the openings of a Segmentation by address (docs/viewers.md).
_HARMLESS = ("The stack viewport has been destroyed and is no longer usable",)
#: How it tells of an error of a script, whichever.
_TOLD = "Something went wrong"
#: What it says whenever it opens a Parametric Map; it is right.
_NOTICE = "Parametric MapThe values are multiplied by 100"


class _Server(ThreadingHTTPServer):
    """The viewer and the archive under one address, as behind a hospital's reverse proxy."""

    daemon_threads = True

    def __init__(self, archive: Orthanc) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.archive = f"http://127.0.0.1:{archive.http_port}"
        self.build = ohif_build.folder()


class _Request(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer with the archive's answer, the configuration, a file of the build, or the page itself."""
        path = self.path.partition("?")[0]
        if path.startswith("/dicom-web/"):
            self._answer(*self._asked())
        elif path == "/app-config.js":
            self._answer(200, "text/javascript", CONFIG)
        else:
            file = self.server.build / path.lstrip("/")
            file = file if file.is_file() else self.server.build / "index.html"
            kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
            self._answer(200, kind, file.read_bytes(), age=3600)

    def _asked(self) -> tuple[int, str, bytes]:
        """What the archive says; it is told our own host, since it writes addresses of bulk data with it."""
        headers = {name: self.headers[name] for name in ("Accept", "Host") if name in self.headers}
        request = urllib.request.Request(self.server.archive + self.path, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, answer.headers["Content-Type"], answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, "text/plain", error.read()

    def _answer(self, status: int, kind: str, body: bytes, *, age: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", f"max-age={age}")
        # Workers share memory only in a page that is isolated from other origins.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def served(archive: Orthanc) -> Iterator[str]:
    """The address of the viewer, which shows what the archive holds."""
    with _Server(archive) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


#: The content of each embedded document, in Base64.
_DOCUMENTS = """
Promise.all([...document.querySelectorAll("object[data]")].map(async (each) => {
  const bytes = new Uint8Array(await (await fetch(each.data)).arrayBuffer());
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
}))
"""


class Viewer:
    """OHIF in a browser, in front of an archive."""

    def __init__(self, archive: Orthanc, page: Page, address: str) -> None:
        self.archive = archive
        self.page = page
        self._address = address
        page.size(WIDTH, HEIGHT, dark=True)
        page.call("Page.addScriptToEvaluateOnNewDocument", {"source": EYES})
        page.open(f"{address}/app-config.js")
        # The tour of a first visit lies over everything.
        page.evaluate("localStorage.setItem('shownTours', JSON.stringify(['basicViewerTour']))")

    def open(self, study: str, series: str, *, until: str = "eyes.shown()") -> None:
        """Open a study at one of its series, as a link in a worklist would, and wait for what `until` asks for."""
        self.page.errors.clear()
        self.page.open(f"{self._address}/viewer?StudyInstanceUIDs={study}&initialSeriesInstanceUID={series}")
        self.wait(until)

    def open_listed(self, series_number: int, *, until: str = "eyes.shown()") -> None:
        """Double click a series of the list."""
        [place] = [
            each["rectangle"] for each in self.listed() if f"S:{series_number}" in each["text"].split()
        ]
        self.page.click(place[0] + place[2] / 2, place[1] + place[3] / 2, times=2)
        self.wait(until)

    def wait(self, until: str) -> None:
        """Wait until a script's expression is true, and then until the picture rests."""
        self.page.wait_for(until, seconds=_PATIENCE)
        deadline = time.monotonic() + _PATIENCE
        last, same = b"", 0
        while same < 2:
            assert time.monotonic() < deadline, "the picture never rests"
            now = self.page.picture(0, 0, WIDTH, HEIGHT)
            last, same = now, same + 1 if now == last else 0
            time.sleep(0.2)

    def scroll_to(self, sop_instance_uid: str, frame: int = 1) -> None:
        """Turn the wheel over the viewport until this image is shown."""
        shown = self._ask("shown")
        x, y, width, height = shown["rectangle"]
        end = f"/instances/{sop_instance_uid}/frames/{frame}"
        [wanted] = [index for index, image in enumerate(shown["images"]) if image.endswith(end)]
        step = 1 if wanted > shown["index"] else -1
        for index in range(shown["index"], wanted, step):
            self.page.roll(x + width / 2, y + height / 2, step)
            self.page.wait_for(f"eyes.shown()?.index === {index + step}", seconds=_PATIENCE)
        self.wait("eyes.shown()")

    def look(self) -> Sight:
        """What the viewport shows now."""
        shown = self._ask("shown")
        parts = shown["images"][shown["index"]].split("/")
        return Sight(
            sop_instance_uid=parts[parts.index("instances") + 1],
            frame=int(parts[parts.index("frames") + 1]),
            png=self.page.picture(*shown["rectangle"]),
            drawn=tuple(self._ask("drawn")),
        )

    def segments(self) -> list[str]:
        """Names of the segments that are loaded."""
        return list(self._ask("segments"))

    def measurements(self) -> list[tuple[str, str]]:
        """Tool and label of the measurements that are loaded."""
        return [(tool, label) for tool, label in self._ask("measurements")]

    def listed(self) -> list[dict[str, Any]]:
        """The series list: each entry's text and its rectangle."""
        return list(self._ask("listed"))

    def text(self) -> str:
        """All text of the page, in one line."""
        return " ".join(str(self.page.evaluate("document.body.innerText")).split())

    def documents(self) -> list[bytes]:
        """What is shown as documents of another kind, as the browser gets it."""
        encoded = self.page.evaluate(_DOCUMENTS)
        return [base64.b64decode(each) for each in encoded]

    def troubles(self) -> list[str]:
        """What went wrong or was asked since the study was opened; what is known to be harmless aside."""
        errors = [*self.page.errors, *self._ask("broken")]
        grave = [each for each in errors if not any(words in each for words in _HARMLESS)]
        expected = (_NOTICE, _TOLD) if errors else (_NOTICE,)
        told = [each for each in self._ask("messages") if not each.startswith(expected)]
        return [*grave, *told]

    def _ask(self, what: str) -> Any:
        return self.page.evaluate(f"eyes.{what}()")


@contextmanager
def viewer(archive: Orthanc, profile: Path) -> Iterator[Viewer]:
    """OHIF in a browser of its own; `profile` is an empty folder."""
    with served(archive) as address, browser(profile, webgl=True) as page:
        yield Viewer(archive, page, address)
