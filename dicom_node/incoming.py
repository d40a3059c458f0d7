"""One data set on its way in: in memory while small, in a temporary file beyond that."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from dicom_node import header, stored_files
from dicom_node.errors import DataSetError
from dicom_node.file_meta import NO_DIGEST, FileMetaTemplate
from dicom_node.header import InstanceHeader
from dicom_node.instance import StoredInstance
from dicom_node.loop_guard import LoopGuard

if TYPE_CHECKING:
    from dicom_node.spool import Spool

#: Most CT and MR images fit: they are then hashed and written in one go, after they were looked at.
BUFFER_BYTES = 1024 * 1024
#: UIDs that stand behind more than this are not looked for.
_LONGEST_HEAD = 64 * 1024 * 1024


class WrongInstance(DataSetError):
    """The data set is not the instance that the request announced."""


class Looped(DataSetError):
    """The loop guard does not let the instance in."""


class Incoming:
    """Takes bytes as they arrive and ends as a `StoredInstance`, or set aside; memory stays at one buffer."""

    def __init__(
        self, *, spool: Spool, template: FileMetaTemplate, sop_instance_uid: str, buffer: bytearray
    ) -> None:
        self._spool = spool
        self._template = template
        self._sop_instance_uid = sop_instance_uid
        self._buffer = memoryview(buffer)
        self._held = 0
        self._hash = hashlib.sha256()
        self._descriptor: int | None = None
        self._temporary: Path | None = None
        self._meta_length = 0
        self._ended = False

    def room(self) -> memoryview:
        """Where the next bytes go; never empty."""
        return self._buffer[self._held :]

    def filled(self, count: int) -> None:
        """Say that `count` bytes were put into `room()`. Raises `SpoolFull`, `OSError`."""
        self._held += count
        if self._held == len(self._buffer):
            self._spill()

    def write(self, data: bytes) -> None:
        """Take bytes that lie elsewhere. Raises `SpoolFull`, `OSError`."""
        view = memoryview(data)
        while view:
            room = self.room()
            count = min(len(room), len(view))
            room[:count] = view[:count]
            self.filled(count)
            view = view[count:]

    def commit(
        self,
        *,
        sop_class_uid: str,
        transfer_syntax_uid: str,
        association_id: str | None,
        guard: LoopGuard | None = None,
    ) -> StoredInstance:
        """Make the instance durable under its final name and describe it.

        Raises `DataSetError` (`WrongInstance`, `Looped`, `header.BadUid`) where it cannot be filed and
        `OSError` where the disk failed; what is in a temporary file is still there for `set_aside`, but
        for a `Looped` one: its maker has it.
        """
        peeked = self._peek(transfer_syntax_uid)
        if peeked.sop_instance_uid != self._sop_instance_uid:
            raise WrongInstance("SOP Instance UID of data set and request differ")
        if peeked.sop_class_uid != sop_class_uid:
            raise WrongInstance("SOP Class UID of data set and request differ")
        if guard is not None and (reason := guard.reason(peeked)):
            self._drop_copy()
            raise Looped(f"loop guard: {reason}")
        self._hash.update(self._buffer[: self._held])
        sha256 = self._hash.hexdigest()
        folder = Path(peeked.study_instance_uid, peeked.series_instance_uid)
        first = folder / f"{peeked.sop_instance_uid}.dcm"
        side = folder / f"{peeked.sop_instance_uid}.{sha256[:16]}.dcm"
        path, status, duplicate = self._settle(first, side, sha256)
        return StoredInstance(
            sop_instance_uid=peeked.sop_instance_uid,
            sop_class_uid=peeked.sop_class_uid,
            study_instance_uid=peeked.study_instance_uid,
            series_instance_uid=peeked.series_instance_uid,
            transfer_syntax_uid=transfer_syntax_uid,
            patient_id=peeked.patient_id,
            modality=peeked.modality,
            path=path,
            size=status.st_size,
            sha256=sha256,
            received_at=stored_files.changed_at(status),
            association_id=association_id,
            duplicate=duplicate,
            conflicting=path is side,
            equipment=peeked.equipment,
        )

    def set_aside(self, *, keep: bool = True) -> None:
        """Let go: a temporary file that got no final name moves to the spool's `partial/`, or is deleted."""
        if not self._ended:
            self._ended = True
            self._spool.let_go()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        temporary, self._temporary = self._temporary, None
        if temporary is not None and keep:
            self._spool.keep_partial(temporary)
        elif temporary is not None:
            temporary.unlink()

    def _settle(self, first: Path, side: Path, sha256: str) -> tuple[Path, os.stat_result, bool]:
        """Where the bytes are now: (path, the file's size and time, whether they were there before).

        The first bytes under a UID stay; other bytes go beside them. A name may be taken between the
        look and the link, so each name is looked at again when the link fails.
        """
        status: os.stat_result | None = None
        for path in (first, side):
            while (known := self._spool.existing_digest(path)) is None:
                status = status or self._sync()
                assert self._temporary is not None
                if self._spool.publish(self._temporary, path):
                    self._temporary = None
                    return path, status, False
            if known == sha256:
                self._drop_copy()
                return path, (self._spool.root / path).stat(), True
        raise DataSetError("another data set of this instance has a digest that starts with the same 64 bits")

    def _peek(self, transfer_syntax_uid: str) -> InstanceHeader:
        """The header, from the buffer or, where that was written out before, from the file."""
        if self._descriptor is None:
            return header.peek(self._buffer[: self._held], transfer_syntax_uid)
        self._flush()
        try:
            head = os.pread(self._descriptor, BUFFER_BYTES, self._meta_length)
            return header.peek(head, transfer_syntax_uid)
        except header.HeadTooShort:
            head = os.pread(self._descriptor, _LONGEST_HEAD, self._meta_length)
            return header.peek(head, transfer_syntax_uid)

    def _drop_copy(self) -> None:
        """Delete the temporary file whose very bytes are stored under a final name."""
        if self._temporary is not None:
            self._temporary.unlink()
            self._temporary = None

    def _spill(self) -> None:
        """Write the full buffer to the temporary file, and start again at its beginning."""
        self._spool.require_room()
        if self._descriptor is None:
            self._open(NO_DIGEST)
        self._flush()

    def _flush(self) -> None:
        self._hash.update(self._buffer[: self._held])
        self._write(self._buffer[: self._held])
        self._held = 0

    def _open(self, digest: bytes) -> None:
        """Start the temporary file with the file meta."""
        self._descriptor, self._temporary = self._spool.new_temporary()
        meta = self._template.encode(sop_instance_uid=self._sop_instance_uid, digest=digest)
        self._meta_length = len(meta)
        self._write(meta)

    def _write(self, data: bytes | memoryview) -> None:
        assert self._descriptor is not None
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def _sync(self) -> os.stat_result:
        """Bring all bytes, the digest and the file's time to the disk; its size and time."""
        digest = self._hash.digest()
        if self._descriptor is None:
            self._open(digest)
            self._write(self._buffer[: self._held])
        else:
            os.pwrite(self._descriptor, digest, self._meta_length - len(digest))
        assert self._descriptor is not None
        status = stored_files.stamp(self._descriptor)
        os.fsync(self._descriptor)
        os.close(self._descriptor)
        self._descriptor = None
        return status
