"""A GPU, or a reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from engines import gpu
from engines.errors import DeviceError
from engines.plans import Plans, Target


@pytest.fixture(scope="session")
def target() -> Target:
    """The machine's GPU. No machine has one because a test asks for it: without one these skip, in CI too."""
    try:
        return gpu.target()
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture
def kept(target: Target, tmp_path: Path) -> Plans:
    """An empty folder of plans."""
    return Plans(folder=tmp_path / "plans")
