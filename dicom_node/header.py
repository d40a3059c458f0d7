"""The few attributes that file a data set, read from its first bytes without decoding the rest."""

from __future__ import annotations

import re
import struct
import zlib
from dataclasses import dataclass

from pydicom.charset import convert_encodings, decode_bytes

from dicom_node.errors import DataSetError

DEFLATED_LITTLE = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

#: PS3.5 section 9.1, without its rule on leading zeros: real senders break it, and no file name suffers.
_UID = re.compile(r"[0-9]+(?:\.[0-9]+)*")
_UID_LENGTH = 64

#: PS3.5 table 7.1-1: value representations whose explicit length takes four bytes after two reserved ones.
_LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
_SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
_UNDEFINED = 0xFFFFFFFF
_ITEM_END, _SEQUENCE_END = 0xFFFEE00D, 0xFFFEE0DD

_CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE = 0x00080005, 0x00080016, 0x00080018
_MODALITY, _PATIENT_ID = 0x00080060, 0x00100020
_STUDY, _SERIES = 0x0020000D, 0x0020000E
_WANTED = frozenset((_CHARACTER_SET, _SOP_CLASS, _SOP_INSTANCE, _MODALITY, _PATIENT_ID, _STUDY, _SERIES))

#: A header that needs more than this once inflated is an attack, not an image.
_MOST_INFLATED = 64 * 1024 * 1024
#: Sequences nested deeper than this are an attack, too.
_DEEPEST = 64
_TOO_SHORT = "the data set ends before its UIDs"


class HeadTooShort(DataSetError):
    """The bytes end before Series Instance UID: with more of them the answer may be another."""


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
    values = _Elements(view, explicit=_is_explicit(view, big=big), big=big).wanted()
    return InstanceHeader(
        study_instance_uid=_uid(values, _STUDY, "Study Instance UID (0020,000D)"),
        series_instance_uid=_uid(values, _SERIES, "Series Instance UID (0020,000E)"),
        sop_instance_uid=_uid(values, _SOP_INSTANCE, "SOP Instance UID (0008,0018)"),
        sop_class_uid=_uid(values, _SOP_CLASS, "SOP Class UID (0008,0016)"),
        patient_id=_text(values.get(_PATIENT_ID, b""), values.get(_CHARACTER_SET, b"")),
        modality=_text(values.get(_MODALITY, b""), b""),
    )


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
        raise HeadTooShort(_TOO_SHORT)
    vr = bytes(view[4:6])
    if vr in _SHORT_VRS or vr in _LONG_VRS:
        return True
    (length,) = struct.unpack_from("<L", view, 4)
    if big or 0xFFFF < length < _UNDEFINED:
        raise DataSetError("not DICOM: the first element is neither explicit nor implicit VR")
    return False


def _inflate(view: memoryview) -> bytes:
    """The start of a deflated data set (PS3.5 section A.5: a raw RFC 1951 stream)."""
    try:
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(view, _MOST_INFLATED)
    except zlib.error as error:
        raise DataSetError("not DICOM: the bytes are not a deflated stream") from error


class _Elements:
    """Steps over the elements of a data set; keeps no values but the wanted ones."""

    def __init__(self, view: memoryview, *, explicit: bool, big: bool = False) -> None:
        self._view = view
        self._explicit = explicit
        order = ">" if big else "<"
        self._tag_vr_length = struct.Struct(order + "HH2sH")
        self._tag_length = struct.Struct(order + "HHL")
        self._length = struct.Struct(order + "L")

    def wanted(self) -> dict[int, bytes]:
        """The values of the wanted elements, as sent. Raises `DataSetError`, `HeadTooShort`."""
        values: dict[int, bytes] = {}
        position, before, end = 0, 0, len(self._view)
        while position < end and before < _SERIES:
            tag, vr, length, start = self._element(position)
            if tag <= before:
                raise DataSetError(
                    f"not DICOM: element at byte {position} is out of order (PS3.5 section 7.1)"
                )
            before = tag
            if tag > _SERIES:
                break
            position = self._after(vr, length, start)
            if tag in _WANTED:
                if position > end:
                    raise HeadTooShort(_TOO_SHORT)
                values[tag] = bytes(self._view[start:position])
        if before < _SERIES:
            raise HeadTooShort(_TOO_SHORT)
        return values

    def _element(self, position: int) -> tuple[int, bytes, int, int]:
        """(tag, VR or b"", length, where the value starts) of the element at `position`."""
        try:
            if not self._explicit:
                group, element, length = self._tag_length.unpack_from(self._view, position)
                return group << 16 | element, b"", length, position + 8
            group, element, vr, length = self._tag_vr_length.unpack_from(self._view, position)
            if vr in _SHORT_VRS:
                return group << 16 | element, vr, length, position + 8
            if group == 0xFFFE:
                # PS3.5 section 7.5: items and delimiters have no VR in any transfer syntax.
                (length,) = self._length.unpack_from(self._view, position + 4)
                return group << 16 | element, b"", length, position + 8
            if vr not in _LONG_VRS:
                raise DataSetError(f"not DICOM: the element at byte {position} has no known VR")
            (length,) = self._length.unpack_from(self._view, position + 8)
            return group << 16 | element, vr, length, position + 12
        except struct.error:
            raise HeadTooShort(_TOO_SHORT) from None

    def _after(self, vr: bytes, length: int, start: int) -> int:
        """Where the next element starts; may lie beyond the bytes at hand."""
        if length != _UNDEFINED:
            return start + length
        if vr == b"UN":
            # PS3.5 section 6.2.2 note 4: a sequence of unknown VR is encoded as implicit little endian.
            return _Elements(self._view, explicit=False)._skip_sequence(start)
        return self._skip_sequence(start)

    def _skip_sequence(self, position: int) -> int:
        """Past the delimiter of a sequence of undefined length (PS3.5 section 7.5.2)."""
        still_open = 1
        while still_open:
            if position >= len(self._view):
                raise HeadTooShort(_TOO_SHORT)
            tag, vr, length, start = self._element(position)
            position = start
            if tag in (_ITEM_END, _SEQUENCE_END):
                still_open -= 1
            elif length != _UNDEFINED:
                position = start + length
            elif vr == b"UN":
                position = _Elements(self._view, explicit=False)._skip_sequence(start)
            else:
                still_open += 1
            if still_open > _DEEPEST:
                raise DataSetError("not DICOM: sequences are nested too deeply")
        return position
