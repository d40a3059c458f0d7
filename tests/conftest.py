"""Fixtures that every test may use, and the rule about real peers: skip on a laptop, fail in CI."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import double, ohif_build, peers
from tests.support.contract import environment as contract
from tests.support.double import Machine

#: What each peer is known by on the PATH; the Debian package is in scripts/test.
PEER_PROGRAMS = {
    "c++": ("g++",),
    "dcmtk": ("storescu", "storescp", "dcmsend", "dsrdump", "dcmdump", "echoscu", "dcmqrscp"),
    "dicom3tools": ("dciodvfy", "dcentvfy"),
    "dcmqi": ("segimage2itkimage",),
    "pixelmed": ("DicomSRValidator",),
    "orthanc": ("Orthanc",),
    "redis": ("redis-server",),
    "postgresql": ("initdb", "postgres"),
    "chromium": ("chromium",),
    "docker-compose": ("docker-compose",),
    "hadolint": ("hadolint",),
}

#: Peers that are libraries of the import environment, run in processes of its own Python.
IMPORT_LIBRARIES = {"nnunet": "nnunetv2", "monai": "monai"}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip (or, with CI=true, fail) a test whose peer is not installed."""
    for mark in item.iter_markers("peer"):
        if missing := _missing(mark.args[0]):
            reason = f"needs {mark.args[0]}: {missing} (scripts/test or .ci/run installs it)"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)


def _missing(peer: str) -> str:
    """What a peer lacks here, for people; "" where it is there."""
    if peer == "ohif":
        return "" if ohif_build.present() else f"{ohif_build.folder()} is not there"
    if peer == "gpu libraries":
        return contract.missing()
    if peer in IMPORT_LIBRARIES:
        library = IMPORT_LIBRARIES[peer]
        return "" if peers.imports(library) else f"{library} is not in {peers.IMPORT_ENVIRONMENT}"
    missing = [program for program in PEER_PROGRAMS[peer] if peers.find(program) is None]
    return f"{', '.join(missing)} not on the PATH" if missing else ""


@pytest.fixture(scope="session")
def data() -> Path:
    """The small real DICOM files that the tests ship with (tests/data/SOURCES.md)."""
    return Path(__file__).parent / "data"


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with a pretended GPU, and the libraries for it."""
    with double.installed(tmp_path) as installed:
        yield installed
