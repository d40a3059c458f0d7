"""Fixtures that every test may use, and the rule about real peers: skip on a laptop, fail in CI."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support import peers

#: What each peer is known by on the PATH; the Debian package is in scripts/test.
PEER_PROGRAMS = {
    "dcmtk": ("storescu", "storescp", "dcmsend", "dsrdump", "dcmdump", "echoscu", "dcmqrscp"),
    "dicom3tools": ("dciodvfy", "dcentvfy"),
    "dcmqi": ("segimage2itkimage",),
    "pixelmed": ("DicomSRValidator",),
    "orthanc": ("Orthanc",),
    "redis": ("redis-server",),
    "postgresql": ("initdb", "postgres"),
    "chromium": ("chromium",),
}


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip (or, with CI=true, fail) a test whose peer is not installed."""
    for mark in item.iter_markers("peer"):
        missing = [program for program in PEER_PROGRAMS[mark.args[0]] if peers.find(program) is None]
        if missing:
            reason = f"needs {mark.args[0]}: {', '.join(missing)} not on the PATH (scripts/test installs it)"
            if os.environ.get("CI") == "true":
                pytest.fail(reason)
            pytest.skip(reason)


@pytest.fixture(scope="session")
def data() -> Path:
    """The small real DICOM files that the tests ship with (tests/data/SOURCES.md)."""
    return Path(__file__).parent / "data"
