"""Where the real peer programs are."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

#: Debian keeps the server programs of each PostgreSQL in a folder of its own, off the PATH; newest first.
_POSTGRESQL = sorted(map(str, Path("/usr/lib/postgresql").glob("*/bin")), reverse=True)

#: Debian's own folders first: the virtual environment holds pynetdicom's namesakes of DCMTK's programs.
_SEARCH = os.pathsep.join(
    [
        "/usr/bin",
        "/usr/sbin",
        "/usr/local/bin",
        *_POSTGRESQL,
        os.environ.get("PATH", ""),
        str(Path(sys.executable).parent),
    ]
)


def find(program: str) -> str | None:
    """The program's path, or None."""
    return shutil.which(program, path=_SEARCH)


def path(program: str) -> str:
    """The program's path; a test that calls this carries the matching `peer` mark."""
    found = find(program)
    assert found is not None, f"{program} is not installed, and this test has no peer mark for it"
    return found
