"""A small disk of its own for the storage folder, which a storm can fill and empty again."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MIB = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class SmallDisk:
    """Where the storage folder is, and how to take its space away."""

    folder: Path
    #: Whether it is a file system of its own; otherwise nothing is filled.
    own: bool

    @property
    def _filler(self) -> Path:
        return self.folder / "filler"

    def free(self) -> int:
        """Bytes that are free."""
        status = os.statvfs(self.folder)
        return status.f_bavail * status.f_frsize

    def fill(self, *, leave: int) -> bool:
        """Take all space but `leave` bytes; False where the disk is not our own."""
        if not self.own:
            return False
        with self._filler.open("wb") as file:
            taken = 0
            # Others write at the same time: ask anew, and be content with less.
            while (more := self.free() - leave) > MIB // 8:
                try:
                    os.posix_fallocate(file.fileno(), taken, more)
                except OSError:
                    more //= 2
                    if more < MIB // 8:
                        break
                    try:
                        os.posix_fallocate(file.fileno(), taken, more)
                    except OSError:
                        break
                taken += more
        return True

    def empty(self) -> None:
        """Give the space back."""
        self._filler.unlink(missing_ok=True)


@contextmanager
def small_disk(folder: Path, *, mib: int) -> Iterator[SmallDisk]:
    """An ext4 of `mib` MiB in a file, mounted at `folder`; a plain folder where nobody may mount."""
    folder.mkdir(parents=True, exist_ok=True)
    image = folder.with_suffix(".ext4")
    if not _mounted(folder, image, mib=mib):
        yield SmallDisk(folder=folder, own=False)
        return
    try:
        yield SmallDisk(folder=folder, own=True)
    finally:
        # Lazily: whoever still holds a file there keeps it until he ends.
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
        image.unlink()


def _mounted(folder: Path, image: Path, *, mib: int) -> bool:
    """Make and mount the file system; False where that is not for us."""
    if os.geteuid() != 0:
        return False
    with image.open("wb") as file:
        file.truncate(mib * MIB)
    steps = (
        # No reserve for root, which this may be; lost+found would be in the way of nobody.
        ["mkfs.ext4", "-q", "-F", "-m", "0", str(image)],
        ["mount", "-o", "loop", str(image), str(folder)],
    )
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        image.unlink()
        return False
    return True
