"""The listener against DCMTK's senders."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicom_node import stored_files
from dicom_node.file_meta import decode
from dicom_node.listener import KnownPeer
from dicom_node.spool import Spool
from dicom_node.statuses import StoreStatus
from tests.support import peers
from tests.support.listening import (
    CT,
    EXPLICIT,
    Wire,
    data_set_bytes,
    listening,
    store_command,
    until,
    value,
)
from tests.support.phantoms import Phantom, datasets, write

pytestmark = pytest.mark.peer("dcmtk")


def run(program: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run one of DCMTK's programs to its end."""
    return subprocess.run(
        [peers.path(program), *map(str, arguments)],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=60,
        check=False,
        env={**os.environ, "TCP_NODELAY": "1"},
    )


def send(port: int, *files: Path, program: tuple[str, ...] = ("dcmsend", "-nuc")) -> int:
    """Send files over one association; the sender's exit status."""
    return run(*program, "-aet", "SENDER", "-aec", "SECONDREAD", "127.0.0.1", port, *files).returncode


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write(datasets(Phantom(shape=(1, 32, 40))), tmp_path / "images")[0]


@contextmanager
def process(root: Path, port: int = 0) -> Iterator[subprocess.Popen[str]]:
    """A listener in its own process; `port_of` tells where."""
    started = subprocess.Popen(
        [sys.executable, "-m", "tests.support.listening", str(root), str(port)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert started.stdout is not None
    try:
        yield started
    finally:
        started.kill()
        started.wait(30)
        started.stdout.close()


def port_of(started: subprocess.Popen[str]) -> int:
    assert started.stdout is not None
    return int(started.stdout.readline())


# Who may call


def test_a_known_peer_stores(tmp_path: Path, image: Path) -> None:
    known = (KnownPeer(name="scanner", ae_title="SENDER", host="localhost"),)
    with listening(tmp_path / "spool", peers=known, require_known_peers=True) as node:
        assert run("echoscu", "-aet", "SENDER", "-aec", "SECONDREAD", "127.0.0.1", node.port).returncode == 0
        assert send(node.port, image, program=("storescu",)) == 0

        node.events.wait("released", count=2)
        assert [event.peer for event in node.events.associations] == ["scanner"] * 4
        assert len(node.dicom_files()) == 1


@pytest.mark.parametrize(
    ("called", "known", "said", "reason"),
    [
        ("OTHER", ("SENDER", "127.0.0.1"), "Called AE Title Not Recognized", "it called 'OTHER', and we are"),
        ("SECONDREAD", ("STRANGER", "127.0.0.1"), "Calling AE Title Not Recognized", "not that of a known"),
        ("SECONDREAD", ("SENDER", "192.0.2.1"), "Calling AE Title Not Recognized", "not at this address"),
        ("SECONDREAD", ("SENDER", "10.0.0.0/8"), "Calling AE Title Not Recognized", "not at this address"),
        ("SECONDREAD", ("SENDER", "scanner.invalid"), "Calling AE Title Not Recognized", "not at this"),
    ],
    ids=["called", "calling", "address", "network", "name"],
)
def test_a_rejected_association_stores_nothing(
    tmp_path: Path, image: Path, called: str, known: tuple[str, str], said: str, reason: str
) -> None:
    peer = KnownPeer(name="scanner", ae_title=known[0], host=known[1])
    with listening(tmp_path / "spool", peers=(peer,), require_known_peers=True) as node:
        answer = run("storescu", "-aet", "SENDER", "-aec", called, "127.0.0.1", node.port, image)

        assert answer.returncode != 0
        assert said in answer.stderr and "Rejected Permanent" in answer.stderr
        assert reason in node.events.wait("rejected").reason
        assert node.events.kinds == ["rejected"]
        assert node.dicom_files() == [] and node.events.stored == []


# What is stored


@contextmanager
def storescp(folder: Path) -> Iterator[int]:
    """DCMTK's own receiver, told to keep the bytes as they come."""
    folder.mkdir()
    port = free_port()
    started = subprocess.Popen(
        [peers.path("storescp"), "+B", "+xa", "-od", str(folder), str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: run("echoscu", "127.0.0.1", port).returncode == 0, "storescp to listen")
        yield port
    finally:
        started.terminate()
        started.wait(30)


def content(path: Path) -> tuple[str, bytes]:
    """(transfer syntax, bytes of the data set) of a file."""
    whole = path.read_bytes()
    meta = decode(whole)
    return meta.transfer_syntax_uid, whole[meta.data_offset :]


def compare_with_dcmtk(
    files: list[Path], tmp_path: Path, program: tuple[str, ...] = ("dcmsend", "-nuc")
) -> set[str]:
    """Send each file to DCMTK and to us; both must hold the same bytes. The syntaxes that were sent."""
    syntaxes = set()
    theirs = tmp_path / "dcmtk"
    with storescp(theirs) as port, listening(tmp_path / "spool") as node:
        for path in files:
            assert send(port, path, program=program) == 0, path.name
            assert send(node.port, path, program=program) == 0, path.name
            (reference,) = theirs.iterdir()
            assert content(node.spool.root / node.events.stored[-1].path) == content(reference), path.name
            syntaxes.add(content(reference)[0])
            reference.unlink()
    return syntaxes


def test_real_images_are_stored_as_dcmtk_stores_them_bit_by_bit(tmp_path: Path, data: Path) -> None:
    # Given real images: RLE, JPEG Lossless, JPEG-LS, JPEG 2000, deflated
    files = [*sorted((data / "mr_compressed").rglob("*.dcm")), data / "dirty" / "image_dfl.dcm"]

    assert compare_with_dcmtk(files, tmp_path) == {
        "1.2.840.10008.1.2.5",
        "1.2.840.10008.1.2.4.70",
        "1.2.840.10008.1.2.4.80",
        "1.2.840.10008.1.2.4.90",
        "1.2.840.10008.1.2.1.99",
    }


@pytest.mark.parametrize(
    ("option", "name", "syntax"),
    [
        ("-xb", "dirty/ExplVR_BigEnd.dcm", "1.2.840.10008.1.2.2"),
        ("-xe", "mr_missing_slice/1-01.dcm", EXPLICIT),
        ("-xi", "mr_missing_slice/1-01.dcm", "1.2.840.10008.1.2"),
    ],
)
def test_uncompressed_images_too(tmp_path: Path, data: Path, option: str, name: str, syntax: str) -> None:
    assert compare_with_dcmtk([data / name], tmp_path, ("storescu", option)) == {syntax}


def test_a_syntax_that_dcmtk_does_not_know_is_stored_as_it_is(tmp_path: Path, data: Path) -> None:
    (path,) = (data / "ct_htj2k").glob("*.dcm")
    with listening(tmp_path / "spool") as node, Wire(node.port) as wire:
        meta = decode(path.read_bytes())
        wire.associate({1: (meta.sop_class_uid, [meta.transfer_syntax_uid])})
        sent = data_set_bytes(path)
        wire.send_values(value(1, 0x03, store_command(meta.sop_class_uid, meta.sop_instance_uid)))
        for at in range(0, len(sent), 16000):
            last = at + 16000 >= len(sent)
            wire.send_values(value(1, 0x02 if last else 0x00, sent[at : at + 16000]))
        assert wire.status() == StoreStatus.SUCCESS

        (stored,) = node.dicom_files()
        assert data_set_bytes(stored) == sent
        assert node.events.stored[0].transfer_syntax_uid == meta.transfer_syntax_uid


def test_names_in_every_character_set_are_left_untouched(tmp_path: Path, data: Path) -> None:
    # All of them but the two that have no Study Instance UID
    files = [path for path in sorted((data / "charsets").glob("*.dcm")) if "SQEncoding" not in path.name]
    assert len(files) >= 15

    compare_with_dcmtk(files, tmp_path)


def test_sending_again_stores_once(tmp_path: Path, image: Path) -> None:
    with listening(tmp_path / "spool") as node:
        assert [send(node.port, image) for _ in range(3)] == [0, 0, 0]

        assert [stored.duplicate for stored in node.events.stored] == [False, True, True]
        assert len(node.dicom_files()) == 1


def test_another_image_under_the_same_uid_is_kept_beside_it(tmp_path: Path, image: Path) -> None:
    with listening(tmp_path / "spool") as node:
        assert send(node.port, image) == 0
        first = node.dicom_files()[0]
        before = first.read_bytes()
        assert run("dcmodify", "-nb", "-m", "PatientID=SOMEBODY-ELSE", image).returncode == 0

        assert send(node.port, image) == 0

        assert [stored.conflicting for stored in node.events.stored] == [False, True]
        assert first.read_bytes() == before
        assert len(node.dicom_files()) == 2


# What is refused


def test_below_the_watermark_the_sender_is_told_to_wait(tmp_path: Path, image: Path) -> None:
    with listening(tmp_path / "spool", watermark_bytes=1 << 60) as node:
        answer = run("storescu", "-v", "-aec", "SECONDREAD", "127.0.0.1", node.port, image)

        assert answer.returncode != 0
        assert "OutOfResources" in answer.stdout + answer.stderr
        node.events.wait("released")
        (refused,) = node.events.refusals
        assert refused.status == StoreStatus.OUT_OF_RESOURCES and "watermark" in refused.reason
        assert node.dicom_files() == []


def test_an_image_without_study_uid_is_refused(tmp_path: Path, image: Path) -> None:
    assert run("dcmodify", "-nb", "-ea", "StudyInstanceUID", image).returncode == 0
    with listening(tmp_path / "spool") as node:
        answer = run("storescu", "-v", "-aec", "SECONDREAD", "127.0.0.1", node.port, image)

        assert "CannotUnderstand" in answer.stdout + answer.stderr
        (refused,) = node.events.refusals
        assert "Study Instance UID" in refused.reason


def test_an_image_whose_uid_holds_a_path_is_refused(tmp_path: Path, image: Path) -> None:
    assert run("dcmodify", "-nb", "-m", "StudyInstanceUID=../../../../tmp/owned", image).returncode == 0
    with listening(tmp_path / "spool") as node:
        assert send(node.port, image, program=("storescu",)) != 0

        assert [refused.status for refused in node.events.refusals] == [StoreStatus.BAD_UID]
        assert node.dicom_files() == []


# What goes wrong on the way


def test_an_abort_is_recorded(tmp_path: Path, image: Path) -> None:
    with listening(tmp_path / "spool") as node:
        run("storescu", "--abort", "-aec", "SECONDREAD", "127.0.0.1", node.port, image)

        node.events.wait("aborted")
        assert node.events.kinds == ["opened", "aborted"]
        assert len(node.dicom_files()) == 1


def test_kill_in_mid_transfer_leaves_no_image_and_sending_again_works(tmp_path: Path) -> None:
    # Given a listener that is killed with two thirds of an image written
    ds = datasets(Phantom(shape=(1, 1500, 1000)))[0]
    (path,) = write([ds], tmp_path / "images")
    sent = data_set_bytes(path)
    spool = tmp_path / "spool"
    with process(spool) as listener, Wire(port_of(listener)) as wire:
        wire.associate({1: (CT, [EXPLICIT])})
        wire.send_values(value(1, 0x03, store_command(CT, ds.SOPInstanceUID)))
        for at in range(0, 2_000_000, 100_000):
            wire.send_values(value(1, 0x00, sent[at : at + 100_000]))
        until(lambda: list(spool.glob("incoming/*/*.part")) != [], "the file to be begun")
        listener.send_signal(signal.SIGKILL)
        listener.wait(30)
    assert list(spool.glob("[0-9]*/*/*.dcm")) == []

    # Then a new one takes the image, and what was unfinished lies aside
    with process(spool) as listener:
        assert send(port_of(listener), path) == 0
        (stored,) = spool.glob("[0-9]*/*/*.dcm")
        assert data_set_bytes(stored) == sent
        assert len(list((spool / "partial").iterdir())) == 1


def test_kill_loses_no_acknowledged_image(tmp_path: Path) -> None:
    # Given a sender that notes what was acknowledged, and a listener that is killed meanwhile
    made = datasets(Phantom(shape=(400, 64, 64)))
    acknowledged: list[str] = []
    spool = tmp_path / "spool"
    with process(spool) as listener, Wire(port_of(listener)) as wire:
        wire.associate({1: (CT, [EXPLICIT])})
        killer = threading.Thread(
            target=lambda: (until(lambda: len(acknowledged) >= 20, "some images"), listener.kill())
        )
        killer.start()
        for ds in made:
            uid = str(ds.SOPInstanceUID)
            try:
                wire.send_values(value(1, 0x03, store_command(CT, uid)), value(1, 0x02, data_set_bytes(ds)))
                assert wire.status() == StoreStatus.SUCCESS
            except (OSError, AssertionError):
                break
            acknowledged.append(uid)
        killer.join()

    # Then each of them is there, whole
    assert 20 <= len(acknowledged) < len(made)
    with Spool(spool, watermark_bytes=0) as opened:
        found = {stored.sop_instance_uid: stored for stored in stored_files.scan(opened.root)}
    sent = {ds.SOPInstanceUID: ds for ds in made}
    for uid in acknowledged:
        assert data_set_bytes(spool / found[uid].path) == data_set_bytes(sent[uid])


def test_stop_in_mid_transfer_keeps_what_was_acknowledged(tmp_path: Path) -> None:
    files = write(datasets(Phantom(shape=(150, 256, 256))), tmp_path / "images")
    with listening(tmp_path / "spool") as node:
        answers: list[int] = []
        sender = threading.Thread(target=lambda: answers.append(send(node.port, *files)))
        sender.start()
        until(lambda: len(node.events.stored) >= 5, "some images")
        began = time.monotonic()
        node.listener.stop()
        took = time.monotonic() - began
        sender.join(60)

        # Then the sender knows that it is not done, and the spool holds what was told, nothing half
        assert answers != [0]
        assert took < 10
        assert 5 <= len(node.events.stored) < 150
        assert len(node.dicom_files()) == len(node.events.stored)
        assert list(node.spool.root.glob("incoming/*/*.part")) == []
        assert len(node.events.kinds) == 2


def test_two_processes_share_a_port(tmp_path: Path) -> None:
    files = write(datasets(Phantom(shape=(24, 16, 16))), tmp_path / "images")
    spool = tmp_path / "spool"
    with process(spool) as first:
        port = port_of(first)
        with process(spool, port) as second:
            assert port_of(second) == port
            assert [send(port, path) for path in files] == [0] * len(files)
            assert len(list(spool.glob("[0-9]*/*/*.dcm"))) == len(files)

            # Then both took some, by what they printed
            shares = []
            for listener in (first, second):
                listener.terminate()
                assert listener.stdout is not None
                shares.append(len(listener.stdout.read().split()))
            assert sum(shares) == len(files) and min(shares) > 0
