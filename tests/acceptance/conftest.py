"""One Orthanc and one `secondread up` for all tests that only send and ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pydicom
import pytest

from tests.acceptance import installation
from tests.acceptance.installation import DEMO_CT, Installation
from tests.support import orthanc as orthanc_support
from tests.support.orthanc import Orthanc


@pytest.fixture(scope="session")
def pacs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A real Orthanc that results go to; a test that takes it is marked `peer("orthanc")`."""
    with orthanc_support.running(tmp_path_factory.mktemp("pacs")) as running:
        yield running


@pytest.fixture(scope="session")
def node(tmp_path_factory: pytest.TempPathFactory, pacs: Orthanc) -> Iterator[Installation]:
    """`secondread up` with the shipped model; it must survive whatever it is sent."""
    made = installation.configure(tmp_path_factory.mktemp("node"), pacs)
    with installation.running(made) as running:
        pacs.add_modality("secondread", ae_title="SECONDREAD", port=made.dicom_port)
        yield running


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came of the demo CT."""

    uid: str
    why: dict[str, Any]
    #: By kind, as Orthanc holds them.
    files: dict[str, Path]

    @property
    def job(self) -> dict[str, Any]:
        """The only job."""
        (job,) = self.why["jobs"]
        return dict(job)


@pytest.fixture(scope="session")
def answer(node: Installation, pacs: Orthanc, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    """The demo CT sent by dcmsend, and what Orthanc holds of it afterwards."""
    uid = str(pydicom.dcmread(next(DEMO_CT.iterdir()), stop_before_pixels=True).StudyInstanceUID)
    sent = node.dcmsend(DEMO_CT)
    assert sent.returncode == 0, sent.stderr
    why = node.done(uid, seconds=120)
    folder = tmp_path_factory.mktemp("results")
    files = {}
    for made in why["jobs"][0]["objects"]:
        files[made["kind"]] = folder / f"{made['kind']}.dcm"
        files[made["kind"]].write_bytes(pacs.file(made["sop_instance_uid"]))
    return Answer(uid=uid, why=why, files=files)
