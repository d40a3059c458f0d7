"""The gate's part that is every object's: what the standard demands of its IOD is there, and not empty."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from highdicom import _standard_utils as tables
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dicom_node.errors import GateError

#: Type 1: there, with a value; type 2: there, perhaps empty (PS3.5 7.4). Conditions are not tables: the
#: types 1C and 2C are for the validators of the tests.
_REQUIRED = ("1", "2")

#: Each macro in them stands in one or the other, and which are needed hangs on the IOD (PS3.3 C.7.6.16.1).
_FUNCTIONAL_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")

#: Copied as they are, with whatever is wrong in their sequences: same entity, same values (PS3.3 A.1.2).
_OF_THE_SOURCE = ("patient", "general-study")

#: In the table of this module, the attributes of all value types stand side by side.
_CONTENT = "sr-document-content"

#: What a content item of each Value Type must have (PS3.3 Tables C.17.3-1 and C.18.1-1 to C.18.9-1).
_VALUES = {
    "TEXT": ("TextValue",),
    "CODE": ("ConceptCodeSequence",),
    "NUM": ("MeasuredValueSequence",),
    "UIDREF": ("UID",),
    "PNAME": ("PersonName",),
    "DATE": ("Date",),
    "TIME": ("Time",),
    "DATETIME": ("DateTime",),
    "IMAGE": ("ReferencedSOPSequence",),
    "COMPOSITE": ("ReferencedSOPSequence",),
    "SCOORD": ("GraphicType", "GraphicData"),
    "SCOORD3D": ("GraphicType", "GraphicData", "ReferencedFrameOfReferenceUID"),
    "CONTAINER": ("ContinuityOfContent",),
}

_NAME = "ConceptNameCodeSequence"
#: Without a name their value means nothing; the root has one too (PS3.3 Table C.17.3-1).
_NAMED = ("TEXT", "CODE", "NUM", "UIDREF", "PNAME", "DATE", "TIME", "DATETIME")


@dataclass(slots=True)
class Attribute:
    """What the modules of an IOD say of one attribute, and of those in its items."""

    #: The strictest of the modules' types.
    type: str = "3"
    items: dict[str, Attribute] = field(default_factory=dict)


def check(ds: Dataset) -> None:
    """Raise GateError naming each attribute of a mandatory module that is absent, or empty and may not be.

    The tables are those of PS3.3 that highdicom ships. An object of a class that they do not know fails.
    """
    wrong = list(_wrong(ds, demanded(str(ds.SOPClassUID)), ""))
    if "ValueType" in ds:
        wrong += _wrong_content(ds, "")
    if wrong:
        raise GateError(f"against the standard (PS3.3): {', '.join(wrong[:5])}")


@lru_cache
def demanded(sop_class_uid: str) -> dict[str, Attribute]:
    """Every attribute of the mandatory modules of a SOP class. Raises GateError for an unknown class."""
    iod = tables.get_sop_class_iod_map().get(sop_class_uid)
    if iod is None:
        raise GateError(f"no IOD is known for SOP class {sop_class_uid}")
    attributes: dict[str, Attribute] = {}
    for module in tables.get_iod_module_map()[iod]:
        if module["usage"] == "M" and module["key"] != _CONTENT:
            for row in tables.get_module_attribute_map()[module["key"]]:
                if not (row["path"] and module["key"] in _OF_THE_SOURCE):
                    _enter(attributes, row["path"], row["keyword"], row["type"])
    return attributes


def _enter(attributes: dict[str, Attribute], path: list[str], keyword: str, kind: str) -> None:
    """Add a row of a module's table."""
    for name in path:
        attributes = attributes.setdefault(name, Attribute()).items
    known = attributes.setdefault(keyword, Attribute())
    if kind in _REQUIRED and not (path and path[-1] in _FUNCTIONAL_GROUPS):
        known.type = min(known.type, kind)  # "1" sorts before "2" before "3"


def _wrong(ds: Dataset, attributes: dict[str, Attribute], path: str) -> Iterator[str]:
    """What is missing, as the path to it."""
    for keyword, attribute in attributes.items():
        if keyword not in ds:
            if attribute.type in _REQUIRED:
                yield f"{path}{keyword} is absent"
            continue
        value = ds[keyword].value
        if attribute.type == "1" and value in (None, "", []):
            yield f"{path}{keyword} is empty"
        elif attribute.items and isinstance(value, Sequence):
            for item in _sample(value):
                yield from _wrong(item, attribute.items, f"{path}{keyword} > ")


def _sample(items: Sequence) -> list[Dataset]:
    """The first and last item: long sequences are written item by item by one function."""
    return [items[index] for index in sorted({0, len(items) - 1})] if items else []


def _wrong_content(item: Dataset, path: str) -> Iterator[str]:
    """What is missing in a content item and those below it."""
    kind = str(item.get("ValueType", ""))
    demands = [*_VALUES.get(kind, ("ValueType",)), "RelationshipType" if path else _NAME]
    if kind in _NAMED:
        demands.append(_NAME)
    for keyword in demands:
        if item.get(keyword) in (None, "", []):
            yield f"{path}{keyword} of a {kind or 'content'} item is absent or empty"
    for child in item.get("ContentSequence") or ():
        yield from _wrong_content(child, f"{path}ContentSequence > ")
