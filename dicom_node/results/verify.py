"""The gate: a written object is read back from disk and compared with what it was made of."""

from __future__ import annotations

from collections.abc import Callable, Collection
from io import BytesIO

from pydicom import dcmread
from pydicom.dataset import Dataset

from dicom_node import elements, headers
from dicom_node.errors import GateError
from dicom_node.results import header, kinds, not_performed, verify_not_performed, verify_standard
from dicom_node.results.context import NOT_PERFORMED, Provenance, ResultContext
from dicom_node.results.not_performed import Failure
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
)


def check(raw: bytes, kind: str, context: ResultContext, findings: Findings, made: Collection[str]) -> None:
    """Compare the file's bytes, as read from disk, with the source and the findings.

    `made` are the kinds that were made before it, which it may have to refer to. Raises GateError that says
    what differs, without any patient's values.
    """

    def own(ds: Dataset) -> None:
        check_identity(ds, kind, context, standing=header.standing(context))
        made_as = kinds.MADE[kind]
        assert isinstance(made_as, kinds.Kind)
        made_as.gate.check(ds, context, findings, made)

    _read_back(raw, own)


def check_part(
    raw: bytes, kind: str, number: int, context: ResultContext, own: Callable[[Dataset, int], None]
) -> None:
    """The same of one of the many objects of a kind, from 0; `own` compares it with the findings."""

    def all_of_it(ds: Dataset) -> None:
        instance = kinds.part_uid(kind, context, number)
        check_identity(ds, kind, context, standing=header.standing(context), instance=instance)
        own(ds, number)

    _read_back(raw, all_of_it)


def check_failure(raw: bytes, failure: Failure) -> None:
    """Compare the bytes of a document that says that there is no answer with the source and the failure.

    Raises GateError as `check` does.
    """

    def own(ds: Dataset) -> None:
        check_identity(ds, NOT_PERFORMED, failure, standing=not_performed.standing(failure))
        verify_not_performed.check(ds, failure)

    _read_back(raw, own)


def _read_back(raw: bytes, own: Callable[[Dataset], None]) -> None:
    """The checks of its own, and those that every object has."""
    try:
        with headers.quietly():
            ds = dcmread(BytesIO(raw))
            own(ds)
            verify_standard.check(ds)
    except elements.BROKEN as exc:
        # What is missing or malformed is not said: the exception's text may hold a patient's values.
        raise GateError(f"the file does not read back as such an object: {type(exc).__name__}") from exc


def check_identity(ds: Dataset, kind: str, context: Provenance, *, standing: str, instance: str = "") -> None:
    """Patient, study, the object's own UIDs, and that its description begins with its standing.

    `instance` is its SOP Instance UID, where it is not the only one of its kind. Raises GateError naming the
    attributes that differ.
    """
    for keyword in context.mixed:
        raise GateError(f"the source images differ in {keyword}: nothing can belong to all of them")
    different = [
        keyword
        for keyword in _IDENTITY
        if elements.text(ds, keyword) != elements.text(context.header, keyword)
    ]
    # What names no time zone says nothing about the dates, and is not taken over.
    if elements.text(ds, "TimezoneOffsetFromUTC") != (context.timezone_offset or ""):
        different.append("TimezoneOffsetFromUTC")
    if different:
        raise GateError(f"not the source's: {', '.join(different)}")
    expected = {
        "SOPInstanceUID": instance or context.uid(kind, "instance"),
        "SeriesInstanceUID": context.uid(kind, "series"),
    }
    _compare(ds, expected)
    if str(ds.file_meta.MediaStorageSOPInstanceUID) != expected["SOPInstanceUID"]:
        raise GateError("the file meta names another instance than the data set")
    if not elements.text(ds, "SeriesDescription").startswith(standing):
        raise GateError("the Series Description does not say how the result is to be taken")


def _compare(ds: Dataset, expected: dict[str, str]) -> None:
    """Raise GateError for the first attribute that is not as expected."""
    for keyword, value in expected.items():
        if elements.text(ds, keyword) != value:
            raise GateError(f"{keyword} is not {value}")
