"""A result object becomes a file: whole under its name, or not there."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from pathlib import Path
from typing import BinaryIO

from pydicom.dataset import Dataset


def write(ds: Dataset, path: Path) -> None:
    """Write, fsync, rename, fsync the folder: after a crash the file is whole or absent.

    Raises OSError, with the disk's own errno, where that refuses; nothing stays behind under a temporary name.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            # The lock goes when the process does, however it ends: see `remove_unfinished`.
            fcntl.flock(file, fcntl.LOCK_EX)
            _save(ds, file)
            file.flush()
            os.fsync(file.fileno())
            Path(name).chmod(0o640)
            Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _save(ds: Dataset, file: BinaryIO) -> None:
    """Encode a data set into a file.

    pydicom names the element in which writing failed by an OSError of its own, which lacks the errno: whether
    the disk is full stands in the one that led to it.
    """
    try:
        ds.save_as(file, enforce_file_format=True)
    except OSError as error:
        raise _said_by_disk(error) from None


def _said_by_disk(error: OSError) -> OSError:
    """The error itself where it has an errno, else the first that has one among those that led to it."""
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno is not None:
            return found
        found = found.__cause__ or found.__context__
    return error


def remove_unfinished(folder: Path) -> int:
    """Delete what dead processes left under temporary names; how many files that was."""
    removed = 0
    for path in folder.rglob(".*.dcm.*"):
        with contextlib.suppress(BlockingIOError, FileNotFoundError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
            removed += 1
    return removed


def _sync_folder(folder: Path) -> None:
    """The rename itself must survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
