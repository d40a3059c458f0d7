"""What a sender must know of a file before it can offer it: who it is, what it is, how it is encoded."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_partial
from pydicom.tag import BaseTag

from dicom_node import errors
from dicom_node.senders import Outcome, Verdict

#: PS3.5 9.1: digits and dots, at most 64 characters. Leading zeros are wrong but harmless on the wire.
_UID = re.compile(r"[0-9][0-9.]{0,63}")
#: What pydicom raises on bytes that are not, or not any more, a DICOM file.
_UNREADABLE = (InvalidDicomError, EOFError, ValueError, KeyError, TypeError, AttributeError,
               NotImplementedError, struct.error, zlib.error)  # fmt: skip
_SOP_INSTANCE_UID_TAG = 0x00080018


@dataclass(frozen=True, kw_only=True, slots=True)
class FileToSend:
    """One Part 10 file, as its file meta and its data set name it."""

    path: Path
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    #: Bytes on disk, preamble and file meta included.
    size: int


def identify(path: Path) -> FileToSend:
    """Read the file's identity; nothing behind SOP Instance UID (0008,0018) is read or decoded.

    Raises DataSetError where it is no Part 10 file (PS3.10 7.1), lacks a UID that names it, or names
    itself differently in file meta and data set (PS3.10 Table 7.1-1 wants them equal).
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            ds = read_partial(file, stop_when=_behind_identity)
    except OSError as error:
        raise errors.DataSetError(f"the file cannot be read: {error.strerror}") from error
    except _UNREADABLE as error:
        raise errors.DataSetError("not a DICOM file (PS3.10)") from error
    found = FileToSend(
        path=path,
        sop_class_uid=_uid(ds.file_meta, 0x00020002, "Media Storage SOP Class UID"),
        sop_instance_uid=_uid(ds.file_meta, 0x00020003, "Media Storage SOP Instance UID"),
        transfer_syntax_uid=_uid(ds.file_meta, 0x00020010, "Transfer Syntax UID"),
        size=size,
    )
    own_class = _uid(ds, 0x00080016, "SOP Class UID")
    own_instance = _uid(ds, _SOP_INSTANCE_UID_TAG, "SOP Instance UID")
    if (own_class, own_instance) != (found.sop_class_uid, found.sop_instance_uid):
        raise errors.DataSetError("file meta and data set name different SOP UIDs")
    return found


def _behind_identity(tag: BaseTag, vr: str | None, length: int) -> bool:
    return int(tag) > _SOP_INSTANCE_UID_TAG


def is_uid(text: str) -> bool:
    """Whether the text can name an object, and a file: digits and dots only (PS3.5 9.1)."""
    return _UID.fullmatch(text) is not None


def _uid(ds: Dataset, tag: int, element: str) -> str:
    """A UID as the file has it; pydicom's own conversion would print a bad one in a warning."""
    raw = ds.get_item(tag)
    value = raw.value if raw is not None else b""
    text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
    text = text.rstrip("\0 ")  # PS3.5 9.1 pads with NUL, some writers with a space
    if not is_uid(text):
        raise errors.DataSetError(f"the file has no usable {element}")
    return text


def identify_all(paths: Sequence[Path], on_outcome: Callable[[Outcome], None]) -> list[FileToSend]:
    """Identify every file; one that cannot be sent at all has its outcome here and is left out."""
    usable = []
    for path in paths:
        try:
            usable.append(identify(path))
        except errors.DataSetError as error:
            on_outcome(
                Outcome(
                    sop_instance_uid="", verdict=Verdict.REFUSED, status=None, comment=str(error), path=path
                )
            )
    return usable
