"""One Orthanc and one `secondread up` for all tests that only send and ask."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance import installation
from tests.acceptance.installation import Installation
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
