"""The preamble and file meta information in front of each received data set, as bytes."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from dicom_node.errors import DataSetError

#: PS3.7 D.3.3.2: names this implementation; made once from a UUID (PS3.5 B.2).
IMPLEMENTATION_CLASS_UID = "2.25.272167799870177507152176849765760460381"
IMPLEMENTATION_VERSION_NAME = "SECONDREAD"
#: (0002,0100): says that (0002,0102) is ours: the SHA-256 of the data set that follows.
_DIGEST_CREATOR_UID = "2.25.76514674241618423765059140620924793548"
_DIGEST_BYTES = 32

_PREAMBLE = bytes(128) + b"DICM"
_LONG_VRS = (b"OB", b"UN", b"OW", b"UT", b"SQ")


@dataclass(frozen=True, kw_only=True, slots=True)
class FileMeta:
    """What the file meta information of a spooled file says (PS3.10 section 7.1)."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    #: SHA-256 of the data set, lower-case hex; None where another program wrote the file.
    sha256: str | None
    #: Where the data set starts.
    data_offset: int


class FileMetaTemplate:
    """File meta bytes for one presentation context; only the SOP Instance UID and the digest vary.

    Building these with a DICOM library for each image took a fifth of the listener's time.
    """

    def __init__(self, *, sop_class_uid: str, transfer_syntax_uid: str, source_ae_title: str) -> None:
        self._before = (
            b"\x02\x00\x01\x00OB\x00\x00\x02\x00\x00\x00\x00\x01"
            + _short(0x0002, b"UI", sop_class_uid.encode("ascii"))
        )  # fmt: skip
        self._after = (
            _short(0x0010, b"UI", transfer_syntax_uid.encode("ascii"))
            + _short(0x0012, b"UI", IMPLEMENTATION_CLASS_UID.encode("ascii"))
            + _short(0x0013, b"SH", IMPLEMENTATION_VERSION_NAME.encode("ascii"))
            + _short(0x0016, b"AE", source_ae_title.encode("ascii", "replace"))
            + _short(0x0100, b"UI", _DIGEST_CREATOR_UID.encode("ascii"))
            + struct.pack("<HH2sHL", 2, 0x0102, b"OB", 0, _DIGEST_BYTES)
        )

    def encode(self, *, sop_instance_uid: str, digest: bytes) -> bytes:
        """Preamble, prefix and file meta; the digest is its last 32 bytes: it can be filled in later."""
        body = self._before + _short(0x0003, b"UI", sop_instance_uid.encode("ascii")) + self._after
        # PS3.10 table 7.1-1: (0002,0000) counts the bytes after itself.
        length = struct.pack("<HH2sHL", 2, 0, b"UL", 4, len(body) + _DIGEST_BYTES)
        return _PREAMBLE + length + body + digest


#: To be put where the digest is not known yet.
NO_DIGEST = bytes(_DIGEST_BYTES)


def decode(head: bytes) -> FileMeta:
    """Read the file meta information from a file's first bytes. Raises `DataSetError`."""
    if head[128:132] != b"DICM":
        raise DataSetError("not a DICOM file: no DICM prefix (PS3.10 section 7.1)")
    values: dict[int, bytes] = {}
    position = 132
    try:
        while struct.unpack_from("<H", head, position)[0] == 2:
            _, element, vr, length = struct.unpack_from("<HH2sH", head, position)
            position += 8
            if vr in _LONG_VRS:
                (length,) = struct.unpack_from("<L", head, position)
                position += 4
            values[element] = head[position : position + length]
            position += length
        return FileMeta(
            sop_class_uid=_plain(values[0x0002]),
            sop_instance_uid=_plain(values[0x0003]),
            transfer_syntax_uid=_plain(values[0x0010]),
            sha256=_digest(values),
            data_offset=position,
        )
    except (struct.error, KeyError) as error:
        raise DataSetError("the file meta information is incomplete (PS3.10 table 7.1-1)") from error


def _digest(values: dict[int, bytes]) -> str | None:
    digest = values.get(0x0102, b"")
    ours = _plain(values.get(0x0100, b"")) == _DIGEST_CREATOR_UID and len(digest) == _DIGEST_BYTES
    return digest.hex() if ours and digest != NO_DIGEST else None


def _plain(value: bytes) -> str:
    return value.strip(b"\0 ").decode("latin-1")


def _short(element: int, vr: bytes, value: bytes) -> bytes:
    """One explicit VR element of group 0002 with a two-byte length, padded to even (PS3.5 section 7.1.2)."""
    if len(value) % 2:
        value += b"\0" if vr == b"UI" else b" "
    return struct.pack("<HH2sH", 2, element, vr, len(value)) + value
