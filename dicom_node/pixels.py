"""Stored pixels of classic images or single frames, and their rescaled values in one array."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.uid import ExplicitVRBigEndian

from dicom_node import elements, fragments, headers
from dicom_node.decoding import Decoders
from dicom_node.encoding import NATIVE, Encoding
from dicom_node.errors import SeriesError
from dicom_node.headers import ImageFile

#: Padding below the scale of CT is set to the bottom of the scale: air (HU).
PADDING_HU = -1024
#: CT values above this cannot be told from padding at the upper end of 12 bits (HU).
_HIGHEST_HU = 3071


class _TooWide(Exception):
    """A value does not fit int16."""


def read_volume(
    images: Sequence[ImageFile],
    encodings: Sequence[Encoding],
    *,
    fill_padding: bool,
    threads: int,
    decoders: Decoders,
) -> tuple[NDArray[Any], int]:
    """Rescaled values of all images, (slice, row, column), and how many voxels were padding.

    int16 where every value is a whole number that fits, float32 otherwise. With `fill_padding` (CT)
    padding outside the scale of CT becomes PADDING_HU. Raises SeriesError: "truncated", "undecodable".
    """
    first = encodings[0]
    shape = (len(images), first.rows, first.columns)
    for image, encoding in zip(images, encodings, strict=True):
        if image.transfer_syntax in NATIVE and image.pixel_length is not None:
            # Before memory is taken for what the header claims.
            _refuse_too_few(image.pixel_length, image, encoding)

    def filled(volume: NDArray[Any]) -> tuple[NDArray[Any], int]:
        def fill(index: int) -> int:
            stored = stored_values(images[index], encodings[index], decoders)
            return _rescale(stored, encodings[index], out=volume[index], fill_padding=fill_padding)

        with ThreadPoolExecutor(max_workers=max(threads, 1), thread_name_prefix="pixels") as pool:
            return volume, sum(pool.map(fill, range(len(images))))

    if all(encoding.is_whole for encoding in encodings):
        # Scanners that declare 16 bits seldom use them: half the memory is worth the attempt.
        with suppress(_TooWide):
            return filled(np.empty(shape, np.int16))
    return filled(np.empty(shape, np.float32))


def digest(image: ImageFile, encoding: Encoding, decoders: Decoders) -> str:
    """SHA-256 of the stored values, whatever the transfer syntax."""
    return hashlib.sha256(stored_values(image, encoding, decoders).astype(np.int64).tobytes()).hexdigest()


def stored_values(image: ImageFile, encoding: Encoding, decoders: Decoders) -> NDArray[Any]:
    """Stored values (rows, columns) of one image, signed or unsigned, without foreign bits.

    Of a colour image (rows, columns, 3): red, green and blue, whatever is stored (PS3.3 C.7.6.3.1.2).
    """
    with headers.open_at_pixels(image) as source:
        if image.fragments is not None:
            data = fragments.read(source, image.fragments)
        elif image.pixel_length is None:
            data = bytearray(source.read())
        else:
            data = bytearray(image.pixel_length)
            del data[source.readinto(data) :]  # type: ignore[attr-defined]
    if image.transfer_syntax in NATIVE and encoding.samples == 1:
        return _native(data, image, encoding)
    return decoders.decode(data, image.transfer_syntax, encoding)


def _native(data: bytearray, image: ImageFile, encoding: Encoding) -> NDArray[Any]:
    count = encoding.rows * encoding.columns
    order = ">" if image.transfer_syntax == ExplicitVRBigEndian else "<"
    dtype = np.dtype(f"{order}{'i' if encoding.signed else 'u'}{encoding.bits_allocated // 8}")
    if image.pixel_length is None:
        raise SeriesError(
            "undecodable", "An image holds compressed pixels, but its transfer syntax says uncompressed."
        )
    _refuse_too_few(len(data), image, encoding)
    stored = np.frombuffer(data, dtype, count).reshape(encoding.rows, encoding.columns)
    # Bits above High Bit or below the stored ones are not part of the value (PS3.5 8.1.1).
    above = encoding.bits_allocated - 1 - encoding.high_bit
    foreign = encoding.bits_allocated - encoding.bits_stored
    if foreign:
        stored = np.left_shift(stored, above, dtype=dtype.newbyteorder("="))
        np.right_shift(stored, foreign, out=stored)
    return stored


def _refuse_too_few(held: int, image: ImageFile, encoding: Encoding) -> None:
    needed = encoding.rows * encoding.columns * (encoding.bits_allocated // 8)
    if held < needed:
        raise SeriesError(
            "truncated",
            f"{elements.name(image.ds)} holds {held} bytes of pixels, but"
            f" {encoding.rows} x {encoding.columns} pixels need {needed}. "
            "Send the series again.",
        )


def _rescale(stored: NDArray[Any], encoding: Encoding, *, out: NDArray[Any], fill_padding: bool) -> int:
    """Rescaled values (PS3.3 C.11.1.1.2) into `out`; the number of padding voxels that became air."""
    padding = _padding(stored, encoding) if fill_padding else None
    if out.dtype == np.int16:
        _refuse_too_wide(stored, encoding)
        out[...] = stored
        # Sums wrap at 16 bits, and the true sum fits: the result is exact.
        out += np.int64(encoding.intercept).astype(np.int16)
    else:
        out[...] = stored * encoding.slope + encoding.intercept
    if padding is None:
        return 0
    out[padding] = PADDING_HU
    return int(np.count_nonzero(padding))


def _refuse_too_wide(stored: NDArray[Any], encoding: Encoding) -> None:
    low, high = encoding.ends
    if low < -32768 or high > 32767:
        low, high = int(stored.min()) + encoding.intercept, int(stored.max()) + encoding.intercept
        if low < -32768 or high > 32767:
            raise _TooWide


def _padding(stored: NDArray[Any], encoding: Encoding) -> NDArray[np.bool_] | None:
    """Where the padding is; None where the image has none, or where it lies within the scale of CT.

    Some scanners declare a padding value that tissue has too (0 HU): such values stay.
    """
    if encoding.padding is None:
        return None
    low, high = encoding.padding
    ends = sorted(value * encoding.slope + encoding.intercept for value in (low, high))
    if ends[1] >= PADDING_HU and ends[0] <= _HIGHEST_HU:
        return None
    mask: NDArray[np.bool_] = (stored >= low) & (stored <= high)
    return mask if mask.any() else None
