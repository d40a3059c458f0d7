"""Received instances on disk: durable under their final names before anyone is told so."""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import secrets
import threading
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from dicom_node import digests, stored_files
from dicom_node.errors import SpoolFull
from dicom_node.file_meta import FileMetaTemplate
from dicom_node.incoming import BUFFER_BYTES, Incoming
from dicom_node.instance import StoredInstance

LOGGER = logging.getLogger(__name__)

#: Series folders known to be durable; forgotten all at once when there are more.
_MOST_FOLDERS = 10_000
#: How often a series folder is made that is removed at once: it was that of a deleted study.
_TRIES = 5


class Spool:
    """A folder of instances, `<study>/<series>/<sop>.dcm`, that several processes may fill at once.

    `incoming/<process>/` holds temporary files: never acknowledged, locked for as long as their process
    lives. `partial/` holds what dead processes and failed writes left; only retention deletes there.
    Raises `SpoolFull` from `begin` and `store` where that could leave less than `watermark_bytes` free.
    """

    def __init__(self, root: Path, *, watermark_bytes: int) -> None:
        self.root = root
        self._watermark_bytes = watermark_bytes
        self._partial = root / "partial"
        self._durable_folders: set[Path] = set()
        self._removals = stored_files.removals(root)
        self._counting = threading.Lock()
        self._in_hand = 0
        self._partial.mkdir(parents=True, exist_ok=True)
        self._incoming, self._lock = _own_folder(root / "incoming")
        self._require_links()
        self._set_dead_aside()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def begin(
        self, *, template: FileMetaTemplate, sop_instance_uid: str, buffer: bytearray | None = None
    ) -> Incoming:
        """Start to receive an instance. Raises `SpoolFull`.

        `buffer` may be used again once the `Incoming` is committed or set aside.
        """
        self._count(1)
        try:
            self.require_room()
        except BaseException:
            self._count(-1)
            raise
        return Incoming(
            spool=self,
            template=template,
            sop_instance_uid=sop_instance_uid,
            buffer=bytearray(BUFFER_BYTES) if buffer is None else buffer,
        )

    def store(
        self,
        data_set: bytes,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        source_ae_title: str = "",
        association_id: str | None = None,
    ) -> StoredInstance:
        """Make one whole data set durable. Raises `SpoolFull`, `DataSetError`, `OSError`."""
        template = FileMetaTemplate(
            sop_class_uid=sop_class_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            source_ae_title=source_ae_title,
        )
        incoming = self.begin(template=template, sop_instance_uid=sop_instance_uid)
        try:
            incoming.write(data_set)
            return incoming.commit(
                sop_class_uid=sop_class_uid,
                transfer_syntax_uid=transfer_syntax_uid,
                association_id=association_id,
            )
        finally:
            incoming.set_aside()

    def open(self, path: Path) -> BinaryIO:
        """Open a stored file by the path of its `StoredInstance`."""
        return (self.root / path).open("rb")

    def close(self) -> None:
        """Give up this process's folder of temporary files."""
        if self._lock < 0:
            return
        os.close(self._lock)
        self._lock = -1
        self._set_dead_aside()

    def require_room(self) -> None:
        """Raise `SpoolFull` where what is in hand may bring the disk below its watermark; one system call.

        Each instance in hand writes at most a buffer before it asks again.
        """
        disk = os.statvfs(self.root)
        if disk.f_bavail * disk.f_frsize < self._watermark_bytes + self._in_hand * BUFFER_BYTES:
            raise SpoolFull("the spool's disk is below its watermark")

    def let_go(self) -> None:
        """An instance that was begun is in hand no more."""
        self._count(-1)

    def _count(self, change: int) -> None:
        with self._counting:
            self._in_hand += change

    def new_temporary(self) -> tuple[int, Path]:
        """A temporary file of this process: (descriptor, path), on the file system of the final names."""
        path = self._incoming / f"{secrets.token_hex(8)}.part"
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o640), path

    def keep_partial(self, path: Path) -> None:
        """Move a temporary file that became no instance to `partial/`."""
        path.replace(self._partial / path.name)

    def existing_digest(self, relative: Path) -> str | None:
        """Digest of what is stored under this name, made durable anew; None where nothing is.

        The whole file is read: what its file meta says was true when it was written. A damaged file goes
        to `partial/`, and its name is free. One whose deletion is due will stay: it counts as received now.
        """
        path = self.root / relative
        try:
            with path.open("rb") as file:
                fcntl.flock(file.fileno(), fcntl.LOCK_SH)
                digest = digests.whole(file)
                if digest is None:
                    self._set_damaged_aside(file, path)
                    return None
                if not stored_files.received_again(file, path):
                    return None
                # Another process may have linked it a moment ago and not have synced the folder yet.
                stored_files.sync_folder(path.parent)
        except FileNotFoundError:
            return None
        return digest

    def publish(self, temporary: Path, relative: Path) -> bool:
        """Give a synced temporary file its final name, durably; False where the name is taken.

        A link, unlike a rename, never replaces: of two processes that store one UID, one wins.
        """
        path = self.root / relative
        try:
            self._link(temporary, path)
        except FileExistsError:
            return False
        stored_files.sync_folder(path.parent)
        self._renew_folder(path.parent)
        temporary.unlink()
        return True

    def _link(self, temporary: Path, path: Path) -> None:
        """Link a file to its final name, in a folder that is made where it is missing."""
        for tried in range(1, _TRIES + 1):
            self._make_folder(path.parent)
            try:
                path.hardlink_to(temporary)
                return
            except FileNotFoundError:
                # Someone removed the empty folder since this process last used it.
                self._durable_folders.discard(path.parent)
                if tried == _TRIES:
                    raise

    def _renew_folder(self, folder: Path) -> None:
        """Make a folder durable again where folders were removed: another may have made it anew, unsynced."""
        removals = stored_files.removals(self.root)
        if removals != self._removals:
            self._durable_folders.clear()
            self._removals = removals
            self._make_folder(folder)

    def _set_damaged_aside(self, file: BinaryIO, path: Path) -> None:
        """Move a damaged file to `partial/`; a sound one that took its name meanwhile stays."""
        # Of two processes that found it damaged, the second must not move what the first put in its place.
        fcntl.flock(file.fileno(), fcntl.LOCK_EX)
        if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return
        # Kept as long as anything else there: counted from now, not from when it was received.
        os.utime(file.fileno())
        path.replace(self._partial / f"{path.stem}.{secrets.token_hex(8)}.damaged")
        LOGGER.warning("spool file %s was damaged: moved to partial/", path.relative_to(self.root))

    def _make_folder(self, folder: Path) -> None:
        """Make a series folder and make it durable, once per process: another may have made it unsynced."""
        if folder in self._durable_folders:
            return
        folder.mkdir(parents=True, exist_ok=True)
        stored_files.sync_folder(folder.parent)
        stored_files.sync_folder(self.root)
        if len(self._durable_folders) >= _MOST_FOLDERS:
            self._durable_folders.clear()
        self._durable_folders.add(folder)

    def _require_links(self) -> None:
        """Fail at start-up, with a remedy, where the file system has no hard links."""
        probe = self._incoming / "probe"
        try:
            probe.hardlink_to(self._incoming / "lock")
        except OSError as error:
            raise OSError(
                error.errno, f"{self.root} has no hard links; put the storage on a file system that has"
            ) from error
        probe.unlink()

    def _set_dead_aside(self) -> None:
        """Move the temporary files of processes that are gone to `partial/`; they were never acknowledged."""
        for folder in (self.root / "incoming").iterdir():
            with contextlib.suppress(BlockingIOError, FileNotFoundError):
                self._set_folder_aside(folder)

    def _set_folder_aside(self, folder: Path) -> None:
        """Empty one process's folder. Raises `BlockingIOError` where that process lives."""
        with (folder / "lock").open("rb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            left = list(folder.glob("*.part"))
            for path in left:
                self.keep_partial(path)
            (folder / "lock").unlink()
            folder.rmdir()
        if left:
            LOGGER.warning("%d unfinished transfers of a dead process moved to partial/", len(left))


def _own_folder(parent: Path) -> tuple[Path, int]:
    """A folder for this process' temporary files, and its lock.

    The lock goes when the process does, however it ends; a process id would be reused, and means
    nothing to another host on the same storage. Another process that starts at the same moment may take
    a folder without a lock for a dead one's and remove it: then a new one is made.
    """
    while True:
        folder = parent / secrets.token_hex(8)
        folder.mkdir(parents=True)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT, 0o640)
            fcntl.flock(lock, fcntl.LOCK_EX)
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(lock), (folder / "lock").stat()):
                    return folder, lock
            os.close(lock)
