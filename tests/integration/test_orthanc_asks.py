"""A real Orthanc stores here, asks whether we hold it, and believes the answer."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support import phantoms
from tests.support.asking import Node, node
from tests.support.listening import until
from tests.support.orthanc import Orthanc

pytestmark = pytest.mark.peer("orthanc")


@pytest.fixture
def uploaded(orthanc: Orthanc, tmp_path: Path) -> list[str]:
    """Orthanc's identifiers of a series that it has."""
    made = phantoms.datasets(phantoms.Phantom(shape=(6, 16, 16)))
    return [orthanc.upload(path) for path in phantoms.write(made, tmp_path / "images")]


@pytest.fixture
def at(orthanc: Orthanc, tmp_path: Path) -> Iterator[Node]:
    """A node and an Orthanc that know each other."""
    peer = {"name": "orthanc", "ae_title": orthanc.ae_title, "port": orthanc.dicom_port}
    with node(tmp_path / "node", peer) as made:
        orthanc.add_modality("secondread", ae_title="SECONDREAD", port=made.port)
        yield made


def told(orthanc: Orthanc, transaction_uid: str) -> dict[str, Any]:
    """What Orthanc was told."""
    until(lambda: orthanc.commitment(transaction_uid)["Status"] != "Pending", "Orthanc to be told")
    return orthanc.commitment(transaction_uid)


def test_orthanc_is_told_that_all_is_held(orthanc: Orthanc, at: Node, uploaded: list[str]) -> None:
    orthanc.rest("/modalities/secondread/store", method="POST", body=uploaded)
    transaction = orthanc.ask_commitment("secondread", uploaded)

    at.answer_due()

    said = told(orthanc, transaction)
    assert said["Status"] == "Success"
    assert len(said["Success"]) == 6
    (row,) = at.requests()
    assert (row.state, row.peer, row.transaction_uid) == ("answered", "orthanc", transaction)


def test_orthanc_is_told_what_is_not_held(
    orthanc: Orthanc, at: Node, uploaded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.commitment_answers.GRACE", timedelta(seconds=2))
    orthanc.rest("/modalities/secondread/store", method="POST", body=uploaded[:4])
    transaction = orthanc.ask_commitment("secondread", uploaded)

    at.answer_due()

    said = told(orthanc, transaction)
    assert said["Status"] == "Failure"
    assert (len(said["Success"]), len(said["Failures"])) == (4, 2)
    assert at.requests()[0].comment == "4 of 6 images are held, 2 are not here (0x0112)"
