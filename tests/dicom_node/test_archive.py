"""The small receiving PACS: what it stores, what it remembers, what it refuses."""

from __future__ import annotations

import socket
import subprocess
import threading
from pathlib import Path

import pytest
from pydicom import dcmread
from pynetdicom.sop_class import LabelMapSegmentationStorage

from dicom_node import echo, errors
from dicom_node.archive import Archive, Received
from dicom_node.senders import Destination, Outcome, Verdict, open_sender
from dicom_node.senders.files import identify
from tests.support import peers, phantoms


def destination(archive: Archive, **changes: str) -> Destination:
    known = {"name": "archive", "ae_title": archive.ae_title, "host": archive.host}
    return Destination(**{**known, **changes}, port=archive.port)


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return phantoms.write(phantoms.datasets(phantoms.Phantom(shape=(4, 16, 16))), tmp_path / "images")


def test_what_is_sent_is_stored_and_remembered(tmp_path: Path, images: list[Path]) -> None:
    told: list[Received] = []
    with Archive(tmp_path / "pacs", ae_title="ARCHIVE", on_received=told.append) as archive:
        assert not archive.wait_for(1, timeout=0.01)
        outcomes: list[Outcome] = []
        sending = threading.Thread(
            target=open_sender(destination(archive)).send, args=(images, outcomes.append)
        )
        sending.start()
        assert archive.wait_for(4, timeout=10)
        sending.join()
        assert list(archive.received) == told
    assert {each.verdict for each in outcomes} == {Verdict.DELIVERED}
    for path, received in zip(images, told, strict=True):
        sent = identify(path)
        assert (received.sop_class_uid, received.sop_instance_uid) == (
            sent.sop_class_uid,
            sent.sop_instance_uid,
        )
        assert received.at.tzinfo is not None
        # The same data set under a file meta of its own
        assert identify(received.path).transfer_syntax_uid == sent.transfer_syntax_uid
        assert dcmread(received.path) == dcmread(path)
    assert sorted(each.path for each in told) == sorted((tmp_path / "pacs").rglob("*.dcm"))


def test_a_second_copy_is_remembered_but_not_kept_twice(tmp_path: Path, images: list[Path]) -> None:
    with Archive(tmp_path / "pacs", ae_title="ARCHIVE") as archive:
        for _ in range(2):
            open_sender(destination(archive)).send(images[:1], lambda outcome: None)
        assert len(archive.received) == 2
        assert len(list(archive.folder.rglob("*.dcm"))) == 1


def test_it_takes_every_object_that_we_make_and_label_maps(tmp_path: Path) -> None:
    wanted = [*echo.RESULT_CONTEXTS, (str(LabelMapSegmentationStorage), "1.2.840.10008.1.2.1")]
    with Archive(tmp_path / "pacs", ae_title="ARCHIVE") as archive:
        report = echo.verify(destination(archive), wanted)
    assert report.healthy
    assert report.accepted == tuple(wanted)


def test_another_ae_title_is_rejected(tmp_path: Path, images: list[Path]) -> None:
    with (
        Archive(tmp_path / "pacs", ae_title="ARCHIVE") as archive,
        pytest.raises(errors.SendError, match="it is not called 'OTHER'"),
    ):
        open_sender(destination(archive, ae_title="OTHER")).send(images, lambda outcome: None)
    assert list((tmp_path / "pacs").rglob("*.dcm")) == []


def test_an_instance_that_cannot_be_written_is_to_be_sent_again(tmp_path: Path, images: list[Path]) -> None:
    outcomes: list[Outcome] = []
    with Archive(tmp_path / "pacs", ae_title="ARCHIVE") as archive:
        # Given a file in the place of the study's folder
        (archive.folder / str(dcmread(images[0]).StudyInstanceUID)).write_text("in the way")
        open_sender(destination(archive)).send(images[:1], outcomes.append)
        assert archive.received == ()
    assert [(each.verdict, each.status) for each in outcomes] == [(Verdict.RETRY, 0xA700)]


def test_a_port_that_is_taken_is_an_error_and_leaves_nothing_open(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        archive = Archive(tmp_path / "pacs", ae_title="ARCHIVE", port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            archive.__enter__()
    with archive:
        assert echo.verify(destination(archive)).echo_status == 0x0000


def test_the_port_is_free_again_afterwards(tmp_path: Path) -> None:
    with Archive(tmp_path / "pacs", ae_title="ARCHIVE") as first:
        port = first.port
    with Archive(tmp_path / "pacs", ae_title="ARCHIVE", port=port) as second:
        assert echo.verify(destination(second)).echo_status == 0x0000


@pytest.mark.peer("dcmtk")
def test_dcmtk_can_send_to_it(tmp_path: Path, images: list[Path]) -> None:
    with Archive(tmp_path / "pacs", ae_title="ARCHIVE") as archive:
        subprocess.run(
            [peers.path("storescu"), "-aec", "ARCHIVE", archive.host, str(archive.port), *map(str, images)],
            check=True,
            timeout=60,
        )
        assert len(archive.received) == 4


@pytest.mark.peer("dcmtk")
def test_a_uid_with_a_path_in_it_names_no_file(tmp_path: Path, images: list[Path]) -> None:
    # Given an image whose SOP Instance UID climbs out of the folder
    uid = identify(images[0]).sop_instance_uid
    evil = tmp_path / "evil.dcm"
    evil.write_bytes(images[0].read_bytes().replace(uid.encode(), b"../../escaped".ljust(len(uid), b"x")))
    with Archive(tmp_path / "a" / "pacs", ae_title="ARCHIVE") as archive:
        done = subprocess.run(
            [peers.path("storescu"), "-v", "-aec", "ARCHIVE", archive.host, str(archive.port), str(evil)],
            check=False,
            capture_output=True,
            timeout=60,
        )
        assert archive.received == ()
    assert b"Received Store Response (Success)" not in done.stdout + done.stderr
    assert not list(tmp_path.rglob("escaped*"))
