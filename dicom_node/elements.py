"""Tolerant access to the elements of a data set: whatever they hold, nothing is raised."""

from __future__ import annotations

import re
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError

from dicom_node.frame_header import frame_number

#: What pydicom raises on bytes that are no data set, and on values that are not what their VR says
#: (found by fuzzing; `Warning` because a caller may have turned warnings into errors).
BROKEN = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
    Warning,
    BytesLengthException,
    InvalidDicomError,
    struct.error,
    zlib.error,
)

#: NUL has no place in JSON columns; other control characters have none in a page or a terminal.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
#: Longer texts are cut here: a row holds facts, not documents.
_LONGEST_TEXT = 1024


def value(ds: Dataset, keyword: str) -> Any:
    """The value of an attribute; None where it is missing, empty or not decodable."""
    try:
        found = ds.get(keyword)
    except (*BROKEN, OSError):
        return None
    return None if found is None or found == "" else found


def text(ds: Dataset, keyword: str) -> str:
    """The value as clean text ("" where it is missing or not decodable)."""
    found = value(ds, keyword)
    try:
        return "" if found is None else clean(str(found))
    except BROKEN:
        return ""


def uid(ds: Dataset, keyword: str) -> str:
    """The one UID that an attribute names, legal or not; "" where it names none, or several."""
    return text(ds, keyword) if isinstance(value(ds, keyword), str) else ""


def name(ds: Dataset) -> str:
    """What to call an image in a message; its Instance Number says nothing about the patient."""
    found, frame = number(ds, "InstanceNumber"), frame_number(ds)
    image = f"Image {found:g}" if found is not None else "An image without number"
    return image if frame is None else f"Frame {frame} of {image.lower()}"


def clean(text: str) -> str:
    """Without padding, control characters and lone surrogates, and not endless."""
    text = _CONTROL.sub("", text.encode("utf-8", "replace").decode("utf-8"))
    return text.strip()[:_LONGEST_TEXT]


def words(ds: Dataset, keyword: str) -> tuple[str, ...]:
    """The values of a multi-valued text attribute, each stripped and in upper case."""
    found = value(ds, keyword)
    if found is None:
        return ()
    many = [found] if isinstance(found, str) else list(found)
    return tuple(str(one).strip().upper() for one in many)


def numbers(ds: Dataset, keyword: str, count: int) -> NDArray[np.float64] | None:
    """`count` finite numbers as an array; None where the attribute is anything else."""
    found = value(ds, keyword)
    if found is None:
        return None
    try:
        array = np.atleast_1d(np.asarray(found, dtype=np.float64))
    except BROKEN:
        return None
    return array if array.shape == (count,) and bool(np.isfinite(array).all()) else None


def number(ds: Dataset, keyword: str) -> float | None:
    """One finite number; None where the attribute is anything else."""
    found = numbers(ds, keyword, 1)
    return None if found is None else float(found[0])
