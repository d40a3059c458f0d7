"""Elements written as bytes in Explicit VR Little Endian, where there are thousands alike."""

from __future__ import annotations

import struct

from pydicom.charset import convert_encodings
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.tag import BaseTag

from dicom_node.frame_header import frame_number

#: Value representations of text, by what pads them to an even length (PS3.5 6.2).
_PADDING = {"UI": b"\0", "DS": b" ", "IS": b" "}


def text(tag: int, vr: str, value: str) -> bytes:
    """An element of ASCII text; `vr` is UI, DS or IS."""
    encoded = value.encode("ascii")
    return element(tag, vr, encoded + _PADDING[vr] * (len(encoded) % 2))


def element(tag: int, vr: str, value: bytes) -> bytes:
    """An element of a VR that has a length of two bytes (PS3.5 7.1.2)."""
    return struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value


def long_element(tag: int, vr: str, value: bytes) -> bytes:
    """An element of a VR that has a length of four bytes (PS3.5 7.1.2)."""
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr.encode(), 0, len(value)) + value


def sequence(tag: int, *items: bytes) -> bytes:
    """A sequence of defined length (PS3.5 7.5), of items made by `item`."""
    return long_element(tag, "SQ", b"".join(items))


def item(*elements: bytes) -> bytes:
    """An item of defined length (PS3.5 7.5.1); the elements' tags must ascend."""
    value = b"".join(elements)
    return struct.pack("<HHL", 0xFFFE, 0xE000, len(value)) + value


def reference(image: Dataset, *frames: int) -> bytes:
    """The attributes that refer to an instance (PS3.3 Table 10-11), or to some of its frames (Table 10-3)."""
    instance = text(0x00081150, "UI", image.SOPClassUID) + text(0x00081155, "UI", image.SOPInstanceUID)
    return instance + (text(0x00081160, "IS", "\\".join(map(str, frames))) if frames else b"")


def slice_reference(image: Dataset) -> bytes:
    """The attributes that refer to the one slice that the header is of."""
    number = frame_number(image)
    return reference(image) if number is None else reference(image, number)


def encoded(ds: Dataset) -> bytes:
    """All elements of `ds`, which may be in a sequence, as pydicom writes them in UTF-8."""
    file = DicomBytesIO()
    file.is_implicit_VR, file.is_little_endian = False, True
    write_dataset(file, ds, "ISO_IR 192")
    return file.getvalue()


def set_sequence(ds: Dataset, tag: int, *items: bytes) -> None:
    """Give `ds` a sequence that is bytes already. `ds` must be in UTF-8, and be written as Explicit VR Little Endian.

    It reads like any other; pydicom writes it as it is.
    """
    value = b"".join(items)
    ds[BaseTag(tag)] = RawDataElement(BaseTag(tag), "SQ", len(value), value, 0, False, True)
    # As if read from a file: otherwise pydicom would parse the bytes, only to write them again.
    ds.set_original_encoding(False, True, convert_encodings("ISO_IR 192"))
