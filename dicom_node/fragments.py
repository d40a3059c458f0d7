"""Where the code of each frame lies in encapsulated pixels, found without reading them (PS3.5 A.4)."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from itertools import pairwise
from typing import BinaryIO, TypeAlias

from pydicom.uid import UID, RLELossless

from dicom_node.errors import SeriesError

#: Offset in the file and length of the value of each item.
Fragments: TypeAlias = tuple[tuple[int, int], ...]

_ITEM, _DELIMITER = 0xE000FFFE, 0xE0DDFFFE
#: The last bytes of a JPEG, JPEG-LS or JPEG 2000 code stream, up to padding (ISO 10918-1 B.1.1.3, 15444-1 A.4.4).
_END, _TAIL = b"\xff\xd9", 10
#: A file of nothing but empty fragments ends here.
_MOST_FRAGMENTS = 1 << 20


def of_frames(source: BinaryIO, *, frames: int, syntax: UID, extended: bytes) -> list[Fragments]:
    """The fragments of each frame; `source` stands at the value of the pixel element.

    `extended` is the Extended Offset Table, empty where there is none (PS3.3 C.7.6.3.1.8). As many fragments
    as frames are one each, whatever a table says; else the table tells, or the ends of the code streams do.
    Raises SeriesError: "truncated", "undecodable", "frame-count".
    """
    table, found = _items(source)
    if frames == 1:
        return [tuple(found)]
    if len(found) == frames:
        return [(one,) for one in found]
    starts = _starts(table, "L") or _starts(extended, "Q")
    parts = _by_table(found, starts) if len(starts) == frames else None
    if parts is None and syntax != RLELossless:
        parts = _by_ends(source, found)
    if parts is None or len(parts) != frames:
        raise SeriesError(
            "frame-count",
            f"An image declares {frames} frames, and its compressed pixels are {len(found)} fragments that cannot be "
            "told apart. Have the PACS send it uncompressed, or again.",
        )
    return parts


def read(source: BinaryIO, fragments: Fragments) -> bytearray:
    """The code of one frame, encapsulated as if it were the only one."""
    data = bytearray(struct.pack("<LL", _ITEM, 0))
    for offset, length in fragments:
        source.seek(offset)
        data += struct.pack("<LL", _ITEM, length) + source.read(length)
    return data + struct.pack("<LL", _DELIMITER, 0)


def _items(source: BinaryIO) -> tuple[bytes, list[tuple[int, int]]]:
    """The Basic Offset Table, and the fragments after it."""
    start = source.tell()
    size = source.seek(0, 2)
    source.seek(start)
    found: list[tuple[int, int]] = []
    while len(head := source.read(8)) == 8:
        tag, length = struct.unpack("<LL", head)
        if tag == _DELIMITER:
            return _value(source, found[0]) if found else b"", found[1:]
        if tag != _ITEM or len(found) > _MOST_FRAGMENTS:
            raise SeriesError("undecodable", "The compressed pixels are not a sequence of fragments.")
        found.append((source.tell(), length))
        if source.tell() + length > size:
            break
        source.seek(length, 1)
    raise SeriesError("truncated", "The compressed pixels of an image are cut off. Send the series again.")


def _value(source: BinaryIO, item: tuple[int, int]) -> bytes:
    source.seek(item[0])
    return source.read(item[1])


def _starts(table: bytes, kind: str) -> tuple[int, ...]:
    """Offsets from the first fragment's item to that of each frame."""
    width = struct.calcsize(f"<{kind}")
    return struct.unpack(f"<{len(table) // width}{kind}", table[: len(table) // width * width])


def _by_table(found: Sequence[tuple[int, int]], starts: Sequence[int]) -> list[Fragments] | None:
    """Each frame's fragments as a table has them; None where it is not one of these fragments."""
    places = {offset - found[0][0]: index for index, (offset, _) in enumerate(found)}
    first = [places.get(start, -1) for start in starts]
    if first[0] != 0 or any(after <= before for before, after in pairwise(first)):
        return None
    return [tuple(found[one:after]) for one, after in zip(first, [*first[1:], len(found)], strict=True)]


def _by_ends(source: BinaryIO, found: Sequence[tuple[int, int]]) -> list[Fragments]:
    """Each frame's fragments as the ends of the code streams have them."""
    parts: list[Fragments] = []
    begun: list[tuple[int, int]] = []
    for offset, length in found:
        begun.append((offset, length))
        tail = min(length, _TAIL)
        if _END in _value(source, (offset + length - tail, tail)):
            parts.append(tuple(begun))
            begun = []
    return [*parts, tuple(begun)] if begun else parts
