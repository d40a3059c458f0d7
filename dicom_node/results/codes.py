"""Coded concepts: the engine's `Code`, highdicom's `CodedConcept`, and data set items, into each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from highdicom.sr.coding import CodedConcept
from pydicom.dataset import Dataset

from engines.findings import Code

#: CID 240 "Present-Absent" (PS3.16).
PRESENT = Code(value="52101004", scheme="SCT", meaning="Present")
ABSENT = Code(value="272519000", scheme="SCT", meaning="Absent")

#: Concept name of free text in a report (PS3.16 Annex D).
COMMENT = Code(value="121106", scheme="DCM", meaning="Comment")

#: What a group of a report is about, or one of its numbers (PS3.16 Annex D).
FINDING = Code(value="121071", scheme="DCM", meaning="Finding")

#: CID 7162 "Surface Processing Algorithm Family" names no other family for a trained network (PS3.16).
ARTIFICIAL_INTELLIGENCE = Code(value="123110", scheme="DCM", meaning="Artificial Intelligence")

#: CID 7005 "Contributing Equipment Purpose of Reference" (PS3.16).
ACQUISITION_EQUIPMENT = Code(value="109101", scheme="DCM", meaning="Acquisition Equipment")
PROCESSING_EQUIPMENT = Code(value="109102", scheme="DCM", meaning="Processing Equipment")

#: CID 7202 "Source Image Purposes of Reference" (PS3.16).
SOURCE_IMAGE = Code(value="121322", scheme="DCM", meaning="Source image for image processing operation")

#: What every part of a body is, where nothing is said of the part (SNOMED CT).
BODY_STRUCTURE = Code(value="123037004", scheme="SCT", meaning="Body structure")

#: CID 7010 "Key Object Selection Document Title" (PS3.16).
OF_INTEREST = Code(value="113000", scheme="DCM", meaning="Of Interest")

#: CID 100 "Quantitative Diagnostic Imaging Procedure" (PS3.16), where the study has no code of its own.
_PROCEDURE_BY_MODALITY = {
    "CT": Code(value="25045-6", scheme="LN", meaning="CT unspecified body region"),
    "MR": Code(value="25056-3", scheme="LN", meaning="MRI unspecified body region"),
    "PT": Code(value="44136-0", scheme="LN", meaning="PET unspecified body region"),
    "NM": Code(value="49118-3", scheme="LN", meaning="NM unspecified body region"),
}
_ANY_PROCEDURE = Code(value="363679005", scheme="SCT", meaning="Imaging procedure")


def concept(code: Code) -> CodedConcept:
    """The code as highdicom wants it.

    Raises ValueError where the meaning has more than 64 characters (PS3.3 Table 8.8-1).
    """
    return CodedConcept(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)


def read(item: Dataset) -> Code:
    """The code in a code sequence's item, whichever of its three value attributes it uses (PS3.3 8.8)."""
    value = item.get("CodeValue") or item.get("LongCodeValue") or item.get("URNCodeValue") or ""
    scheme = item.get("CodingSchemeDesignator") or ""
    return Code(value=str(value), scheme=str(scheme), meaning=str(item.get("CodeMeaning") or ""))


def procedures(header: Dataset) -> list[Code]:
    """What the study was: its own codes, or else one by modality. Never the algorithm's name."""
    found: list[Code] = []
    for item in _procedure_items(header):
        code = read(item)
        if _complete(code) and (code.value, code.scheme) not in {
            (known.value, known.scheme) for known in found
        }:
            found.append(code)
    return found or [_PROCEDURE_BY_MODALITY.get(str(header.get("Modality", "")), _ANY_PROCEDURE)]


def _procedure_items(header: Dataset) -> Iterator[Dataset]:
    """Items of every sequence in which a modality may have put the procedure's code."""
    yield from _items(header, "ProcedureCodeSequence")
    yield from _items(header, "RequestedProcedureCodeSequence")
    for request in _items(header, "RequestAttributesSequence"):
        yield from _items(request, "RequestedProcedureCodeSequence")


def _items(ds: Dataset, keyword: str) -> Any:
    """The sequence's items; none where it is absent or empty."""
    return ds.get(keyword) or ()


def _complete(code: Code) -> bool:
    """Whether a source's code may be copied: modalities send codes without a meaning or a scheme."""
    return bool(code.value and code.scheme and code.meaning) and len(code.meaning) <= 64
