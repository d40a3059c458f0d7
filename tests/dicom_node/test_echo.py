"""What a peer answers before the first delivery, and what to change where it does not."""

from __future__ import annotations

import socket
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.uid import (
    CTImageStorage,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEGLSLossless,
    SegmentationStorage,
)
from pynetdicom.sop_class import Verification

from dicom_node import echo, results
from dicom_node.senders import Destination
from tests.support import pacs, peers
from tests.support import results as cases

SEG = (str(SegmentationStorage), str(ExplicitVRLittleEndian))
CT_JPEGLS = (str(CTImageStorage), str(JPEGLSLossless))


def test_a_good_peer() -> None:
    with pacs.running() as peer:
        report = echo.verify(peer.destination())
    assert report.healthy
    assert (report.reachable, report.associated, report.echo_status, report.problem) == (True, True, 0, "")
    assert report.accepted == echo.RESULT_CONTEXTS
    assert report.refused == ()
    assert 0 < report.milliseconds < 2000
    assert peer.stored == []


def test_what_is_asked_for_follows_from_the_kinds_of_results() -> None:
    assert echo.result_contexts({"seg"}) == (SEG,)
    assert echo.result_contexts({"sr", "seg"}) == echo.RESULT_CONTEXTS
    everything = echo.result_contexts(results.KINDS)
    assert len(everything) == len(set(everything)) > 5
    assert all(echo.result_contexts({kind}) for kind in results.KINDS)


def test_a_peer_is_asked_for_every_class_that_is_made(tmp_path: Path) -> None:
    # Given objects of every kind, of one slice and of several
    source = cases.series(cases.LIES["axial"])
    one = np.zeros(source.volume.geometry.shape, np.uint8)
    one[3, 4, 5] = 1
    made = results.make_results(
        cases.context(source), cases.findings(source), results.KINDS, tmp_path / "several"
    )
    made += results.make_results(
        cases.context(source), cases.findings(source, mask=one), results.KINDS, tmp_path / "one"
    )
    # Then the contexts of its kind hold each one's class, and no other
    for kind in cases.KINDS:
        asked = {sop_class for sop_class, _ in echo.result_contexts({kind})}
        assert {file.sop_class_uid for file in made if file.kind == kind} == asked


def test_a_peer_needs_to_take_nothing_that_is_not_made() -> None:
    made = [(sop_class, [syntax]) for sop_class, syntax in echo.RESULT_CONTEXTS]
    with pacs.running(contexts=[(str(Verification), [ImplicitVRLittleEndian]), *made]) as peer:
        assert echo.verify(peer.destination()).healthy


def test_an_object_that_the_peer_does_not_take_is_named() -> None:
    taken = [(str(Verification), [ImplicitVRLittleEndian]), (str(CTImageStorage), [ImplicitVRLittleEndian])]
    with pacs.running(contexts=taken) as peer:
        report = echo.verify(peer.destination(), [SEG, CT_JPEGLS, (CTImageStorage, ExplicitVRLittleEndian)])
    # Then uncompressed CT counts as taken (a sender would re-encode it), compressed CT and SEG do not
    assert report.refused == (SEG, CT_JPEGLS)
    assert report.accepted == ((CTImageStorage, ExplicitVRLittleEndian),)
    assert report.echo_status == 0x0000
    assert not report.healthy
    assert report.problem == (
        "the peer does not take CT Image Storage, Segmentation Storage; enable it there, or do not send it there"
    )


def test_a_peer_without_verification_can_still_take_objects() -> None:
    with pacs.running(contexts=[(str(SegmentationStorage), [ExplicitVRLittleEndian])]) as peer:
        report = echo.verify(peer.destination(), [SEG])
    assert report.healthy
    assert report.echo_status is None


def test_a_peer_that_takes_nothing() -> None:
    with pacs.running(contexts=[(str(CTImageStorage), [ExplicitVRLittleEndian])]) as peer:
        report = echo.verify(peer.destination(), [SEG])
    assert (report.reachable, report.associated, report.healthy) == (True, True, False)
    assert report.refused == (SEG,)
    assert "none of the proposed presentation contexts" in report.problem


def test_an_echo_that_fails_or_is_not_answered() -> None:
    with pacs.running(echo=lambda event: 0x0122) as peer:
        report = echo.verify(peer.destination())
        assert (report.echo_status, report.problem) == (0x0122, "C-ECHO answered 0x0122")

    def abort(event: Any) -> int:
        event.assoc.abort()
        return 0x0000

    with pacs.running(echo=abort) as peer:
        report = echo.verify(peer.destination())
        assert report.echo_status is None
        assert report.problem == "the peer accepted the association but did not answer C-ECHO"
        assert not report.healthy


def test_more_kinds_than_one_association_can_propose() -> None:
    wanted = [(uid, str(ExplicitVRLittleEndian)) for uid, _ in pacs.everything()]
    with pacs.running() as peer:
        report = echo.verify(peer.destination(), wanted)
    assert report.healthy
    assert report.accepted == tuple(wanted)
    assert len(peer.associations) == 3
    assert max(peer.associations) <= 128


def test_a_wrong_ae_title_is_reachable_but_not_associated() -> None:
    with pacs.running() as peer:
        report = echo.verify(peer.destination(ae_title="WRONG"))
    assert (report.reachable, report.associated) == (True, False)
    assert "correct `ae_title`" in report.problem


def test_nobody_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        report = echo.verify(pacs.Pacs(port=unused.getsockname()[1]).destination())
    assert (report.reachable, report.associated, report.healthy) == (False, False, False)
    assert "is it running, is `port` right?" in report.problem


def test_a_memory_destination_takes_everything() -> None:
    assert echo.verify(Destination(name="m", kind="memory")).healthy


@pytest.mark.peer("dcmtk")
def test_dcmtk_answers(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen([peers.path("storescp"), "-aet", "DCMTK", "-od", str(tmp_path), str(port)])
    try:
        destination = Destination(name="dcmtk", ae_title="DCMTK", host="127.0.0.1", port=port)
        deadline = time.monotonic() + 60
        while not (report := echo.verify(destination, [SEG])).reachable and time.monotonic() < deadline:
            time.sleep(0.05)
        assert report.healthy
        assert report.accepted == (SEG,)
    finally:
        process.kill()
        process.wait()
