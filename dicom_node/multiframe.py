"""Files of many frames -> an image for each, as if it were a classic one: its header, and where its pixels lie."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace

from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian

from dicom_node import elements, encoding, fragments, functional_groups, headers
from dicom_node.errors import SeriesError
from dicom_node.headers import ImageFile


def split(files: Sequence[ImageFile]) -> list[ImageFile]:
    """Each file's frames, for those that describe their frames; other files as they are.

    Raises SeriesError: "frame-count", "truncated", "undecodable", and "missing-slice" where a part of a
    concatenation is missing.
    """
    _refuse_parts(files)
    return [frame for file in files for frame in _frames(file)]


def moments(file: ImageFile, count: int) -> list[ImageFile]:
    """The `count` frames of a file that does not describe them: each with the header of all.

    Raises SeriesError: "frame-count", "truncated", "undecodable".
    """
    return list(_located(file, [file.ds] * count))


def _frames(file: ImageFile) -> Iterator[ImageFile]:
    if not functional_groups.are_in(file.ds):
        return iter((file,))
    return _located(file, functional_groups.frames(file.ds))


def _located(file: ImageFile, made: Sequence[Dataset]) -> Iterator[ImageFile]:
    """A file for each frame, with its header of `made`, and where its pixels lie."""
    if (file.transfer_syntax in encoding.NATIVE) != (file.pixel_length is not None):
        raise SeriesError(
            "undecodable",
            f"{elements.name(file.ds)} holds pixels of another form, compressed or not, than its transfer syntax says.",
        )
    if file.transfer_syntax == DeflatedExplicitVRLittleEndian:
        with headers.open_at_pixels(file) as source:
            source.seek(0)
            file = replace(file, inflated=source.read())
    return _native(file, made) if file.pixel_length is not None else _encapsulated(file, made)


def _native(file: ImageFile, made: Sequence[Dataset]) -> Iterator[ImageFile]:
    """One frame lies behind the other (PS3.5 8.2)."""
    one = encoding.of(file.ds)
    # Of two pixels that share their colour four values are stored (PS3.3 C.7.6.3.1.2).
    samples = 2 if one.photometric_interpretation == "YBR_FULL_422" else one.samples
    size = one.rows * one.columns * samples * one.bits_allocated // 8
    held = file.pixel_length or 0
    if held < size * len(made):
        raise SeriesError(
            "truncated",
            f"{elements.name(file.ds)} holds {held} bytes of pixels, but {len(made)} frames of {one.rows} x "
            f"{one.columns} pixels need {size * len(made)}. Send the series again.",
        )
    if held >= size * (len(made) + 1):
        raise SeriesError(
            "frame-count",
            f"{elements.name(file.ds)} holds pixels of {held // size} frames, and describes {len(made)}: which "
            "place each has is unknown. Send the series again.",
        )
    for index, ds in enumerate(made):
        yield replace(file, ds=ds, pixel_offset=file.pixel_offset + index * size, pixel_length=size)


def _encapsulated(file: ImageFile, made: Sequence[Dataset]) -> Iterator[ImageFile]:
    table = elements.value(file.ds, "ExtendedOffsetTable")
    with headers.open_at_pixels(file) as source:
        parts = fragments.of_frames(
            source,
            frames=len(made),
            syntax=file.transfer_syntax,
            extended=table if isinstance(table, bytes) else b"",
        )
    for ds, part in zip(made, parts, strict=True):
        yield replace(file, ds=ds, fragments=part)


def _refuse_parts(files: Sequence[ImageFile]) -> None:
    """An image too large for one file may come as several, that say how many they are (PS3.3 C.7.6.16.2.2.4)."""
    parts: dict[str, list[ImageFile]] = defaultdict(list)
    for file in files:
        uid = elements.text(file.ds, "ConcatenationUID")
        if uid:
            parts[uid].append(file)
    for group in parts.values():
        totals = [elements.number(file.ds, "InConcatenationTotalNumber") or 0 for file in group]
        held = {elements.number(file.ds, "InConcatenationNumber") for file in group}
        if len(held) < max(totals):
            raise SeriesError(
                "missing-slice",
                f"{max(totals) - len(held):g} of the {max(totals):g} files that one image was divided into are "
                "missing. Send the series again, complete.",
            )
