"""C-STORE against real associations on the loopback: negotiation, statuses, losses."""

from __future__ import annotations

import gc
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    SegmentationStorage,
    generate_uid,
)
from pynetdicom.sop_class import Verification

from dicom_node import errors
from dicom_node.senders import Outcome, Verdict, contexts, open_sender
from dicom_node.senders.association import REJECTIONS
from dicom_node.senders.files import identify
from tests.support import pacs, phantoms

STORAGE_CLASSES = [uid for uid, _ in pacs.everything() if uid != Verification]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert pacs.wait_until(lambda: pacs.network_threads() == []), pacs.network_threads()


@pytest.fixture
def images(tmp_path: Path) -> list[Path]:
    return phantoms.write(phantoms.datasets(phantoms.Phantom(shape=(5, 16, 16))), tmp_path / "images")


def make(path: Path, *, sop_class: str = CTImageStorage, syntax: str = ExplicitVRLittleEndian) -> Path:
    """A small object of any class and syntax; a compressed one is so by name only."""
    (ds,) = phantoms.datasets(phantoms.Phantom(shape=(1, 16, 16)))
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = sop_class
    compressed = UID(syntax).is_compressed
    if not compressed:
        ds.file_meta.TransferSyntaxUID = syntax
    ds.save_as(path, enforce_file_format=True)
    if compressed:
        behind = data_set(path.read_bytes())
        ds.file_meta.TransferSyntaxUID = syntax
        with path.open("wb") as file:
            file.write(bytes(128) + b"DICM")
            write_file_meta_info(file, ds.file_meta)
            file.write(behind)
    return path


def data_set(content: bytes) -> bytes:
    """The bytes behind the file meta of a Part 10 file."""
    file = BytesIO(content)
    length = int.from_bytes(content[140:144], "little")  # File Meta Information Group Length
    file.seek(144 + length)
    return file.read()


def send(destination: Any, paths: list[Path]) -> list[Outcome]:
    outcomes: list[Outcome] = []
    open_sender(destination).send(paths, outcomes.append)
    return outcomes


def test_the_files_bytes_arrive_as_they_are_on_one_association(images: list[Path]) -> None:
    with pacs.running() as peer:
        outcomes = send(peer.destination(), images)
        assert pacs.wait_until(lambda: peer.released == 1)
    assert [(each.verdict, each.status, each.path) for each in outcomes] == [
        (Verdict.DELIVERED, 0x0000, path) for path in images
    ]
    assert [each.sop_instance_uid for each in outcomes] == [each[1] for each in peer.stored]
    assert [each[3] for each in peer.stored] == [data_set(path.read_bytes()) for path in images]
    assert len(peer.associations) == 1
    assert peer.aborted == 0


def test_nothing_to_send_makes_no_association() -> None:
    with pacs.running() as peer:
        assert send(peer.destination(), []) == []
        assert peer.associations == []


#: Every kind of answer that PS3.4 Table B.2-1 and PS3.7 Annex C name.
ANSWERS = {
    0x0000: Verdict.DELIVERED,
    0xB000: Verdict.WARNING,
    0xB006: Verdict.WARNING,
    0xB007: Verdict.WARNING,
    0x0111: Verdict.WARNING,
    0xA700: Verdict.RETRY,
    0xA7AB: Verdict.RETRY,
    0x0110: Verdict.RETRY,
    0x0213: Verdict.RETRY,
    0xA900: Verdict.REFUSED,
    0xC000: Verdict.REFUSED,
    0xCABC: Verdict.REFUSED,
    0x0122: Verdict.REFUSED,
    0x0124: Verdict.REFUSED,
    0x0211: Verdict.REFUSED,
    0x0212: Verdict.REFUSED,
    0x0117: Verdict.REFUSED,
    0x5555: Verdict.RETRY,
}


def test_each_instances_status_is_its_own_on_one_association(tmp_path: Path) -> None:
    # Given a peer that answers each instance differently, and the last with success
    paths = [make(tmp_path / f"{number:02}.dcm") for number in range(len(ANSWERS) + 1)]
    uids = [identify(path).sop_instance_uid for path in paths]
    told = dict(zip(uids, [*ANSWERS, 0x0000], strict=True))

    def answer(event: Any) -> Dataset:
        said = Dataset()
        said.Status, said.ErrorComment = told[event.request.AffectedSOPInstanceUID], "as\x07told"
        return said

    with pacs.running(answer) as peer:
        outcomes = send(peer.destination(), paths)
    assert [each.sop_instance_uid for each in outcomes] == uids
    assert [each.status for each in outcomes] == list(told.values())
    assert [each.verdict for each in outcomes] == [*ANSWERS.values(), Verdict.DELIVERED]
    for each in outcomes:
        assert each.comment.endswith("as told")
        assert each.status == 0x0000 or each.comment.startswith(f"0x{each.status:04X} ")
    assert len(peer.associations) == 1


def test_the_peers_error_comment_is_told(images: list[Path]) -> None:
    said = Dataset()
    said.Status, said.ErrorComment = 0xA700, "Disk quota reached"
    with pacs.running(lambda event: said) as peer:
        (outcome,) = send(peer.destination(), images[:1])
    assert outcome.comment == "0xA700 the peer is out of resources: Disk quota reached"


def test_an_uncompressed_object_is_reencoded_for_a_peer_that_takes_only_implicit(images: list[Path]) -> None:
    with pacs.running(contexts=[(CTImageStorage, [ImplicitVRLittleEndian])]) as peer:
        outcomes = send(peer.destination(), images[:2])
    assert {each.verdict for each in outcomes} == {Verdict.DELIVERED}
    assert {each[2] for each in peer.stored} == {ImplicitVRLittleEndian}
    # Then the peer holds the same data set, in the other encoding
    for path, (*_, encoded) in zip(images, peer.stored, strict=False):
        assert encoded != data_set(path.read_bytes())
        assert _decoded(encoded, implicit=True) == _plain(dcmread(path))


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_explicit_little_endian_is_the_first_fallback(syntax: str, tmp_path: Path) -> None:
    path = make(tmp_path / "one.dcm", syntax=syntax)
    taken = [s for s in (ExplicitVRLittleEndian, ImplicitVRLittleEndian) if s != syntax]
    with pacs.running(contexts=[(CTImageStorage, taken)]) as peer:
        (outcome,) = send(peer.destination(), [path])
    assert outcome.verdict is Verdict.DELIVERED
    ((_, _, used, encoded),) = peer.stored
    assert used == ExplicitVRLittleEndian
    assert _decoded(encoded, implicit=False) == _plain(dcmread(path))


def _decoded(encoded: bytes, *, implicit: bool) -> Dataset:
    return _plain(read_dataset(BytesIO(encoded), implicit, True))


def _plain(ds: Dataset) -> Dataset:
    """The data set as written in one encoding: to compare two that came in different ones."""
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = False, True
    bare = Dataset()
    bare.update({element.tag: element for element in ds})
    write_dataset(file, bare)
    file.seek(0)
    return read_dataset(file, False, True)


def test_a_compressed_object_is_never_reencoded(tmp_path: Path, images: list[Path]) -> None:
    compressed = make(tmp_path / "compressed.dcm", syntax=JPEGLSLossless)
    # Given a peer that takes uncompressed CT only
    taken = [(CTImageStorage, [ExplicitVRLittleEndian, ImplicitVRLittleEndian])]
    with pacs.running(contexts=taken) as peer:
        outcomes = send(peer.destination(), [compressed, images[0]])
    assert [each.verdict for each in outcomes] == [Verdict.REFUSED, Verdict.DELIVERED]
    assert outcomes[0].comment == (
        "peer accepts no presentation context for CT Image Storage; enable it there (in JPEG-LS Lossless Image Compression)"
    )


def test_a_compressed_object_goes_as_it_is_where_its_syntax_is_taken(tmp_path: Path) -> None:
    compressed = make(tmp_path / "compressed.dcm", syntax=JPEGLSLossless)
    with pacs.running() as peer:
        (outcome,) = send(peer.destination(), [compressed])
    assert outcome.verdict is Verdict.DELIVERED
    assert peer.stored[0][2:] == (JPEGLSLossless, data_set(compressed.read_bytes()))


def test_a_class_the_peer_does_not_take_is_refused_and_the_others_go(
    tmp_path: Path, images: list[Path]
) -> None:
    segmentation = make(tmp_path / "seg.dcm", sop_class=SegmentationStorage)
    with pacs.running(contexts=[(CTImageStorage, [ExplicitVRLittleEndian])]) as peer:
        outcomes = send(peer.destination(), [images[0], segmentation, images[1]])
    assert [each.verdict for each in outcomes] == [Verdict.DELIVERED, Verdict.REFUSED, Verdict.DELIVERED]
    assert (
        outcomes[1].comment
        == "peer accepts no presentation context for Segmentation Storage; enable it there"
    )
    assert outcomes[1].status is None


def test_a_peer_that_takes_none_of_it_refuses_each(tmp_path: Path) -> None:
    paths = [make(tmp_path / f"{n}.dcm", sop_class=SegmentationStorage) for n in range(2)]
    with pacs.running(contexts=[(CTImageStorage, [ExplicitVRLittleEndian])]) as peer:
        outcomes = send(peer.destination(), paths)
    assert [each.verdict for each in outcomes] == [Verdict.REFUSED] * 2
    assert {each.path for each in outcomes} == set(paths)
    assert len(peer.associations) == 1


def test_140_contexts_go_in_two_associations(tmp_path: Path) -> None:
    # Given objects of 70 classes, each of which needs two contexts (own syntax and Implicit VR)
    classes = STORAGE_CLASSES[:70]
    paths = [make(tmp_path / f"{number}.dcm", sop_class=uid) for number, uid in enumerate(classes)]
    with pacs.running() as peer:
        outcomes = send(peer.destination(), paths)
        assert pacs.wait_until(lambda: peer.released == 2)
    assert {each.verdict for each in outcomes} == {Verdict.DELIVERED}
    assert sorted(each.path or Path() for each in outcomes) == sorted(paths)
    assert peer.associations == [128, 12]
    assert [each[0] for each in peer.stored] == classes


def test_batches_hold_every_file_once_and_never_split_a_files_contexts(
    tmp_path: Path, images: list[Path]
) -> None:
    paths = [make(tmp_path / f"{n}.dcm", sop_class=uid) for n, uid in enumerate(STORAGE_CLASSES)]
    files = [identify(path) for path in [*paths, *images, make(tmp_path / "j.dcm", syntax=JPEGLSLossless)]]
    made = contexts.batches(files)
    assert [len(each.contexts) for each in made] == [128, 128, 2 * len(STORAGE_CLASSES) + 1 - 256]
    assert sorted(file.path for each in made for file in each.files) == sorted(file.path for file in files)
    for each in made:
        assert all(set(contexts.wanted(file)) <= set(each.contexts) for file in each.files)


def test_a_wrong_called_ae_title_says_what_to_change(images: list[Path]) -> None:
    with pacs.running() as peer, pytest.raises(errors.SendError) as raised:
        send(peer.destination(ae_title="WRONG"), images)
    assert "it is not called 'WRONG': correct `ae_title`" in str(raised.value)
    assert not isinstance(raised.value, errors.Unreachable)


def test_a_rejection_that_comes_at_once_is_heard(images: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a requestor that looks whether it is connected when the connection is closed again
    opened, here = threading.Event.wait, threading.current_thread()

    def late(event: threading.Event, timeout: float | None = None) -> bool:
        said = opened(event, timeout)
        if threading.current_thread() is here:
            time.sleep(0.2)
        return said

    monkeypatch.setattr(threading.Event, "wait", late)
    with pacs.running() as peer, pytest.raises(errors.SendError) as raised:
        send(peer.destination(ae_title="WRONG"), images)
    assert "it is not called 'WRONG': correct `ae_title`" in str(raised.value)


def test_a_peer_with_no_association_to_spare_is_tried_again_later(images: list[Path]) -> None:
    gate = threading.Event()
    entered = threading.Event()

    def hold(event: Any) -> int:
        entered.set()
        gate.wait(10)
        return 0x0000

    with pacs.running(hold, maximum_associations=1) as peer:
        first = threading.Thread(target=send, args=(peer.destination(), images[:1]))
        first.start()
        assert entered.wait(5)
        with pytest.raises(errors.SendError, match="as many associations as it allows"):
            send(peer.destination(), images)
        gate.set()
        first.join()


def test_nobody_listening(images: list[Path]) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        began = time.monotonic()
        with pytest.raises(errors.Unreachable, match="nothing accepts connections there"):
            send(pacs.Pacs(port=port).destination(), images)
    assert time.monotonic() - began < 15


def test_no_such_host(images: list[Path]) -> None:
    with pytest.raises(errors.Unreachable, match="no such host; correct `host`"):
        send(pacs.Pacs(port=104).destination(host="no-such-host.invalid"), images)


def _serve(behave: Callable[[socket.socket], None]) -> tuple[int, threading.Thread]:
    """Accept one TCP connection and behave badly on it."""
    listening = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        with listening:
            connection, _ = listening.accept()
            with connection:
                behave(connection)

    thread = threading.Thread(target=run)
    thread.start()
    return listening.getsockname()[1], thread


def test_a_port_that_says_nothing_is_given_up_in_time(images: list[Path]) -> None:
    done = threading.Event()
    port, thread = _serve(lambda connection: (done.wait(10), None)[1])
    began = time.monotonic()
    with pytest.raises(errors.SendError, match="connected, but no answer within 1 s; is this a DICOM port"):
        send(pacs.Pacs(port=port).destination(timeout_seconds=1.0), images)
    assert time.monotonic() - began < 9
    done.set()
    thread.join()


def test_a_port_that_speaks_http_is_no_dicom_port(images: list[Path]) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")

    port, thread = _serve(answer)
    with pytest.raises(errors.SendError, match="is this a DICOM port"):
        send(pacs.Pacs(port=port).destination(), images)
    thread.join()


@pytest.mark.parametrize("seconds", [0.0, 0.05, 0.5])
def test_a_connection_that_brought_no_pdu_is_closed(images: list[Path], seconds: float) -> None:
    def answer(connection: socket.socket) -> None:
        connection.recv(100)  # the rest stays unread, so that closing is a reset
        connection.sendall(b"no PDU of the standard")
        time.sleep(seconds)

    gc.collect()
    port, thread = _serve(answer)
    with pytest.raises(errors.SendError, match="is this a DICOM port"):
        send(pacs.Pacs(port=port).destination(), images)
    thread.join()
    assert pacs.wait_until(lambda: pacs.network_threads() == [])
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        gc.collect()
    assert [str(each.message) for each in said] == []


def test_an_abort_on_one_instance_does_not_keep_the_others(images: list[Path]) -> None:
    # Given a peer that aborts on the third of five instances, always
    third = identify(images[2]).sop_instance_uid

    def answer(event: Any) -> int:
        if event.request.AffectedSOPInstanceUID == third:
            event.assoc.abort()
        return 0x0000

    with pacs.running(answer) as peer:
        outcomes = send(peer.destination(), images)
    # Then that one is to be tried again and the others are delivered, each told once
    assert [each.path for each in outcomes] == images
    assert [each.verdict for each in outcomes] == [
        Verdict.DELIVERED, Verdict.DELIVERED, Verdict.RETRY, Verdict.DELIVERED, Verdict.DELIVERED,
    ]  # fmt: skip
    assert outcomes[2].comment == "the peer ended the association instead of answering"
    assert len(peer.associations) == 2


def test_a_peer_that_aborts_every_time_is_left_after_the_second(images: list[Path]) -> None:
    def answer(event: Any) -> int:
        event.assoc.abort()
        return 0x0000

    with pacs.running(answer) as peer:
        outcomes = send(peer.destination(), images)
    assert [each.path for each in outcomes] == images
    assert {each.verdict for each in outcomes} == {Verdict.RETRY}
    assert len(peer.associations) == 2


def test_a_peer_that_never_answers_is_left_in_time(images: list[Path]) -> None:
    gate = threading.Event()

    def answer(event: Any) -> int:
        gate.wait(20)
        return 0x0000

    with pacs.running(answer) as peer:
        began = time.monotonic()
        outcomes = send(peer.destination(timeout_seconds=1.0), images)
        took = time.monotonic() - began
        gate.set()
    assert [(each.path, each.verdict) for each in outcomes] == [(path, Verdict.RETRY) for path in images]
    assert outcomes[0].comment == "no answer within 1 s"
    assert took < 4
    assert len(peer.associations) == 1


def test_a_file_that_vanishes_is_told_and_the_others_go(images: list[Path]) -> None:
    # Given a file that goes between being looked at and being sent
    def answer(event: Any) -> int:
        images[1].unlink(missing_ok=True)
        return 0x0000

    with pacs.running(answer) as peer:
        outcomes = send(peer.destination(), images)
    assert [each.path for each in outcomes] == images
    assert [each.verdict for each in outcomes] == [
        Verdict.DELIVERED, Verdict.RETRY, Verdict.DELIVERED, Verdict.DELIVERED, Verdict.DELIVERED,
    ]  # fmt: skip


def test_a_file_that_is_no_dicom_is_refused_and_the_others_go(tmp_path: Path, images: list[Path]) -> None:
    text = tmp_path / "readme.txt"
    text.write_text("not an image")
    with pacs.running() as peer:
        outcomes = send(peer.destination(), [images[0], text, images[1]])
    assert {each.path: each.verdict for each in outcomes} == {
        images[0]: Verdict.DELIVERED,
        text: Verdict.REFUSED,
        images[1]: Verdict.DELIVERED,
    }


def test_an_error_while_recording_an_outcome_ends_the_association(images: list[Path]) -> None:
    def broken(outcome: Outcome) -> None:
        raise LookupError("the database is gone")

    with pacs.running() as peer:
        with pytest.raises(LookupError):
            open_sender(peer.destination()).send(images, broken)
        assert pacs.wait_until(lambda: peer.aborted == 1)
    assert len(peer.stored) == 1


def test_a_private_class_is_proposed_as_it_is(tmp_path: Path) -> None:
    private = generate_uid()
    path = make(tmp_path / "private.dcm", sop_class=private)
    with pacs.running(contexts=[(private, [ExplicitVRLittleEndian])]) as peer:
        (outcome,) = send(peer.destination(), [path])
    # pynetdicom's SCP knows no service for it: the answer is the peer's, not a crash of ours
    assert outcome.verdict in (Verdict.RETRY, Verdict.REFUSED)


def test_every_rejection_of_the_standard_has_words() -> None:
    # PS3.8 Table 9-21, reserved values left out
    assert set(REJECTIONS) == {(1, 1), (1, 2), (1, 3), (1, 7), (2, 1), (2, 2), (3, 1), (3, 2)}
