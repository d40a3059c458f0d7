"""Peers ask a whole installation to commit to what they sent, and are told whatever is killed meanwhile."""

from __future__ import annotations

import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance import installation
from tests.acceptance.installation import Installation, children, command_line, until
from tests.support import phantoms
from tests.support.asking import asker, ear, references
from tests.support.orthanc import Orthanc

CT = "1.2.840.10008.5.1.4.1.1.2"
SMALL = phantoms.Phantom(shape=(6, 16, 16), patient_name="Zyxwina^Quolliper", patient_id="PIDQQ7731")


@pytest.mark.peer("orthanc")
def test_orthanc_sends_a_study_asks_and_is_told(node: Installation, pacs: Orthanc, tmp_path: Path) -> None:
    made = phantoms.datasets(SMALL)
    files = phantoms.write(made, tmp_path / "images")
    node.note(*files)
    identifiers = [pacs.upload(path) for path in files]
    pacs.rest("/modalities/secondread/store", method="POST", body=identifiers)

    transaction = pacs.ask_commitment("secondread", identifiers)

    until(lambda: pacs.commitment(transaction)["Status"] != "Pending", "Orthanc to be told")
    said = pacs.commitment(transaction)
    assert (said["Status"], len(said["Success"])) == ("Success", 6)
    why = node.done(made[0].StudyInstanceUID)
    told = [event["message"] for event in why["events"] if event["kind"] == "commitment-answered"]
    assert len(told) == 1
    assert "pacs asked for storage commitment; it was told: 6 of 6 images are held" in told[0]
    assert "commitment" in node.run("why", made[0].StudyInstanceUID).stdout


def _listeners(node: Installation) -> list[int]:
    assert node.process is not None
    return [pid for pid in children(node.process.pid) if " listen" in command_line(pid)]


def test_a_peer_is_told_though_every_listener_is_killed(tmp_path: Path) -> None:
    made = phantoms.datasets(replace(SMALL, series_uid="1.2.826.0.1.3680043.8.498.5"))
    with ear("ARCHIVE") as listening:
        archive: dict[str, Any] = {"name": "archive", "ae_title": "ARCHIVE", "host": "127.0.0.1"}
        node = installation.configure(tmp_path, peers=[{**archive, "port": listening.port}])
        node.tokens |= {"Zyxwina", "Quolliper", "PIDQQ7731"}
        with installation.running(node):
            # Given a peer that waits on its association for what we do not hold yet
            with asker(node.dicom_port, title="ARCHIVE", storing=[CT]) as peer:
                peer.store(made[:4])
                assert peer.ask(references(made)) == 0x0000
                # When everything that knows it by more than its row dies
                for pid in _listeners(node):
                    os.kill(pid, signal.SIGKILL)
            # Then it is told the truth at its own address
            until(lambda: listening.told, "the report")

        (report,) = listening.told[:1]
        assert list(report.committed) == references(made[:4])
        assert [failure.reason for failure in report.failed] == [0x0112, 0x0112]
        assert node.rows("select state, comment from commitment_requests") == [
            ("answered", "4 of 6 images are held, 2 are not here (0x0112)")
        ]
