"""Real peers, started once and emptied for each test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import ohif
from tests.support import orthanc as orthanc_support


@pytest.fixture(scope="session")
def orthanc_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[orthanc_support.Orthanc]:
    """One Orthanc for the whole session; take `orthanc` instead."""
    with orthanc_support.running(tmp_path_factory.mktemp("orthanc")) as running:
        yield running


@pytest.fixture
def orthanc(orthanc_process: orthanc_support.Orthanc) -> orthanc_support.Orthanc:
    """A real, empty Orthanc with DICOMweb; a test that takes it is marked `peer("orthanc")`."""
    orthanc_process.clear()
    return orthanc_process


@pytest.fixture(scope="module")
def viewer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ohif.Viewer]:
    """OHIF in Chromium, before an Orthanc; a test that takes it is marked with all three peers."""
    # Debian's Orthanc does not know the class of label maps.
    settings = {"UnknownSopClassAccepted": True}
    with (
        orthanc_support.running(tmp_path_factory.mktemp("orthanc"), settings=settings) as archive,
        ohif.viewer(archive, tmp_path_factory.mktemp("chromium")) as running,
    ):
        yield running
