"""The few attributes that file a data set, read from its first bytes without decoding the rest."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from pydicom.charset import convert_encodings, decode_bytes

from dicom_node import equipment
from dicom_node.equipment import CONTRIBUTING, NOBODY, Equipment
from dicom_node.errors import DataSetError
from dicom_node.raw_elements import LONG_VRS, SHORT_VRS, UNDEFINED, Elements, HeadTooShort

__all__ = ["BadUid", "HeadTooShort", "InstanceHeader", "checked_uid", "peek"]

DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

#: PS3.5 section 9.1, without its rule on leading zeros: real senders break it, and no file name suffers.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_UID_LENGTH = 64

_CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE = 0x00080005, 0x00080016, 0x00080018
_MODALITY, _PATIENT_ID = 0x00080060, 0x00100020
_STUDY, _SERIES = 0x0020000D, 0x0020000E
_WANTED = frozenset(
    (_CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE, _MODALITY, _PATIENT_ID, CONTRIBUTING, _STUDY, _SERIES)
)

#: A header that needs more than this once inflated is an attack, not an image.
_MOST_INFLATED = 64 * 1024 * 1024


class BadUid(DataSetError):
    """A value that must name a file or a row is not a UID."""


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceHeader:
    """What names an instance, as sent."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    #: Stripped; "" where absent. Never log it.
    patient_id: str
    #: Stripped; "" where absent.
    modality: str
    #: Who contributed to it.
    equipment: Equipment = NOBODY


def peek(head: bytes | bytearray | memoryview, transfer_syntax_uid: str) -> InstanceHeader:
    """Read the header of a data set from its first bytes, up to Series Instance UID (0020,000E).

    Raises `HeadTooShort` where `head` ends before that element, `BadUid` where a UID could not name a
    file, and `DataSetError` where the bytes are no data set or lack a UID. Elements stand in ascending
    order (PS3.5 section 7.1), so nothing after (0020,000E) is looked at.
    """
    view = memoryview(head)
    if transfer_syntax_uid == DEFLATED_LITTLE:
        view = memoryview(_inflate(view))
    big = transfer_syntax_uid == EXPLICIT_BIG
    elements = Elements(view, explicit=_is_explicit(view, big=big), big=big)
    found = elements.up_to(_SERIES, _WANTED)
    values = {tag: bytes(value) for tag, (_, value) in found.items() if tag != CONTRIBUTING}
    return InstanceHeader(
        study_instance_uid=_uid(values, _STUDY, "Study Instance UID (0020,000D)"),
        series_instance_uid=_uid(values, _SERIES, "Series Instance UID (0020,000E)"),
        sop_instance_uid=_uid(values, _SOP_INSTANCE, "SOP Instance UID (0008,0018)"),
        sop_class_uid=_uid(values, _SOP_CLASS, "SOP Class UID (0008,0016)"),
        patient_id=_text(values.get(_PATIENT_ID, b""), values.get(_CHARACTER_SET, b"")),
        modality=_text(values.get(_MODALITY, b""), b""),
        equipment=_equipment(elements, *found[CONTRIBUTING]) if CONTRIBUTING in found else NOBODY,
    )


def _equipment(elements: Elements, vr: bytes, value: memoryview) -> Equipment:
    return equipment.read(value, vr=vr, explicit=elements.explicit, big=elements.big)


def checked_uid(value: bytes, name: str) -> str:
    """A UID that is safe as a file name: digits and dots, no empty component, at most 64 characters.

    Padding (a NUL by PS3.5 section 9.1, a space from some senders) is dropped. Raises `BadUid`.
    """
    text = value.strip(b"\0 ").decode("latin-1")
    if len(text) > _UID_LENGTH or _UID.fullmatch(text) is None:
        raise BadUid(f"{name} is not a UID (PS3.5 section 9.1)")
    return text


def _uid(values: dict[int, bytes], tag: int, name: str) -> str:
    if not values.get(tag, b"").strip(b"\0 "):
        raise DataSetError(f"the data set has no {name}")
    return checked_uid(values[tag], name)


def _text(value: bytes, character_set: bytes) -> str:
    """Text in the data set's character set (PS3.5 section 6.1); bytes that are not in it become U+FFFD."""
    value = value.strip(b"\0 ")
    if value.isascii() and b"\x1b" not in value:
        return value.decode("ascii")
    names = [name.strip() for name in character_set.decode("ascii", "replace").split("\\")]
    try:
        encodings = convert_encodings(names)
        if b"\x1b" in value:
            return decode_bytes(value, encodings, {0x5C}).strip()
        return value.decode(encodings[0]).strip()
    except (LookupError, UnicodeError, Warning):
        return value.decode("ascii", "replace").strip()


def _is_explicit(view: memoryview, *, big: bool) -> bool:
    """Whether elements carry a VR: by the first one's looks, since senders mislabel data sets."""
    if len(view) < 8:
        raise HeadTooShort
    vr = bytes(view[4:6])
    if vr in SHORT_VRS or vr in LONG_VRS:
        return True
    (length,) = struct.unpack_from("<L", view, 4)
    if big or 0xFFFF < length < UNDEFINED:
        raise DataSetError("not DICOM: the first element is neither explicit nor implicit VR")
    return False


def _inflate(view: memoryview) -> bytes:
    """The start of a deflated data set (PS3.5 section A.5: a raw RFC 1951 stream)."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(view, _MOST_INFLATED)
    except zlib.error as error:
        raise DataSetError("not DICOM: the bytes are not a deflated stream") from error
