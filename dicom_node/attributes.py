"""The attributes of one file as plain values that rules can look at and a table can keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from pydicom.datadict import dictionary_has_tag, dictionary_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

from dicom_node import elements, functional_groups, headers

#: None: present but empty. A list: more than one value. Text where a number is due: not valid, as sent.
AttributeValue: TypeAlias = str | int | float | list["str | int | float | None"] | None

#: Values with no meaning for a rule: bytes, and what nobody can name (PS3.5 6.2).
_BINARY = {VR.OB, VR.OD, VR.OF, VR.OL, VR.OV, VR.OW, VR.UN, VR.OB_OW, VR.US_OW}
#: Longer lists are cut here: a row holds facts, not documents.
_MOST_VALUES = 64


def read_attributes(path: Path) -> dict[str, AttributeValue]:
    """Top-level attributes of a file by keyword, JSON-serialisable, plus "TransferSyntaxUID".

    Numbers are int or float, everything else is text; a sequence of codes is a list of
    "value^scheme^meaning"; other sequences, binary values, private and repeating groups are left out.
    An attribute whose value cannot be decoded is None when nothing of it is readable, else the text
    as sent. Of a multi-frame image what is said of its first frame is among them. A file that is cut off
    gives what it still holds. Raises DataSetError only where nothing can be read.
    """
    with headers.quietly():
        image = headers.read(path, whole=False)
        # What a classic image says at the top level, a multi-frame one says of its frames.
        found = from_dataset(functional_groups.with_first_frame(image.ds))
    meta = getattr(image.ds, "file_meta", Dataset())
    for keyword in ("SOPClassUID", "SOPInstanceUID"):
        if not found.get(keyword):
            found[keyword] = elements.text(meta, f"MediaStorage{keyword}") or None
    found["TransferSyntaxUID"] = str(image.transfer_syntax)
    return found


def from_dataset(ds: Dataset) -> dict[str, AttributeValue]:
    """The same for a data set in memory, without what only a file can say."""
    found: dict[str, AttributeValue] = {}
    for tag in sorted(ds.keys()):
        if _is_of_interest(tag):
            element = _element(ds, tag)
            if element is None:
                found[dictionary_keyword(tag)] = _as_sent(ds, tag)
            elif element.VR not in _BINARY and (element.VR != VR.SQ or _is_coded(element)):
                found[element.keyword] = _value(element)
    return found


def _is_of_interest(tag: BaseTag) -> bool:
    """Public, in the dictionary, no group length, no curve or overlay (50xx, 60xx)."""
    if tag.is_private or tag.element == 0 or tag.group in range(0x5000, 0x6100):
        return False
    return dictionary_has_tag(tag) and bool(dictionary_keyword(tag))


def _element(ds: Dataset, tag: BaseTag) -> DataElement | None:
    try:
        return ds[tag]
    except (*elements.BROKEN, OSError):
        return None


def _as_sent(ds: Dataset, tag: BaseTag) -> str | None:
    """What of an undecodable value can be shown: its bytes as text where they are printable."""
    # Not get_item(): that converts where the value is empty.
    raw = getattr(ds._dict.get(tag), "value", None)
    if not isinstance(raw, bytes):
        return None
    text = elements.clean(raw.decode("ascii", "replace"))
    return text if text.isprintable() and text else None


def _is_coded(element: DataElement) -> bool:
    """Whether each item is a coded entry (PS3.3 8.8)."""
    items = element.value
    return isinstance(items, Sequence) and len(items) > 0 and all("CodeMeaning" in item for item in items)


def _value(element: DataElement) -> AttributeValue:
    content = element.value
    if element.VR == VR.SQ:
        return [_code(item) for item in content[:_MOST_VALUES]]
    if isinstance(content, MultiValue | list | tuple):
        return [_plain(one) for one in list(content)[:_MOST_VALUES]]
    return _plain(content)


def _code(item: Dataset) -> str:
    keywords = ("CodeValue", "CodingSchemeDesignator", "CodeMeaning")
    value, scheme, meaning = (elements.text(item, keyword) for keyword in keywords)
    value = value or elements.text(item, "LongCodeValue") or elements.text(item, "URNCodeValue")
    return f"{value}^{scheme}^{meaning}"


def _plain(content: Any) -> str | int | float | None:
    """One value: a finite number as such, anything else as clean text."""
    if content is None or content == "":
        return None
    if isinstance(content, BaseTag):
        return f"{content:08X}"
    if isinstance(content, int):
        return int(content)
    if isinstance(content, float) and math.isfinite(content):
        return float(content)
    return elements.clean(str(content)) or None
