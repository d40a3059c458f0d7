"""Digests of stored files: what the file meta says, and what is really there."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

from dicom_node import file_meta
from dicom_node.errors import DataSetError

#: More than the file meta ever needs: preamble, five UIDs, two titles, the digest.
_META_BYTES = 1024
_CHUNK_BYTES = 1 << 20


def stated(file: BinaryIO) -> str:
    """SHA-256 of a file's data set: as its file meta says, computed where another program wrote it."""
    meta = file_meta.decode(file.read(_META_BYTES))
    return meta.sha256 if meta.sha256 is not None else content(file, meta.data_offset)


def whole(file: BinaryIO) -> str | None:
    """SHA-256 of a file's data set, computed; None where it is not the one that its file meta says."""
    try:
        meta = file_meta.decode(file.read(_META_BYTES))
    except DataSetError:
        return None
    digest = content(file, meta.data_offset)
    return digest if meta.sha256 in (None, digest) else None


def content(file: BinaryIO, data_offset: int) -> str:
    """SHA-256 of what follows the file meta, computed."""
    file.seek(data_offset)
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK_BYTES):
        digest.update(chunk)
    return digest.hexdigest()
