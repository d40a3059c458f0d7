"""Steps from element to element over the bytes of a data set, in any encoding, without decoding values."""

from __future__ import annotations

import struct
from collections.abc import Collection

from dicom_node.errors import DataSetError

#: PS3.5 table 7.1-1: value representations whose explicit length takes four bytes after two reserved ones.
LONG_VRS = frozenset(
    (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")
)
SHORT_VRS = frozenset(b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split())
UNDEFINED = 0xFFFFFFFF
ITEM, ITEM_END, SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD

#: Sequences nested deeper than this are an attack.
_DEEPEST = 64


class HeadTooShort(DataSetError):
    """The bytes end before the last element that is wanted: with more of them the answer may be another."""

    def __init__(self) -> None:
        super().__init__("the data set ends before its UIDs")


class Elements:
    """Steps over the elements of a data set, or of a sequence's value."""

    def __init__(self, view: memoryview, *, explicit: bool, big: bool = False) -> None:
        self.view = view
        self.explicit = explicit
        self.big = big
        order = ">" if big else "<"
        self._tag_vr_length = struct.Struct(order + "HH2sH")
        self._tag_length = struct.Struct(order + "HHL")
        self._length = struct.Struct(order + "L")

    def up_to(self, last: int, wanted: Collection[int]) -> dict[int, tuple[bytes, memoryview]]:
        """(VR or b"", value as sent) of the wanted elements up to `last`, by tag.

        Raises `DataSetError`, `HeadTooShort`.
        """
        view, found = self.view, {}
        position, before, end = 0, 0, len(view)
        while position < end and before < last:
            tag, vr, length, start = self.element(position)
            if tag <= before:
                raise DataSetError(
                    f"not DICOM: element at byte {position} is out of order (PS3.5 section 7.1)"
                )
            before = tag
            if tag > last:
                break
            position = self.after(vr, length, start)
            if tag in wanted:
                if position > end:
                    raise HeadTooShort
                found[tag] = vr, view[start:position]
        if before < last:
            raise HeadTooShort
        return found

    def element(self, position: int) -> tuple[int, bytes, int, int]:
        """(tag, VR or b"", length, where the value starts) of the element at `position`."""
        try:
            if not self.explicit:
                group, element, length = self._tag_length.unpack_from(self.view, position)
                return group << 16 | element, b"", length, position + 8
            group, element, vr, length = self._tag_vr_length.unpack_from(self.view, position)
            if vr in SHORT_VRS:
                return group << 16 | element, vr, length, position + 8
            if group == 0xFFFE:
                # PS3.5 section 7.5: items and delimiters have no VR in any transfer syntax.
                (length,) = self._length.unpack_from(self.view, position + 4)
                return group << 16 | element, b"", length, position + 8
            if vr not in LONG_VRS:
                raise DataSetError(f"not DICOM: the element at byte {position} has no known VR")
            (length,) = self._length.unpack_from(self.view, position + 8)
            return group << 16 | element, vr, length, position + 12
        except struct.error:
            raise HeadTooShort from None

    def after(self, vr: bytes, length: int, start: int) -> int:
        """Where the next element starts; may lie beyond the bytes at hand."""
        if length != UNDEFINED:
            return start + length
        if vr == b"UN":
            # PS3.5 section 6.2.2 note 4: a sequence of unknown VR is encoded as implicit little endian.
            return Elements(self.view, explicit=False)._skip_sequence(start)
        return self._skip_sequence(start)

    def _skip_sequence(self, position: int) -> int:
        """Past the delimiter of a sequence of undefined length (PS3.5 section 7.5.2)."""
        still_open = 1
        while still_open:
            if position >= len(self.view):
                raise HeadTooShort
            tag, vr, length, start = self.element(position)
            position = start
            if tag in (ITEM_END, SEQUENCE_END):
                still_open -= 1
            elif length != UNDEFINED:
                position = start + length
            elif vr == b"UN":
                position = Elements(self.view, explicit=False)._skip_sequence(start)
            else:
                still_open += 1
            if still_open > _DEEPEST:
                raise DataSetError("not DICOM: sequences are nested too deeply")
        return position
