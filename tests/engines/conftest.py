"""Fixtures of the engines' tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import double
from tests.support.double import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    """A machine with a pretended GPU, and the libraries for it."""
    with double.installed(tmp_path) as installed:
        yield installed
