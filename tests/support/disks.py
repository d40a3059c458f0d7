"""Real, small disks: file systems in memory, mounted for a test; only root can mount them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

MEGABYTE = 1024 * 1024


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """A disk of this size at `folder`; where it cannot be mounted the test is skipped, or fails in CI."""
    folder.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "secondread-test", str(folder)]
    try:
        mounted = subprocess.run(command, capture_output=True, text=True, check=False)
        problem = mounted.stderr.strip() if mounted.returncode else ""
    except OSError as error:
        problem = str(error)
    if problem:
        if os.environ.get("CI") == "true":
            pytest.fail(f"no small disk can be mounted: {problem}")
        pytest.skip(f"no small disk can be mounted: {problem}")
    try:
        yield folder
    finally:
        # Lazily: whoever still holds a file of it holds up nobody.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def free(folder: Path) -> int:
    """Bytes that are free."""
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


def fill(path: Path) -> None:
    """Let a file take every byte that is left."""
    with path.open("ab", buffering=0) as file:
        for size in (MEGABYTE, 4096):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue
