"""Walking a structured report's content items (PS3.3 C.17.3)."""

from __future__ import annotations

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dicom_node.results import codes
from engines.findings import Code


def walk(ds: Dataset) -> Iterator[Dataset]:
    """Every content item below this one."""
    for item in children(ds):
        yield item
        yield from walk(item)


def children(item: Dataset) -> list[Dataset]:
    """The content items right below this one."""
    return list(item.get("ContentSequence") or ())


def concept(item: Dataset) -> Code:
    """A content item's concept name."""
    return codes.read(item.ConceptNameCodeSequence[0])


def name(item: Dataset) -> tuple[str, str]:
    """A content item's concept name, without its meaning."""
    names = item.get("ConceptNameCodeSequence")
    code = codes.read(names[0]) if names else Code(value="", scheme="", meaning="")
    return (code.value, code.scheme)
