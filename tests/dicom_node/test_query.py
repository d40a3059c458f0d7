"""A peer's own count of a study: asked of real archives, and of peers that answer as none should."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_node import errors, query
from dicom_node.senders import Destination, open_sender
from tests.support import finding, orthanc, peers, phantoms

STUDY = "1.2.826.0.1.3680043.8.498.81"


def _phantoms(folder: Path, **series: int) -> tuple[dict[str, int], list[Path]]:
    """A study's series with so many images each: what is to be counted, and the files."""
    counts: dict[str, int] = {}
    paths: list[Path] = []
    for name, images in series.items():
        uid = f"{STUDY}.{len(counts) + 1}"
        counts[uid] = images
        phantom = phantoms.Phantom(shape=(images, 16, 16), study_uid=STUDY, series_uid=uid)
        paths += phantoms.write(phantoms.datasets(phantom), folder / name)
    return counts, paths


def _store(destination: Destination, paths: Sequence[Path]) -> None:
    said: list[Any] = []
    open_sender(destination).send(paths, said.append)
    assert {str(outcome.verdict) for outcome in said} == {"delivered"}


# Real archives ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[orthanc.Orthanc]:
    with orthanc.running(
        tmp_path_factory.mktemp("orthanc"), settings={"DicomAlwaysAllowFind": True}
    ) as running:
        yield running


@pytest.mark.peer("orthanc")
@pytest.mark.parametrize("by", ["cfind", "qido"])
def test_orthanc_counts_a_study_and_its_series(
    archive: orthanc.Orthanc, tmp_path: Path, by: query.Protocol
) -> None:
    archive.clear()
    counts, paths = _phantoms(tmp_path, thorax=4, scout=2)
    destination = archive.destination() if by == "cfind" else archive.stow_destination()
    assert query.count(destination, STUDY, by=by) is None
    _store(archive.destination(), paths)
    _store(archive.destination(), phantoms.write(phantoms.datasets(phantoms.Phantom()), tmp_path / "other"))
    assert query.count(destination, STUDY, by=by) == query.Counted(series=counts, total=6)


@pytest.mark.peer("orthanc")
@pytest.mark.parametrize("by", ["cfind", "qido"])
def test_orthanc_that_lets_nobody_ask_says_so(tmp_path: Path, by: query.Protocol) -> None:
    closed = {"DicomAlwaysAllowFind": False, "AuthenticationEnabled": True, "RegisteredUsers": {"a": "b"}}
    with orthanc.running(tmp_path, settings=closed, authorization="Basic YTpi") as running:
        destination = running.destination() if by == "cfind" else running.stow_destination()
        with pytest.raises((errors.SendError, errors.QueryError)) as caught:
            query.count(destination, STUDY, by=by)
        expected = "who we are" if by == "qido" else "query|association|contexts"
        assert caught.match(expected)
        if by == "qido":
            allowed = running.stow_destination(authorization="Basic YTpi")
            assert query.count(allowed, STUDY, by=by) is None


@contextmanager
def _dcmqrscp(folder: Path) -> Iterator[Destination]:
    """DCMTK's archive, which has none of the optional numbers."""
    (folder / "store").mkdir(parents=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 16384\nMaxAssociations = 4\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nARCHIVE {folder / 'store'} RW (50, 100mb) ANY\nAETable END\n"
    )
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([peers.path("dcmqrscp"), "-c", configuration], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not _accepts(port):
            time.sleep(0.05)
        yield Destination(name="archive", ae_title="ARCHIVE", host="127.0.0.1", port=port, timeout_seconds=20)
    finally:
        process.kill()
        process.wait()


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.peer("dcmtk")
def test_images_are_counted_one_by_one_where_the_numbers_are_missing(tmp_path: Path) -> None:
    counts, paths = _phantoms(tmp_path, thorax=4, scout=2)
    with _dcmqrscp(tmp_path / "archive") as destination:
        _store(destination, paths)
        assert query.count(destination, STUDY, by="cfind") == query.Counted(series=counts, total=6)
        assert query.count(destination, "1.2.3", by="cfind") is None


# C-FIND, as nobody should answer it ---------------------------------------------------------------


def test_a_peer_that_lists_no_series_gives_its_study_s_number() -> None:
    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        if finding.level(event) == "SERIES":
            yield 0xA900, None
            return
        yield 0xFF00, finding.match(STUDY, "STUDY", NumberOfStudyRelatedInstances=12)

    with finding.running(find) as destination:
        assert query.count(destination, STUDY, by="cfind") == query.Counted(series={}, total=12)


def test_a_list_of_series_that_is_cut_short_does_not_shrink_the_study() -> None:
    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        if finding.level(event) == "STUDY":
            yield 0xFF00, finding.match(STUDY, "STUDY", NumberOfStudyRelatedInstances=12)
        else:
            yield (
                0xFF01,
                finding.match(STUDY, "SERIES", SeriesInstanceUID="1.2.1", NumberOfSeriesRelatedInstances=5),
            )

    with finding.running(find) as destination:
        assert query.count(destination, STUDY, by="cfind") == query.Counted(series={"1.2.1": 5}, total=12)


def test_a_peer_that_ignores_the_key_is_read_for_the_study_asked_about() -> None:
    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        for study in ("1.2.3", "1.2.4"):
            ds = finding.match(STUDY, finding.level(event), NumberOfStudyRelatedInstances=12)
            ds.StudyInstanceUID = study
            yield 0xFF00, ds

    with finding.running(find) as destination:
        assert query.count(destination, STUDY, by="cfind") is None


def _failure(event: Any) -> Iterator[tuple[int, Dataset | None]]:
    yield 0xC001, None


def _abort(event: Any) -> Iterator[tuple[int, Dataset | None]]:
    event.assoc.abort()
    yield 0x0000, None


def _no_numbers(event: Any) -> Iterator[tuple[int, Dataset | None]]:
    if finding.level(event) == "STUDY":
        yield 0xFF00, finding.match(STUDY, "STUDY")


def _no_uid(event: Any) -> Iterator[tuple[int, Dataset | None]]:
    yield 0xFF00, finding.match(STUDY, finding.level(event), SeriesInstanceUID="")


def _trickle(event: Any) -> Iterator[tuple[int, Dataset | None]]:
    for number in range(100):
        time.sleep(0.3)
        if not event.assoc.is_established:
            return
        yield 0xFF00, finding.match(STUDY, finding.level(event), NumberOfStudyRelatedInstances=number)


@pytest.mark.parametrize(
    ("find", "words"),
    [
        (_failure, "answered the query with 0xC001"),
        (_abort, "ended the association instead of answering"),
        (_no_numbers, "tells no number of images"),
        (_no_uid, "lacks a usable SeriesInstanceUID"),
        (_trickle, "not done with answering after 2 s"),
    ],
)
def test_what_cannot_be_used_is_said_in_words(find: finding.Find, words: str) -> None:
    patience = 1.0 if find is _trickle else 5.0
    with (
        finding.running(find, timeout_seconds=patience) as destination,
        pytest.raises(errors.QueryError, match=words),
    ):
        query.count(destination, STUDY, by="cfind")


def test_garbage_for_an_answer_is_no_count(monkeypatch: pytest.MonkeyPatch) -> None:
    from pynetdicom import service_class

    monkeypatch.setattr(service_class, "encode", lambda *_: b"\x08\x00\x52\x00\xff\xff\xff\x7fgarbage")
    with (
        finding.running(lambda event: iter([(0xFF00, finding.match(STUDY, "STUDY"))])) as destination,
        pytest.raises(errors.QueryError),
    ):
        query.count(destination, STUDY, by="cfind")


def test_a_peer_that_never_answers_is_left_in_time() -> None:
    stop = threading.Event()

    def silent(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        stop.wait(20)
        yield 0x0000, None

    with finding.running(silent, timeout_seconds=1.0) as destination:
        began = time.monotonic()
        with pytest.raises(errors.QueryError, match="no answer within 1 s"):
            query.count(destination, STUDY, by="cfind")
        assert time.monotonic() - began < 5
        stop.set()


@pytest.mark.parametrize("by", ["cfind", "qido"])
def test_a_port_that_accepts_and_says_nothing_is_left_in_time(by: query.Protocol) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        destination = Destination(
            name="pacs",
            ae_title="P",
            host="127.0.0.1",
            port=port,
            url=f"http://127.0.0.1:{port}",
            timeout_seconds=1,
        )
        began = time.monotonic()
        with pytest.raises((errors.SendError, errors.QueryError), match="no answer"):
            query.count(destination, STUDY, by=by)
        assert time.monotonic() - began < 5


@pytest.mark.parametrize("by", ["cfind", "qido"])
def test_nobody_there_is_unreachable(by: query.Protocol) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    destination = Destination(
        name="pacs", ae_title="P", host="127.0.0.1", port=port, url=f"http://127.0.0.1:{port}"
    )
    with pytest.raises(errors.Unreachable):
        query.count(destination, STUDY, by=by)


def test_many_series_are_counted_on_one_association() -> None:
    uids = [generate_uid() for _ in range(300)]

    def find(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        if finding.level(event) == "STUDY":
            yield 0xFF00, finding.match(STUDY, "STUDY")
            return
        for uid in uids:
            yield (
                0xFF00,
                finding.match(STUDY, "SERIES", SeriesInstanceUID=uid, NumberOfSeriesRelatedInstances="3 "),
            )

    with finding.running(find, timeout_seconds=20.0) as destination:
        found = query.count(destination, STUDY, by="cfind")
    assert found is not None and (len(found.series), found.total) == (300, 900)


# QIDO-RS, as nobody should answer it --------------------------------------------------------------


@contextmanager
def _serving(answer: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[Destination]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_address[1]}/dicom-web"
            yield Destination(name="pacs", kind="stow", url=url, timeout_seconds=1)
        finally:
            server.shutdown()


def _reply(handler: BaseHTTPRequestHandler, content: bytes, status: int = 200) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def _said(**values: Any) -> dict[str, Any]:
    tags = {"study": "0020000D", "series": "0020000E", "images": "00201208", "of_series": "00201209"}
    return {tags[name]: {"vr": "IS", "Value": [value]} for name, value in values.items()}


@pytest.mark.parametrize(
    ("study", "series", "counted"),
    [
        (
            _said(study=STUDY, images=7),
            [_said(series="1.2.1", of_series="7")],
            query.Counted(series={"1.2.1": 7}, total=7),
        ),
        (_said(study=STUDY, images=7), [_said(series="1.2.1")], query.Counted(series={}, total=7)),
        (
            _said(study=STUDY),
            [_said(series="1.2.1", of_series=7)],
            query.Counted(series={"1.2.1": 7}, total=7),
        ),
        (_said(study="1.2.3", images=7), [], None),
    ],
)
def test_servers_tell_the_numbers_at_one_level_or_the_other(
    study: dict[str, Any], series: list[dict[str, Any]], counted: query.Counted | None
) -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        _reply(handler, json.dumps(series if "/series" in handler.path else [study]).encode())

    with _serving(answer) as destination:
        assert query.count(destination, STUDY, by="qido") == counted


def _endless(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.end_headers()
    try:
        for _ in range(100):
            handler.wfile.write(b"[")
            time.sleep(0.2)
    except OSError:
        pass  # the client has left, as it should


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (lambda handler: _reply(handler, b"", 404), "no QIDO-RS service"),
        (lambda handler: _reply(handler, b"", 403), "HTTP 403"),
        (lambda handler: _reply(handler, b"", 503), "the server failed"),
        (lambda handler: _reply(handler, b"<html>"), "not JSON"),
        (lambda handler: _reply(handler, b"[" * 100_000), "not JSON"),
        (lambda handler: _reply(handler, b'{"a": 1}'), "not DICOM JSON"),
        (lambda handler: _reply(handler, json.dumps([_said(study=STUDY)]).encode()), "Series Instance UID"),
        (_endless, "not done with answering"),
    ],
)
def test_what_a_server_should_not_say(answer: Callable[[BaseHTTPRequestHandler], None], words: str) -> None:
    with _serving(answer) as destination, pytest.raises(errors.QueryError, match=words):
        query.count(destination, STUDY, by="qido")


def test_nothing_found_is_no_count() -> None:
    with _serving(lambda handler: _reply(handler, b"", 204)) as destination:
        assert query.count(destination, STUDY, by="qido") is None
