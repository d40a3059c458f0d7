"""Elements written as bytes in Implicit VR Little Endian: there no value is too long for its length field."""

from __future__ import annotations

import struct

from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from dicom_node.frame_header import frame_number


def text(tag: int, value: str, *, padding: bytes = b" ") -> bytes:
    """An element of ASCII text, padded to an even length (PS3.5 6.2); a UID is padded with NUL."""
    encoded = value.encode("ascii")
    return _element(tag, encoded + padding * (len(encoded) % 2))


def sequence(tag: int, *items: bytes) -> bytes:
    """A sequence of defined length (PS3.5 7.5), of items made by `item`."""
    return _element(tag, b"".join(items))


def item(*elements: bytes) -> bytes:
    """An item of defined length (PS3.5 7.5.1); the elements' tags must ascend."""
    return _element(0xFFFEE000, b"".join(elements))


def reference(image: Dataset, *frames: int) -> bytes:
    """An item that refers to an instance (PS3.3 Table 10-11), or to some of its frames (Table 10-3)."""
    instance = (
        text(0x00081150, image.SOPClassUID, padding=b"\0"),
        text(0x00081155, image.SOPInstanceUID, padding=b"\0"),
    )
    return item(*instance, *([text(0x00081160, "\\".join(map(str, frames)))] if frames else []))


def slice_reference(image: Dataset) -> bytes:
    """An item that refers to the one slice that the header is of."""
    number = frame_number(image)
    return reference(image) if number is None else reference(image, number)


def set_sequence(ds: Dataset, tag: int, *items: bytes) -> None:
    """Give `ds` a sequence that is bytes already. `ds` must be in UTF-8, and be written as Implicit VR Little Endian.

    It reads like any other; pydicom writes it as it is.
    """
    value = b"".join(items)
    ds[BaseTag(tag)] = RawDataElement(BaseTag(tag), "SQ", len(value), value, 0, True, True)
    # As if read from a file: otherwise pydicom would parse the bytes, only to write them again.
    ds.set_original_encoding(True, True, convert_encodings("ISO_IR 192"))


def _element(tag: int, value: bytes) -> bytes:
    """An element (PS3.5 7.1.3)."""
    return struct.pack("<HHL", tag >> 16, tag & 0xFFFF, len(value)) + value
