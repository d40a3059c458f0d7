"""The gate: a written object is read back from disk and compared with what it was made of."""

from __future__ import annotations

from collections.abc import Iterable
from io import BytesIO
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError

from dicom_node.errors import GateError
from dicom_node.results import verify_seg, verify_sr
from dicom_node.results.context import ResultContext
from engines.findings import Findings

#: What must be the source's, to the letter. Order: worst first.
_IDENTITY = (
    "PatientID",
    "IssuerOfPatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "StudyInstanceUID",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
    "TimezoneOffsetFromUTC",
)

#: What every image of one source series must agree on before a result may claim to belong to it.
_ONE_SERIES = ("PatientID", "StudyInstanceUID", "SeriesInstanceUID", "AccessionNumber")

#: How pydicom and its callers fail on bytes that are not the data set they should be.
_UNREADABLE = (InvalidDicomError, EOFError, AttributeError, LookupError, TypeError, ValueError)


def check(raw: bytes, kind: str, context: ResultContext, findings: Findings, segmented: bool) -> None:
    """Compare the file's bytes, as read from disk, with the source and the findings.

    `segmented` says whether a report is expected to refer to a Segmentation. Raises GateError that says what
    differs, without any patient's values.
    """
    try:
        ds = dcmread(BytesIO(raw))
        check_identity(ds, kind, context)
        if kind == "seg":
            verify_seg.check(ds, context, findings)
        else:
            verify_sr.check(ds, context, findings, segmented)
    except _UNREADABLE as exc:
        # What is missing or malformed is not said: the exception's text may hold a patient's values.
        raise GateError(f"the file does not read back as such an object: {type(exc).__name__}") from exc


def check_identity(ds: Dataset, kind: str, context: ResultContext) -> None:
    """Patient, study and the object's own UIDs. Raises GateError naming the attributes that differ."""
    for keyword in _ONE_SERIES:
        if len({_text(source, keyword) for source in context.source.datasets}) > 1:
            raise GateError(f"the source images differ in {keyword}: nothing can belong to all of them")
    different = [keyword for keyword in _IDENTITY if _text(ds, keyword) != _text(context.header, keyword)]
    if different:
        raise GateError(f"not the source's: {', '.join(different)}")
    expected = {
        "SOPInstanceUID": context.uid(kind, "instance"),
        "SeriesInstanceUID": context.uid(kind, "series"),
    }
    _compare(ds, expected)
    if str(ds.file_meta.MediaStorageSOPInstanceUID) != expected["SOPInstanceUID"]:
        raise GateError("the file meta names another instance than the data set")


def _compare(ds: Dataset, expected: dict[str, str]) -> None:
    """Raise GateError for the first attribute that is not as expected."""
    for keyword, value in expected.items():
        if _text(ds, keyword) != value:
            raise GateError(f"{keyword} is not {value}")


def _text(ds: Dataset, keyword: str) -> str:
    """An attribute's value as text; absent and empty are the same (PS3.5 7.4.3)."""
    value: Any = ds.get(keyword)
    if value is None:
        return ""
    if isinstance(value, Iterable) and not isinstance(value, str):
        return "\\".join(str(part) for part in value) if not hasattr(value, "components") else str(value)
    return str(value)
