"""A real Chromium without a window, driven through its DevTools protocol over a pipe."""

from __future__ import annotations

import base64
import io
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tests.support import peers

#: Chromium talks on descriptors 3 (to it) and 4 (from it); duplicated high first, so that neither is trodden on.
_MOVE_PIPES = (
    "import fcntl, os, sys\n"
    "to, back = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 20) for fd in sys.argv[1:3])\n"
    "os.dup2(to, 3); os.dup2(back, 4)\n"
    "os.execv(sys.argv[3], sys.argv[3:])\n"
)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
_WITHOUT_WEBGL = ("--disable-gpu",)
#: WebGL in software, which Chromium does not take for safe with pages that one does not know.
_WITH_WEBGL = (
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)


class Page:
    """One tab: what it shows, and what went wrong in it."""

    def __init__(self, to: BinaryIO, back: io.BufferedReader) -> None:
        self._to = to
        self._back = back
        self._read = bytearray()
        self._ids = itertools.count(1)
        self._session: str | None = None
        self._events: list[dict[str, Any]] = []
        #: Errors of the console, of scripts, of loading, and of the content security policy.
        self.errors: list[str] = []
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, parameters: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Send a command and return its result; what happens meanwhile is kept."""
        number = next(self._ids)
        message: dict[str, Any] = {"id": number, "method": method, "params": dict(parameters or {})}
        if self._session:
            message["sessionId"] = self._session
        self._to.write(json.dumps(message).encode() + b"\0")
        self._to.flush()
        while True:
            answer = self._next()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                result: dict[str, Any] = answer["result"]
                return result

    def _next(self) -> dict[str, Any]:
        """The next message; events are noted."""
        while (end := self._read.find(b"\0")) < 0:
            more = self._back.read1()
            assert more, "Chromium ended"
            self._read += more
        message: dict[str, Any] = json.loads(self._read[:end])
        del self._read[: end + 1]
        if "method" in message:
            self._note(message["method"], message["params"])
            self._events.append(message)
        return message

    def _note(self, method: str, said: dict[str, Any]) -> None:
        """Keep what went wrong; say yes to what is asked."""
        if method == "Log.entryAdded" and said["entry"]["level"] == "error":
            self.errors.append(f"{said['entry']['text']} {said['entry'].get('url', '')}")
        elif method == "Runtime.exceptionThrown":
            details = said["exceptionDetails"]
            self.errors.append(f"{details['text']} {details.get('exception', {}).get('description', '')}")
        elif method == "Runtime.consoleAPICalled" and said["type"] in ("error", "assert"):
            self.errors.append(str([value.get("value", value.get("description")) for value in said["args"]]))
        elif method == "Page.javascriptDialogOpening":
            message = {
                "id": next(self._ids),
                "method": "Page.handleJavaScriptDialog",
                "params": {"accept": True},
            }
            self._to.write(json.dumps({**message, "sessionId": self._session}).encode() + b"\0")
            self._to.flush()

    def size(self, width: int, height: int, *, dark: bool = False) -> None:
        """Look through a window of this size, in the light or in the dark."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False},
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, address: str) -> None:
        """Go there and wait until it has loaded."""
        self._events.clear()
        self.call("Page.navigate", {"url": address})
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._next()

    def evaluate(self, expression: str) -> Any:
        """The value of a script's expression; a promise is waited for."""
        said = self.call(
            "Runtime.evaluate",
            {"expression": expression, "returnByValue": True, "awaitPromise": True, "userGesture": True},
        )
        assert "exceptionDetails" not in said, said
        return said["result"].get("value")

    def wait_for(self, expression: str, *, seconds: float = 20) -> None:
        """Wait until a script's expression is true."""
        deadline = time.monotonic() + seconds
        while not self.evaluate(expression):
            assert time.monotonic() < deadline, expression
            time.sleep(0.1)

    def press(self, key: str) -> None:
        """Press and let go of a key, e.g. "Tab"."""
        codes = {"Tab": 9, "Enter": 13}
        for kind in ("rawKeyDown", "keyUp"):
            event = {"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
            self.call("Input.dispatchKeyEvent", event)

    def roll(self, x: float, y: float, notches: int) -> None:
        """Turn the mouse wheel over a point, towards the user where `notches` is above 0."""
        event = {"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": 100 if notches > 0 else -100}
        for _ in range(abs(notches)):
            self.call("Input.dispatchMouseEvent", event)

    def click(self, x: float, y: float, *, times: int = 1) -> None:
        """Click a point; twice for a double click."""
        self.call("Input.dispatchMouseEvent", {"type": "mouseMoved", "x": x, "y": y})
        for count in range(1, times + 1):
            for kind in ("mousePressed", "mouseReleased"):
                event = {"type": kind, "x": x, "y": y, "button": "left", "clickCount": count}
                self.call("Input.dispatchMouseEvent", event)

    def photograph(self, path: Path) -> None:
        """Write the whole page, beyond the window too, as a PNG."""
        path.write_bytes(self._shot({"captureBeyondViewport": True}))

    def picture(self, x: float, y: float, width: float, height: float) -> bytes:
        """A PNG of a rectangle of what the window shows."""
        return self._shot({"clip": {"x": x, "y": y, "width": width, "height": height, "scale": 1}})

    def _shot(self, how: Mapping[str, Any]) -> bytes:
        shot = self.call("Page.captureScreenshot", {"format": "png", **how})
        return base64.b64decode(shot["data"])


@contextmanager
def browser(profile: Path, *, webgl: bool = False) -> Iterator[Page]:
    """A tab of a Chromium that knows nothing: `profile` is an empty folder of its own."""
    to_read, to_write = os.pipe()
    back_read, back_write = os.pipe()
    drawing = _WITH_WEBGL if webgl else _WITHOUT_WEBGL
    command = [peers.path("chromium"), *_FLAGS, *drawing, f"--user-data-dir={profile}"]
    with (profile / "chromium.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-c", _MOVE_PIPES, str(to_read), str(back_write), *command],
            pass_fds=(to_read, back_write),
            stdout=log,
            stderr=log,
        )
    os.close(to_read)
    os.close(back_write)
    try:
        with os.fdopen(to_write, "wb") as to, os.fdopen(back_read, "rb") as back:
            page = Page(to, back)
            yield page
            page._session = None
            page.call("Browser.close")
        process.wait(timeout=20)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
