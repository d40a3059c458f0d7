"""The frames of a Segmentation as bytes: their functional groups and their pixels.

A functional group made of pydicom's objects and written by pydicom takes most of a millisecond, and a CT has
a thousand; as bytes it takes microseconds. What is the same for all frames is still highdicom's and pydicom's.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.pixels.utils import compress
from pydicom.uid import RLELossless
from pydicom.valuerep import DS

from dicom_node.results import explicit
from engines.findings import Findings

#: So many frames of one bit per pixel end on a byte, whatever their size.
_FRAMES_AT_ONCE = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """What one frame shows of one slice."""

    #: Segment Number; None: all segments, as labels.
    segment: int | None
    #: Index along the mask's first axis.
    slice: int
    #: Which of the slices that have a frame, from 1.
    rank: int


def shown(findings: Findings) -> list[Frame]:
    """One frame for each segment and slice that has voxels, by segment."""
    mask = findings.mask
    return [
        Frame(segment=segment.number, slice=index, rank=rank)
        for segment in findings.segments
        for rank, index in enumerate(_slices(findings), start=1)
        if (mask[index] == segment.number).any()
    ]


def labelled(findings: Findings) -> list[Frame]:
    """One frame for each slice that has voxels."""
    return [
        Frame(segment=None, slice=index, rank=rank) for rank, index in enumerate(_slices(findings), start=1)
    ]


def _slices(findings: Findings) -> list[int]:
    """The slices that have voxels, in the order of frames."""
    return ordered(findings, [index for index, plane in enumerate(findings.mask) if plane.any()])


def ordered(findings: Findings, slices: Sequence[int]) -> list[int]:
    """Ascending slices so that slice, row and column are right-handed, as in highdicom's Segmentations."""
    return list(slices if np.linalg.det(findings.geometry.affine[:3, :3]) > 0 else reversed(slices))


def pixels(frames: Sequence[Frame], mask: NDArray[Any]) -> bytes:
    """Pixel Data of one bit per pixel.

    Bits are packed without padding between frames, the first pixel in the lowest bit (PS3.5 8.1.1).
    """
    packed = DicomBytesIO()
    for start in range(0, len(frames), _FRAMES_AT_ONCE):
        some = frames[start : start + _FRAMES_AT_ONCE]
        bits = np.stack([mask[frame.slice] == frame.segment for frame in some])
        packed.write(np.packbits(bits, bitorder="little").tobytes())
    packed.write(b"\0" * (packed.tell() % 2))
    return packed.getvalue()


def run_lengths(ds: Dataset, pixels: NDArray[Any]) -> None:
    """Give `ds` Pixel Data of (frames, rows, columns) in RLE (PS3.5 Annex G); the bits must be described."""
    compress(
        ds,
        RLELossless,
        pixels if len(pixels) > 1 else pixels[0],
        encoding_plugin="pylibjpeg",
        generate_instance_uid=False,
    )


def groups(frames: Sequence[Frame], images: Sequence[Dataset], sample: Dataset) -> list[bytes]:
    """The items of the Per-Frame Functional Groups Sequence (PS3.3 C.7.6.16).

    `images` are the source images in slice order. `sample` is such an item as highdicom makes it; it
    gives what does not differ between frames, and is used up.
    """
    # With a single segment the macro is shared (PS3.3 C.8.20.3.1).
    identified = "SegmentIdentificationSequence" in sample
    placed = "PlanePositionSequence" in sample
    used = {frame.slice for frame in frames}
    derivations = _derivations({index: images[index] for index in used}, sample.DerivationImageSequence[0])
    positions = {index: _position(images[index]) if placed else b"" for index in used}
    return [
        explicit.item(
            derivations[frame.slice],
            _content(frame, placed=placed),
            positions[frame.slice],
            _segment(frame.segment) if identified and frame.segment is not None else b"",
        )
        for frame in frames
    ]


def _derivations(images: dict[int, Dataset], sample: Dataset) -> dict[int, bytes]:
    """The Derivation Image macro of each slice: which source image or frame it was derived from."""
    [source] = sample.SourceImageSequence
    del sample.SourceImageSequence, source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID
    derivation, purpose = explicit.encoded(sample), explicit.encoded(source)
    made = {}
    for index, image in images.items():
        described = explicit.item(explicit.slice_reference(image), purpose)
        item = explicit.item(explicit.sequence(0x00082112, described), derivation)
        made[index] = explicit.sequence(0x00089124, item)
    return made


def _position(image: Dataset) -> bytes:
    """The Plane Position (Patient) macro: the source image's own position, to the letter where that is legal."""
    values = "\\".join(str(DS(value, auto_format=True)) for value in image.ImagePositionPatient)
    return explicit.sequence(0x00209113, explicit.item(explicit.text(0x00200032, "DS", values)))


def _content(frame: Frame, *, placed: bool) -> bytes:
    """The Frame Content macro: indices by segment, where it shows one, and by position (PS3.3 C.7.6.17.1).

    A frame without a position is indexed by its segment, or by its name, which highdicom makes a dimension.
    """
    by_segment = b"" if frame.segment is None else struct.pack("<L", frame.segment)
    by_place = struct.pack("<L", frame.rank) if placed or frame.segment is None else b""
    named = not placed and frame.segment is None
    label = explicit.element(0x00209453, "LO", b"Frame ") if named else b""
    indices = explicit.element(0x00209157, "UL", by_segment + by_place)
    return explicit.sequence(0x00209111, explicit.item(indices, label))


def _segment(number: int) -> bytes:
    """The Segment Identification macro (PS3.3 C.8.20.3.1)."""
    value = struct.pack("<H", number)
    return explicit.sequence(0x0062000A, explicit.item(explicit.element(0x0062000B, "US", value)))
