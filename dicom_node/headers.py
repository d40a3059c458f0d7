"""The header of one DICOM file, read without its pixels."""

from __future__ import annotations

import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_dataset, read_file_meta_info, read_partial
from pydicom.tag import BaseTag
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_node import elements
from dicom_node.errors import DataSetError

#: Values longer than this are not kept in a header: overlays, icons, private blobs (bytes).
_BULK = 64 * 1024
#: What a multi-frame image must have, however long: its functional groups, and where its frames begin.
_KEPT = (0x52009229, 0x52009230, 0x7FE00001, 0x7FE00002)
#: The largest data set that a deflated file may unfold to (bytes); a bomb stops here.
_INFLATED_LIMIT = 1 << 28

#: Pixel Data, Double Float Pixel Data, Float Pixel Data (PS3.3 C.7.6.3.1.4, C.7.6.24).
PIXEL_TAGS = (0x7FE00010, 0x7FE00009, 0x7FE00008)
#: Bulky, and yet what the pixels mean: LUTs of modality and VOI, palettes, segmented palettes (PS3.3 C.11, C.7.9).
_TABLES = frozenset({0x00283000, 0x00283010, *range(0x00281201, 0x00281204), *range(0x00281221, 0x00281224)})
_UNDEFINED_LENGTH = 0xFFFFFFFF


class Truncated(DataSetError):
    """The file ends before its data set does."""


@dataclass(frozen=True, kw_only=True, eq=False, slots=True)
class ImageFile:
    """One file: its header in memory, its pixels on disk."""

    path: Path
    #: Every element before the pixels, less the bulky ones.
    ds: Dataset
    transfer_syntax: UID
    #: Tag of the pixel element; None where the file has none.
    pixel_tag: int | None
    #: Where the pixel element's value begins in the (inflated) file.
    pixel_offset: int
    #: Bytes of that value; None for encapsulated pixels (undefined length, PS3.5 A.4).
    pixel_length: int | None
    #: Where the fragments of a frame's code lie, (offset, length); None: all from `pixel_offset` to the end.
    fragments: tuple[tuple[int, int], ...] | None = None
    #: A deflated file's content, which all of its frames share: inflating it for each of them would take forever.
    inflated: bytes | None = None


@contextmanager
def quietly() -> Iterator[None]:
    """Without pydicom's warnings: they quote values, and a value may name a patient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def read(path: Path, *, whole: bool = True) -> ImageFile:
    """Read the header of a file; raises DataSetError where there is none, Truncated where it is cut off.

    A file without preamble and file meta is accepted when it names a SOP class. With `whole=False`
    a file that is cut off gives the elements before the break.
    """
    try:
        with path.open("rb") as source:
            return _read(path, source, whole=whole)
    except OSError as error:
        # pydicom's sequence reader raises OSError for a data set that ends too early.
        reason = error.strerror or "its data set breaks off"
        raise DataSetError(f"cannot be read: {reason}") from error
    except elements.BROKEN as error:
        raise DataSetError(f"is not a DICOM file ({type(error).__name__})") from error


def open_at_pixels(image: ImageFile) -> BinaryIO:
    """The (inflated) file, positioned at the value of its pixel element; the caller closes it."""
    if image.inflated is not None:
        inflated = BytesIO(image.inflated)
        inflated.seek(image.pixel_offset)
        return inflated
    source: BinaryIO = image.path.open("rb")
    if image.transfer_syntax == DeflatedExplicitVRLittleEndian:
        with source:
            source = _inflate(source)
    source.seek(image.pixel_offset)
    return source


def _read(path: Path, source: BinaryIO, *, whole: bool) -> ImageFile:
    ds, body = _dataset(source, whole=whole)
    end, size = body.tell(), body.seek(0, 2)
    if whole:
        _refuse_truncated_header(ds, end=end, size=size)
    syntax = UID(elements.text(ds.file_meta, "TransferSyntaxUID")) or _guessed_syntax(ds)
    tag, offset, length = _pixel_element(body, at=end, big_endian=syntax == ExplicitVRBigEndian)
    if whole and length is not None and offset + length > size:
        raise Truncated(f"is cut off: {offset + length - size} bytes of its pixels are missing")
    _drop_bulk(ds)
    return ImageFile(
        path=path, ds=ds, transfer_syntax=syntax, pixel_tag=tag, pixel_offset=offset, pixel_length=length
    )


def _dataset(source: BinaryIO, *, whole: bool) -> tuple[FileDataset, BinaryIO]:
    """The header, and the stream it was read from, positioned where it ended."""
    head = source.read(1024)
    is_file = head[128:132] == b"DICM"
    if is_file and DeflatedExplicitVRLittleEndian.encode() in head:
        return _deflated_dataset(source)
    ds = _parsed(source, force=not is_file, whole=whole)
    if not len(ds) and (whole or not len(ds.file_meta)):
        raise DataSetError("holds no data set")
    if not is_file and not elements.text(ds, "SOPClassUID").startswith("1.2."):
        raise DataSetError("is not a DICOM file (no preamble, no SOP Class UID)")
    return ds, source


def _parsed(source: BinaryIO, *, force: bool, whole: bool) -> FileDataset:
    """Elements up to the pixels; unless `whole`, up to the first that cannot be parsed."""
    stop = _Stop()
    source.seek(0)
    try:
        return read_partial(source, stop_when=stop, force=force)
    except (*elements.BROKEN, OSError):
        if whole or stop.last is None:
            raise
    stop.at = stop.last
    source.seek(0)
    return read_partial(source, stop_when=stop, force=force)


class _Stop:
    """Tells pydicom where to stop, and remembers how far it came."""

    def __init__(self) -> None:
        self.at: int | None = None
        self.last: int | None = None

    def __call__(self, tag: BaseTag, vr: str | None, length: int) -> bool:
        self.last = tag
        return tag in PIXEL_TAGS or tag == self.at


def _deflated_dataset(source: BinaryIO) -> tuple[FileDataset, BinaryIO]:
    """As pydicom does it, but with a limit on what the bytes may unfold to."""
    source.seek(0)
    meta = read_file_meta_info(source.name)
    body = _inflate(source)
    parsed = read_dataset(body, is_implicit_VR=False, is_little_endian=True, stop_when=_Stop())
    ds = FileDataset(source.name, parsed, file_meta=meta, is_implicit_VR=False, is_little_endian=True)
    return ds, body


def _guessed_syntax(ds: Dataset) -> UID:
    implicit, little = ds.original_encoding
    if not little:
        return ExplicitVRBigEndian
    return ImplicitVRLittleEndian if implicit else ExplicitVRLittleEndian


def _inflate(source: BinaryIO) -> BinaryIO:
    """The data set of a deflated file, inflated (PS3.5 A.5)."""
    source.seek(132)
    # (0002,0000) comes first and counts the bytes of the file meta that follow it (PS3.10 7.1).
    group, element, _, _, length = struct.unpack("<HH2sHL", source.read(12))
    if (group, element) != (0x0002, 0x0000):
        raise DataSetError("is deflated, and its file meta has no length")
    source.seek(length, 1)
    unfolding = zlib.decompressobj(-zlib.MAX_WBITS)
    body = unfolding.decompress(source.read(), _INFLATED_LIMIT)
    if unfolding.unconsumed_tail:
        raise DataSetError("is deflated, and unfolds to more than an image can need")
    if not unfolding.eof:
        raise Truncated("is cut off: its deflated data set has no end")
    return BytesIO(body)


def _refuse_truncated_header(ds: Dataset, *, end: int, size: int) -> None:
    """pydicom stops without a word at the end of a file; the last element tells whether it was whole."""
    if end < size or not len(ds):
        return
    last = ds._dict[max(ds.keys())]
    if isinstance(last, RawDataElement) and last.value_tell + last.length != size:
        raise Truncated("is cut off within its header")


def _pixel_element(source: BinaryIO, *, at: int, big_endian: bool) -> tuple[int | None, int, int | None]:
    """Tag, value offset and length of the element at which the header ended (PS3.5 7.1.2, 7.1.3)."""
    order = ">" if big_endian else "<"
    source.seek(at)
    head = source.read(12)
    if len(head) < 8:
        return None, at, 0
    group, element = struct.unpack_from(f"{order}HH", head)
    tag = group << 16 | element
    if tag not in PIXEL_TAGS:
        return None, at, 0
    explicit = head[4:6].isalpha() and head[4:6].isupper()
    if explicit and len(head) < 12:
        raise Truncated("is cut off at the beginning of its pixels")
    (length,) = struct.unpack_from(f"{order}L", head, 8 if explicit else 4)
    return tag, at + (12 if explicit else 8), None if length == _UNDEFINED_LENGTH else length


def _drop_bulk(ds: Dataset) -> None:
    """Headers of a whole series stay in memory: nothing in them may be large."""
    kept = _TABLES.union(_KEPT)
    for tag in [tag for tag, element in ds._dict.items() if tag not in kept and _is_bulk(element)]:
        del ds._dict[tag]


def _is_bulk(element: Any) -> bool:
    return isinstance(element, RawDataElement) and element.value is not None and len(element.value) > _BULK
