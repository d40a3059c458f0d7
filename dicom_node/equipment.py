"""Who contributed to an image (Contributing Equipment Sequence), read from its bytes while it arrives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from dicom_node.errors import DataSetError
from dicom_node.raw_elements import ITEM, ITEM_END, UNDEFINED, Elements

#: Contributing Equipment Sequence (PS3.3 C.12.1.1.5).
CONTRIBUTING = 0x0018A001
#: Manufacturer (0008,0070) of the item that every result of ours carries.
OWN_MANUFACTURER = "secondread"

_MANUFACTURER, _PURPOSE = 0x00080070, 0x0040A170
_CODE_VALUE, _SCHEME = 0x00080100, 0x00080102
#: CID 7005 "Contributing Equipment Purpose of Reference" (PS3.16).
_PROCESSING = (b"109102", b"DCM")

#: More than this is not looked at: no device writes so much, and reading must stay cheap.
_MOST_BYTES, _MOST_ITEMS = 256 * 1024, 256

_Item = dict[int, tuple[bytes, memoryview]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Equipment:
    """What the Contributing Equipment of an image says."""

    #: Whether one item is secondread's.
    ours: bool = False
    #: How many items are processing equipment: other programs that made it anew from what they were sent.
    processing: int = 0


#: An image that names no contributor, as nearly all do.
NOBODY = Equipment()


def read(value: memoryview, *, vr: bytes, explicit: bool, big: bool) -> Equipment:
    """What the sequence's value says; what of it cannot be read counts for nothing.

    `vr` is the sequence's own, b"" in implicit VR.
    """
    ours, processing = False, 0
    try:
        for item in _items(value[:_MOST_BYTES], vr=vr, explicit=explicit, big=big):
            ours = ours or _text(item, _MANUFACTURER).lower() == OWN_MANUFACTURER.encode()
            processing += _is_processing(item, explicit=explicit and vr != b"UN", big=big and vr != b"UN")
    except DataSetError:
        # It was taken before anybody looked in here; it is still an image.
        pass
    return Equipment(ours=ours, processing=processing)


def _is_processing(item: _Item, *, explicit: bool, big: bool) -> bool:
    """Whether the item's purpose is that of processing equipment."""
    if _PURPOSE not in item:
        return False
    vr, value = item[_PURPOSE]
    purposes = _items(value, vr=vr, explicit=explicit, big=big)
    return any((_text(each, _CODE_VALUE), _text(each, _SCHEME)) == _PROCESSING for each in purposes)


def _items(value: memoryview, *, vr: bytes, explicit: bool, big: bool) -> Iterator[_Item]:
    """The items of a sequence's value, each with the elements that are of interest."""
    # PS3.5 section 6.2.2 note 2: what hides behind UN is implicit little endian.
    elements = Elements(value, explicit=False) if vr == b"UN" else Elements(value, explicit=explicit, big=big)
    position = 0
    for _ in range(_MOST_ITEMS):
        if position >= len(value):
            return
        tag, _vr, length, start = elements.element(position)
        if tag != ITEM:
            return
        item, position = _item(elements, start, length)
        yield item


def _item(elements: Elements, position: int, length: int) -> tuple[_Item, int]:
    """One item's elements of interest, and where the next item starts (PS3.5 section 7.5)."""
    end = len(elements.view) if length == UNDEFINED else min(position + length, len(elements.view))
    found: _Item = {}
    while position < end:
        tag, vr, size, start = elements.element(position)
        if tag == ITEM_END:
            return found, start
        position = elements.after(vr, size, start)
        if tag in (_MANUFACTURER, _PURPOSE, _CODE_VALUE, _SCHEME):
            found[tag] = vr, elements.view[start:position]
    return found, end


def _text(item: _Item, tag: int) -> bytes:
    """A text value without its padding; b"" where it is absent."""
    return bytes(item[tag][1]).strip(b"\0 ") if tag in item else b""
