"""STOW-RS against a real HTTP server on the loopback: what is sent, and what each answer comes to."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email import message_from_bytes
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dicom_node import echo, errors
from dicom_node.senders import Destination, Outcome, Verdict, open_sender, stow, stow_response
from dicom_node.senders.files import identify
from tests.support import phantoms

#: Given the request, returns HTTP status and body.
Answer = Callable[["Request"], tuple[int, bytes]]


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    #: The parts of a multipart body: the files.
    parts: list[bytes] = field(default_factory=list)


@dataclass
class Server:
    port: int
    requests: list[Request]

    def destination(self, **changes: Any) -> Destination:
        url = f"http://127.0.0.1:{self.port}/dicom-web"
        return Destination(**{"name": "web", "kind": "stow", "url": url, "timeout_seconds": 5.0, **changes})


@contextmanager
def serving(answer: Answer) -> Iterator[Server]:
    """A real HTTP/1.1 server that keeps the connection open, as PACS do."""
    requests: list[Request] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            message = message_from_bytes(
                f"Content-Type: {self.headers['Content-Type']}\r\n\r\n".encode() + body
            )
            parts = message.get_payload()
            assert isinstance(parts, list)
            assert {part.get_content_type() for part in parts} == {"application/dicom"}
            self.reply(Request(self.path, dict(self.headers), _bodies(body)))

        def do_GET(self) -> None:
            self.reply(Request(self.path, dict(self.headers)))

        def reply(self, request: Request) -> None:
            requests.append(request)
            status, content = answer(request)
            self.send_response(status)
            self.send_header("Content-Type", "application/dicom+json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield Server(server.server_address[1], requests)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _bodies(body: bytes) -> list[bytes]:
    """The parts' contents, to the byte (the e-mail parser would mend line ends)."""
    boundary = body[: body.index(b"\r\n")]
    assert body.endswith(b"\r\n" + boundary + b"--\r\n")
    parts = body[: -len(b"\r\n" + boundary + b"--\r\n")].split(b"\r\n" + boundary + b"\r\n")
    return [part.split(b"\r\n\r\n", 1)[1] for part in parts]


def response(
    *,
    stored: list[str] | None = None,
    failed: dict[str, int] | None = None,
    warned: dict[str, int] | None = None,
) -> bytes:
    """A DICOM JSON store response (PS3.18 Table 10.5.3-2)."""

    def item(uid: str, reason_tag: str = "", reason: int = 0) -> dict[str, Any]:
        named: dict[str, Any] = {stow_response.REFERENCED_SOP_INSTANCE_UID: {"vr": "UI", "Value": [uid]}}
        if reason_tag:
            named[reason_tag] = {"vr": "US", "Value": [reason]}
        return named

    good = [item(uid) for uid in stored or []]
    good += [item(uid, stow_response.WARNING_REASON, code) for uid, code in (warned or {}).items()]
    bad = [item(uid, stow_response.FAILURE_REASON, code) for uid, code in (failed or {}).items()]
    ds: dict[str, Any] = {}
    if good:
        ds[stow_response.REFERENCED_SOP_SEQUENCE] = {"vr": "SQ", "Value": good}
    if bad:
        ds[stow_response.FAILED_SOP_SEQUENCE] = {"vr": "SQ", "Value": bad}
    return json.dumps(ds).encode()


def store_all(request: Request) -> tuple[int, bytes]:
    return 200, response(stored=[_uid(part) for part in request.parts])


def _uid(part: bytes) -> str:
    start = part.index(b"\x02\x00\x03\x00UI") + 8
    length = int.from_bytes(part[start - 2 : start], "little")
    return part[start : start + length].rstrip(b"\0").decode()


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return phantoms.write(phantoms.datasets(phantoms.Phantom(shape=(4, 16, 16))), tmp_path / "images")


@pytest.fixture
def uids(images: list[Path]) -> list[str]:
    return [identify(path).sop_instance_uid for path in images]


def send(destination: Destination, paths: list[Path]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    open_sender(destination).send(paths, outcomes.append)
    return outcomes


def test_one_request_carries_the_files_as_they_are(images: list[Path], uids: list[str]) -> None:
    with serving(store_all) as server:
        outcomes = send(server.destination(url=f"http://127.0.0.1:{server.port}/dicom-web/"), images)
    assert [(each.sop_instance_uid, each.verdict, each.path) for each in outcomes] == [
        (uid, Verdict.DELIVERED, path) for uid, path in zip(uids, images, strict=True)
    ]
    (request,) = server.requests
    assert request.path == "/dicom-web/studies"
    assert request.parts == [path.read_bytes() for path in images]
    assert request.headers["Accept"] == "application/dicom+json"
    assert request.headers["Content-Type"].startswith(
        'multipart/related; type="application/dicom"; boundary='
    )
    assert "Transfer-Encoding" not in request.headers


def test_each_instance_has_its_own_answer(images: list[Path], uids: list[str]) -> None:
    said = response(stored=uids[:1], warned={uids[1]: 0xB000}, failed={uids[2]: 0xA700, uids[3]: 0x0122})
    with serving(lambda request: (202, said)) as server:
        outcomes = send(server.destination(), images)
    assert [(each.verdict, each.status) for each in outcomes] == [
        (Verdict.DELIVERED, 0x0000),
        (Verdict.WARNING, 0xB000),
        (Verdict.RETRY, 0xA700),
        (Verdict.REFUSED, 0x0122),
    ]


def test_an_instance_that_the_answer_leaves_out_is_not_delivered(images: list[Path], uids: list[str]) -> None:
    with serving(lambda request: (200, response(stored=uids[:3]))) as server:
        outcomes = send(server.destination(), images)
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED] * 3 + [Verdict.RETRY]
    assert "does not say what became of this instance" in outcomes[3].comment


def test_named_as_stored_and_as_failed_is_failed(images: list[Path], uids: list[str]) -> None:
    with serving(lambda request: (202, response(stored=uids[:1], failed={uids[0]: 0xC000}))) as server:
        (outcome,) = send(server.destination(), images[:1])
    assert (outcome.verdict, outcome.status) == (Verdict.REFUSED, 0xC000)


@pytest.mark.parametrize(
    ("status", "verdict", "remedy"),
    [
        (400, Verdict.REFUSED, "cannot read the request"),
        (401, Verdict.REFUSED, "set `authorization`"),
        (403, Verdict.REFUSED, "correct `authorization`"),
        (404, Verdict.REFUSED, "correct `url`"),
        (405, Verdict.REFUSED, "correct `url`"),
        (409, Verdict.REFUSED, "HTTP 409: refused"),
        (413, Verdict.REFUSED, "raise its limit"),
        (415, Verdict.REFUSED, "does not take these objects"),
        (301, Verdict.REFUSED, "has moved"),
        (408, Verdict.RETRY, "timed out"),
        (429, Verdict.RETRY, "slow down"),
        (500, Verdict.RETRY, "failed"),
        (502, Verdict.RETRY, "failed"),
        (503, Verdict.RETRY, "failed"),
        (200, Verdict.WARNING, "names no instance"),
        (202, Verdict.RETRY, "does not say what became"),
        (204, Verdict.RETRY, "does not say what became"),
    ],
)
def test_an_http_status_without_a_dicom_answer(
    status: int, verdict: Verdict, remedy: str, images: list[Path]
) -> None:
    body = b"" if status == 204 else b"<html>sorry</html>"
    with serving(lambda request: (status, body)) as server:
        (outcome,) = send(server.destination(), images[:1])
    assert (outcome.verdict, outcome.status, outcome.path) == (verdict, status, images[0])
    assert remedy in outcome.comment


def test_a_request_that_is_too_large_goes_again_in_halves(images: list[Path]) -> None:
    # Given a server that takes two files at most
    def answer(request: Request) -> tuple[int, bytes]:
        return store_all(request) if len(request.parts) <= 2 else (413, b"")

    with serving(answer) as server:
        outcomes = send(server.destination(), images)
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED] * 4
    assert [len(each.parts) for each in server.requests] == [4, 2, 2]


def test_requests_are_bounded(images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    size = images[0].stat().st_size
    monkeypatch.setattr(stow, "LARGEST_REQUEST", 2 * size)
    with serving(store_all) as server:
        assert len(send(server.destination(), images[:3])) == 3
    assert [len(each.parts) for each in server.requests] == [2, 1]
    # A file that is larger than that goes alone
    monkeypatch.setattr(stow, "LARGEST_REQUEST", 1)
    assert [len(batch) for batch in stow.split([identify(path) for path in images])] == [1, 1, 1, 1]
    monkeypatch.undo()
    monkeypatch.setattr(stow, "MOST_FILES", 3)
    assert [len(batch) for batch in stow.split([identify(path) for path in images])] == [3, 1]


def test_the_authorization_is_sent_and_never_printed(
    images: list[Path], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "Bearer s3cr3t-t0ken"
    with serving(
        lambda request: (401, b"who are you? " + request.headers["Authorization"].encode())
    ) as server:
        destination = server.destination(authorization=secret)
        outcomes = send(destination, images)
        report = echo.verify(destination)
    assert {each.headers["Authorization"] for each in server.requests} == {secret}
    printed = caplog.text + repr(destination) + str(outcomes) + str(report)
    assert "s3cr3t" not in printed
    assert "set `authorization`" in report.problem


@pytest.mark.parametrize("secret", ["Bearer s3cr3t\r\nX-Other: 1", "Bearer s3cr3t\u00e9", "s3cr3t\0"])
def test_an_authorization_that_no_header_can_carry_is_not_printed_either(
    secret: str, images: list[Path]
) -> None:
    destination = Destination(name="web", kind="stow", url="http://127.0.0.1:9/", authorization=secret)
    with pytest.raises(errors.SendError, match="`authorization` holds characters") as raised:
        send(destination, images)
    report = echo.verify(destination)
    assert "s3cr3t" not in f"{raised.value!r} {raised.getrepr(chain=True).reprcrash} {report}"


def test_nobody_listening(images: list[Path]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        destination = Destination(name="web", kind="stow", url=f"http://127.0.0.1:{unused.getsockname()[1]}/")
        with pytest.raises(errors.Unreachable, match="cannot connect"):
            send(destination, images)
        report = echo.verify(destination)
    assert (report.reachable, report.healthy) == (False, False)


@pytest.mark.parametrize("url", ["pacs:8042/dicom-web", "ftp://pacs/", "http://[::1", ""])
def test_an_address_that_is_none(url: str, images: list[Path]) -> None:
    destination = Destination(name="web", kind="stow", url=url)
    with pytest.raises(errors.Unreachable, match="not a web address; correct `url`"):
        send(destination, images)
    assert "not a web address" in echo.verify(destination).problem


def test_a_server_that_does_not_answer_is_tried_again_later(images: list[Path]) -> None:
    gate = threading.Event()

    def answer(request: Request) -> tuple[int, bytes]:
        gate.wait(10)
        return 500, b""

    with serving(answer) as server:
        outcomes = send(server.destination(timeout_seconds=0.3), images)
        gate.set()
    assert {each.verdict for each in outcomes} == {Verdict.RETRY}
    assert {each.comment for each in outcomes} == {"no answer: ReadTimeout"}
    assert len(outcomes) == 4


def test_a_server_that_breaks_off_is_tried_again_later(images: list[Path]) -> None:
    listening = socket.create_server(("127.0.0.1", 0))

    def break_off() -> None:
        connection, _ = listening.accept()
        connection.recv(10)
        connection.close()

    thread = threading.Thread(target=break_off)
    thread.start()
    with listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        outcomes = send(Destination(name="web", kind="stow", url=url, timeout_seconds=5), images)
    thread.join()
    assert [(each.path, each.verdict, each.status) for each in outcomes] == [
        (path, Verdict.RETRY, None) for path in images
    ]


def test_a_server_lost_after_the_first_request_leaves_the_rest_for_later(
    images: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a server that answers one request, closes the connection and is gone
    monkeypatch.setattr(stow, "MOST_FILES", 1)
    listening = socket.create_server(("127.0.0.1", 0))

    def answer_once() -> None:
        connection, _ = listening.accept()
        listening.close()
        with connection:
            while b"--\r\n" not in connection.recv(65536)[-4:]:
                pass
            content = response(stored=[identify(images[0]).sop_instance_uid])
            head = f"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {len(content)}\r\n\r\n"
            connection.sendall(head.encode() + content)

    thread = threading.Thread(target=answer_once)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    outcomes = send(Destination(name="web", kind="stow", url=url, timeout_seconds=5), images)
    thread.join()
    assert [each.path for each in outcomes] == images
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED] + [Verdict.RETRY] * 3
    assert "cannot connect" in outcomes[1].comment


def test_a_file_that_is_no_dicom_is_refused_and_the_others_go(tmp_path: Path, images: list[Path]) -> None:
    text = tmp_path / "readme.txt"
    text.write_text("not an image")
    with serving(store_all) as server:
        outcomes = send(server.destination(), [images[0], text, images[1]])
    assert {each.path: each.verdict for each in outcomes} == {
        images[0]: Verdict.DELIVERED,
        text: Verdict.REFUSED,
        images[1]: Verdict.DELIVERED,
    }
    with serving(store_all) as server:
        assert [each.verdict for each in send(server.destination(), [text])] == [Verdict.REFUSED]
    assert server.requests == []


def test_the_probe_asks_and_stores_nothing() -> None:
    with serving(lambda request: (200, b"[]")) as server:
        report = echo.verify(server.destination())
    assert report.healthy
    assert [each.path for each in server.requests] == ["/dicom-web/studies?limit=1"]
    with serving(lambda request: (404, b"")) as server:
        report = echo.verify(server.destination())
    assert (report.reachable, report.healthy) == (True, False)
    assert "correct `url`" in report.problem


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b"{}", b"<xml/>", b'"text"', b"[1, 2]", b"\xff\xfe", b'{"00081199": 5}', b"12"],
)
def test_what_is_no_store_response_names_nothing(body: bytes) -> None:
    answer = stow_response.parse(body)
    assert answer is None or answer.reasons == {}


def test_odd_store_responses() -> None:
    # A list around the object, a failure without a reason, an item without a UID
    body = json.loads(response(stored=["1.1"], failed={"1.2": 0xC000}))
    failed = body[stow_response.FAILED_SOP_SEQUENCE]["Value"]
    del failed[0][stow_response.FAILURE_REASON]
    failed.append({stow_response.FAILURE_REASON: {"vr": "US", "Value": [1]}})
    answer = stow_response.parse(json.dumps([body]).encode())
    assert answer is not None
    assert answer.reasons == {"1.1": 0x0000, "1.2": 0x0110}
