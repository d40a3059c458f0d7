"""Where the real peer programs are."""

from __future__ import annotations

import os
import shutil
import subprocess
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

_ROOT = Path(__file__).resolve().parents[2]

#: What `scripts/environment requirements-import.lock .venv-import` makes: torch, and the libraries that models come from.
IMPORT_ENVIRONMENT = Path(os.environ.get("SECONDREAD_IMPORT_ENVIRONMENT", _ROOT / ".venv-import"))


def imports(library: str) -> bool:
    """Whether the import environment has the library."""
    return any(IMPORT_ENVIRONMENT.glob(f"lib/python3.*/site-packages/{library}"))


def import_python(*arguments: str, timeout: float = 280) -> str:
    """Standard output of the import environment's Python, run in this checkout; its errors are the test's."""
    python = str(IMPORT_ENVIRONMENT / "bin" / "python")
    environment = {**os.environ, "PYTHONPATH": str(_ROOT)}
    done = subprocess.run(
        [python, *arguments], cwd=_ROOT, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{arguments}: {done.stderr[-4000:]}"
    return done.stdout


def find(program: str) -> str | None:
    """The program's path, or None."""
    return shutil.which(program, path=_SEARCH)


def path(program: str) -> str:
    """The program's path; a test that calls this carries the matching `peer` mark."""
    found = find(program)
    assert found is not None, f"{program} is not installed, and this test has no peer mark for it"
    return found
