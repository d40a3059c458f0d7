"""Stored files under their final names: what they are, and how they are deleted without a loss."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO

from dicom_node import digests, file_meta, header
from dicom_node.errors import DataSetError
from dicom_node.instance import StoredInstance

LOGGER = logging.getLogger(__name__)

#: Enough for the file meta and, nearly always, everything up to Series Instance UID.
_HEAD_BYTES = 16 * 1024
#: Names that are asked about at once.
_SCAN_BATCH = 500
#: In the spool's root; touched before a folder is removed, so that who holds it for durable looks again.
_REMOVALS = "removals"
#: How often a name is looked at that changes its file again and again.
_LOOKS = 5


def describe(root: Path, path: Path) -> StoredInstance:
    """Describe a file under its final name; its association is not known.

    Reads 16 KiB: the digest stands in the file meta. Raises `DataSetError`, `OSError`.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        meta = file_meta.decode(head)
        try:
            peeked = header.peek(head[meta.data_offset :], meta.transfer_syntax_uid)
        except header.HeadTooShort:
            file.seek(meta.data_offset)
            peeked = header.peek(file.read(), meta.transfer_syntax_uid)
        file.seek(0)
        sha256 = digests.stated(file)
        status = os.fstat(file.fileno())
    return StoredInstance(
        sop_instance_uid=peeked.sop_instance_uid,
        sop_class_uid=peeked.sop_class_uid,
        study_instance_uid=peeked.study_instance_uid,
        series_instance_uid=peeked.series_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        patient_id=peeked.patient_id,
        modality=peeked.modality,
        path=path.relative_to(root),
        size=status.st_size,
        sha256=sha256,
        received_at=changed_at(status),
        conflicting=path.stem != peeked.sop_instance_uid,
        equipment=peeked.equipment,
    )


def scan(
    root: Path,
    *,
    older_than: float = math.inf,
    wanted: Callable[[list[str]], Collection[str]] = lambda names: names,
) -> Iterator[StoredInstance]:
    """Describe the files under final names that `wanted` picks from their names; changes nothing.

    Series come in no order, the files of one as they were received, those alone that are older than
    `older_than` (seconds since 1970). Only what is wanted is opened: a spool may hold millions of files.
    Files that are no instances are reported to the log and left alone.
    """
    names = _names(root, older_than)
    while batch := list(itertools.islice(names, _SCAN_BATCH)):
        chosen = set(wanted(batch))
        for name in batch:
            if name in chosen:
                yield from _described(root, name)


def came_last(
    root: Path, known: Mapping[str, datetime], *, older_than: float = math.inf
) -> StoredInstance | None:
    """Describe, as a duplicate, which of one image's files came last, as their dates say and nobody knows yet.

    `known` is when each came last as far as one knows. None where that is known of the one that came last,
    where it is not older than `older_than` (seconds since 1970), or where none is there.
    """
    # The others count too: the file under the image's plain name is re-dated just before one beside it is.
    newest = max(known, key=lambda name: _mtime_or(root / name, -math.inf))
    age = _mtime_or(root / newest, math.inf)
    if age > older_than or datetime.fromtimestamp(age, UTC) <= known[newest]:
        return None
    return next((replace(found, duplicate=True) for found in _described(root, newest)), None)


def _described(root: Path, name: str) -> Iterator[StoredInstance]:
    """What a file is; nothing, and a line in the log, where it is no instance."""
    try:
        yield describe(root, root / name)
    except (DataSetError, OSError) as error:
        LOGGER.warning("spool file %s is not an instance: %s", name, error)


def _names(root: Path, older_than: float) -> Iterator[str]:
    """The names, relative to the spool, of the files that are old enough."""
    for folder in root.glob("[0-9]*/[0-9]*"):
        aged = sorted((_mtime_or(path, math.inf), path) for path in folder.glob("*.dcm"))
        yield from (str(path.relative_to(root)) for age, path in aged if age <= older_than)


def _mtime_or(path: Path, gone: float) -> float:
    """When a file changed; `gone` where it is not there."""
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return gone


def stamp(descriptor: int) -> os.stat_result:
    """Date a file by our clock, for its file system may have another; what the file system kept of it."""
    now = time.time_ns()
    os.utime(descriptor, ns=(now, now))
    return os.fstat(descriptor)


def changed_at(status: os.stat_result) -> datetime:
    """When a file was received, or received again."""
    return datetime.fromtimestamp(status.st_mtime, UTC)


def is_as_received(path: Path, *, size: int, sha256: str) -> bool:
    """Whether a file is there, as long as it was, with the digest that was written with its last byte.

    Reads 1 KiB: what a disk did to the bytes behind that is not seen.
    """
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_size == size and digests.stated(file) == sha256
    except (OSError, DataSetError):
        return False


def newest_change(paths: Iterable[Path]) -> datetime | None:
    """When the newest of the files was received, or received again; None where none of them is there."""
    newest: datetime | None = None
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            changed = changed_at(path.stat())
            newest = changed if newest is None else max(newest, changed)
    return newest


def received_again(file: BinaryIO, path: Path) -> bool:
    """Mark a stored file that came again, before that is acknowledged; False where it is deleted by now.

    Whoever calls this holds the file's lock, so that nobody deletes it in between.
    """
    if not _is_named(file, path):
        return False
    stamp(file.fileno())
    # Who deletes after a power failure must see it too.
    os.fsync(file.fileno())
    return True


def remove(path: Path, *, unchanged_since: datetime) -> bool:
    """Delete a stored file unless it changed since; whether its name is free now.

    A file that came again meanwhile stays: its sender was told that we have it.
    """
    for _ in range(_LOOKS):
        try:
            with path.open("rb") as file:
                fcntl.flock(file.fileno(), fcntl.LOCK_EX)
                if not _is_named(file, path):
                    continue
                if changed_at(os.fstat(file.fileno())) > unchanged_since:
                    return False
                path.unlink()
        except FileNotFoundError:
            pass
        return True
    return False


def tidy(root: Path, folders: Iterable[Path]) -> None:
    """Make deletions in these series folders durable, and remove the folders that are empty now."""
    for folder in sorted(set(folders)):
        with contextlib.suppress(FileNotFoundError):
            sync_folder(folder)
        for empty in (folder, folder.parent):
            _remove_empty(root, empty)
    sync_folder(root)


def remove_folder(folder: Path) -> None:
    """Delete a folder of results with all in it, durably."""
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)
    with contextlib.suppress(FileNotFoundError):
        sync_folder(folder.parent)


def prune_partial(root: Path, *, before: datetime, pattern: str = "*") -> int:
    """Delete what has lain in `partial/` since before a time; how many files that was."""
    pruned = 0
    for path in (root / "partial").glob(pattern):
        with contextlib.suppress(FileNotFoundError):
            if changed_at(path.stat()) < before:
                path.unlink()
                pruned += 1
    return pruned


def removals(root: Path) -> int:
    """A number that changes before a folder is removed."""
    try:
        return (root / _REMOVALS).stat().st_mtime_ns
    except FileNotFoundError:
        return 0


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable (fsync(2): syncing a file does not sync its name)."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_empty(root: Path, folder: Path) -> None:
    """Remove a folder where it is empty; a listener may be about to write into it, and makes it anew then."""
    try:
        if any(folder.iterdir()):
            return
        marker = root / _REMOVALS
        marker.touch()
        # In nanoseconds: the kernel's own "now" stands still for milliseconds.
        os.utime(marker, ns=(time.time_ns(), time.time_ns()))
        folder.rmdir()
    except OSError:
        # Something came into it, or somebody else removed it.
        return


def _is_named(file: BinaryIO, path: Path) -> bool:
    """Whether the path still names the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False
