"""What fails where checkpoints are read: the libraries that it takes, and the file itself."""

from __future__ import annotations

import struct
import zipfile

from engines.errors import PackageError

#: A damaged checkpoint fails in any of these ways.
DAMAGED = (
    *(RuntimeError, EOFError, OSError, ValueError, LookupError, TypeError, AttributeError),
    *(struct.error, zipfile.BadZipFile),
)


def not_installed(error: ModuleNotFoundError) -> PackageError:
    """What to say where models are imported without PyTorch, MONAI or what they need."""
    return PackageError(
        f"the Python package {error.name} is not installed here: run this in the environment that "
        "`scripts/environment requirements-import.lock .venv-import` makes, or pip install 'secondread[import]'"
    )
