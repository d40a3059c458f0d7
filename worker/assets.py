"""Where the model packages and the demo study that ship with secondread are."""

from __future__ import annotations

import sys
from pathlib import Path


def _shipped(name: str) -> Path:
    """A shipped folder: in the checkout, or under the environment that the wheel was installed to."""
    checkout = Path(__file__).resolve().parent.parent / name
    return checkout if checkout.is_dir() else Path(sys.prefix) / "share" / "secondread" / name


def models() -> Path:
    """The folder of the shipped model packages."""
    return _shipped("models")


def demo() -> Path:
    """The folder of the demo CT."""
    return _shipped("demo")
