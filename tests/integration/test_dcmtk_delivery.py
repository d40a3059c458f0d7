"""C-STORE to DCMTK's storescp: what it stores, how it aborts, and what is left when it dies or hangs."""

from __future__ import annotations

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ImplicitVRLittleEndian

from dicom_node import echo, errors
from dicom_node.senders import Destination, Outcome, Verdict, open_sender
from dicom_node.senders.files import identify
from tests.support import pacs, peers, phantoms

pytestmark = pytest.mark.peer("dcmtk")


@contextmanager
def storescp(folder: Path, *options: str) -> Iterator[tuple[Destination, subprocess.Popen[bytes]]]:
    """A storescp that stores in `folder`, ready for associations."""
    folder.mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [peers.path("storescp"), "-aet", "STORESCP", "-od", str(folder), *options, str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait_for(port)
        yield (
            Destination(
                name="storescp", ae_title="STORESCP", host="127.0.0.1", port=port, timeout_seconds=5.0
            ),
            process,
        )
    finally:
        process.kill()
        process.wait()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError("storescp did not start")


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return phantoms.write(phantoms.datasets(phantoms.Phantom(shape=(6, 16, 16))), tmp_path / "images")


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert pacs.wait_until(lambda: pacs.network_threads() == []), pacs.network_threads()


def send(destination: Destination, paths: list[Path]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    open_sender(destination).send(paths, outcomes.append)
    return outcomes


def stored(folder: Path) -> dict[str, Path]:
    """SOP Instance UID -> file that storescp wrote."""
    return {str(dcmread(path, stop_before_pixels=True).SOPInstanceUID): path for path in folder.iterdir()}


def test_what_is_told_delivered_is_stored(tmp_path: Path, images: list[Path]) -> None:
    with storescp(tmp_path / "scp") as (destination, _):
        outcomes = send(destination, images)
    assert {each.verdict for each in outcomes} == {Verdict.DELIVERED}
    there = stored(tmp_path / "scp")
    assert set(there) == {each.sop_instance_uid for each in outcomes}
    for path in images:
        assert dcmread(there[identify(path).sop_instance_uid]) == dcmread(path)


def test_a_peer_that_takes_only_implicit_gets_the_same_values(tmp_path: Path, images: list[Path]) -> None:
    with storescp(tmp_path / "scp", "+xi") as (destination, _):
        outcomes = send(destination, images[:2])
    assert {each.verdict for each in outcomes} == {Verdict.DELIVERED}
    for path in images[:2]:
        there = dcmread(stored(tmp_path / "scp")[identify(path).sop_instance_uid])
        assert there.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
        sent = dcmread(path)
        assert [element.tag for element in there] == [element.tag for element in sent]
        assert all(there[element.tag].value == element.value for element in sent)


@pytest.mark.parametrize("option", ["--abort-during", "--abort-after"])
def test_a_peer_that_aborts_leaves_each_instance_one_outcome(
    option: str, tmp_path: Path, images: list[Path]
) -> None:
    # Given a storescp that aborts each association during, or right after, its first instance
    with storescp(tmp_path / "scp", option) as (destination, _):
        began = time.monotonic()
        outcomes = send(destination, images)
        took = time.monotonic() - began
    # Then each instance has one outcome, in order, and none is called delivered without an answer
    assert [each.path for each in outcomes] == images
    assert took < 5
    verdicts = [each.verdict for each in outcomes]
    assert set(verdicts) <= {Verdict.RETRY, Verdict.DELIVERED}
    delivered = {each.sop_instance_uid for each in outcomes if each.verdict is Verdict.DELIVERED}
    assert delivered <= set(stored(tmp_path / "scp"))
    if option == "--abort-during":
        assert delivered == set()


def test_a_peer_that_refuses_every_association(tmp_path: Path, images: list[Path]) -> None:
    with (
        storescp(tmp_path / "scp", "--refuse") as (destination, _),
        pytest.raises(errors.SendError, match="rejected the association"),
    ):
        send(destination, images)


def test_a_peer_killed_midway(tmp_path: Path, images: list[Path]) -> None:
    outcomes: list[Outcome] = []
    with storescp(tmp_path / "scp") as (destination, process):

        def kill_after_two(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if len(outcomes) == 2:
                process.kill()
                process.wait()

        began = time.monotonic()
        open_sender(destination).send(images, kill_after_two)
        # A connection that has closed is noticed at once, not by a time-out (of 5 s here)
        assert time.monotonic() - began < 3
        assert not echo.verify(destination).reachable
    assert [each.path for each in outcomes] == images
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED] * 2 + [Verdict.RETRY] * 4


def test_a_peer_that_stops_reading_in_the_middle_of_a_large_object(tmp_path: Path) -> None:
    # Given a storescp that is stopped (not dead: nobody closes the connection) and 64 MB to send:
    # far more than the kernel's buffers take
    (ds,) = phantoms.datasets(phantoms.Phantom(shape=(1, 16, 16)))
    ds.Rows, ds.Columns = 8192, 4096
    ds.PixelData = np.zeros((8192, 4096), np.uint16).tobytes()
    (large,) = phantoms.write([ds], tmp_path / "large")
    (small,) = phantoms.write(phantoms.datasets(phantoms.Phantom(shape=(1, 16, 16))), tmp_path / "small")
    outcomes: list[Outcome] = []
    with storescp(tmp_path / "scp") as (destination, process):
        impatient = Destination(
            name="storescp", ae_title="STORESCP", host="127.0.0.1", port=destination.port, timeout_seconds=1.0
        )

        def stop_after_one(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if len(outcomes) == 1:
                process.send_signal(signal.SIGSTOP)

        began = time.monotonic()
        open_sender(impatient).send([small, large], stop_after_one)
        took = time.monotonic() - began
        process.send_signal(signal.SIGCONT)
    # Then the send ends in seconds, whatever the object's size would allow
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED, Verdict.RETRY]
    assert took < 20


def test_the_order_of_outcomes_is_the_order_of_files(tmp_path: Path, images: list[Path]) -> None:
    with storescp(tmp_path / "scp") as (destination, _):
        backwards = list(reversed(images))
        assert [each.path for each in send(destination, backwards)] == backwards
