"""Which secondread this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed

try:
    VERSION = installed("secondread")
except PackageNotFoundError:  # a source tree on the path, without an installation
    VERSION = "0+source"
