"""Storage commitment on the wire: what is asked and what is reported (PS3.4 Annex J), read strictly."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from io import BytesIO

from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_dataset
from pydicom.sequence import Sequence as ItemSequence
from pydicom.uid import UID

from dicom_node.errors import DataSetError
from dicom_node.header import checked_uid

#: Storage Commitment Push Model SOP Class, and its one well-known instance (PS3.4 J.3.5).
SOP_CLASS_UID = "1.2.840.10008.1.20.1"
SOP_INSTANCE_UID = "1.2.840.10008.1.20.1.1"

#: Request Storage Commitment (PS3.4 table J.3-1).
ACTION_TYPE = 1
#: Storage Commitment Request Successful, and Request Complete - Failures Exist (PS3.4 table J.3-2).
ALL_COMMITTED, SOME_FAILED = 1, 2

#: A request or a report may name so many instances: several times the largest study that a scanner makes,
#: and still less than 200 MB for the second that it takes to read.
MOST_REFERENCES = 50_000
#: The longest data set that is read: an item with two UIDs of full length takes 160 bytes.
LONGEST_DATA_SET = 160 * MOST_REFERENCES

_TRANSACTION, _REFERENCED, _FAILED = 0x00081195, 0x00081199, 0x00081198
_REFERENCED_CLASS, _REFERENCED_INSTANCE = 0x00081150, 0x00081155
_REASON = 0x00081197
#: Item (FFFE,E000) in little endian (PS3.5 section 7.5).
_ITEM = b"\xfe\xff\x00\xe0"
#: What pydicom raises at bytes that are no data set, or at a value that is not of its VR.
_UNREADABLE = (
    InvalidDicomError, EOFError, ValueError, KeyError, TypeError, AttributeError, IndexError,
    NotImplementedError, OverflowError, RecursionError, struct.error, OSError,
)  # fmt: skip


class FailureReason(IntEnum):
    """Failure Reason (0008,1197) of an instance that is not committed to (PS3.3 C.14.1.1)."""

    #: A general failure in processing the operation was encountered.
    PROCESSING_FAILURE = 0x0110
    #: The instance is not there.
    NO_SUCH_INSTANCE = 0x0112
    #: An instance of this UID is there, of another SOP class.
    CLASS_INSTANCE_CONFLICT = 0x0119
    #: Storage commitment is not supported for this SOP class.
    CLASS_NOT_SUPPORTED = 0x0122
    #: The Transaction UID is already in use.
    DUPLICATE_TRANSACTION = 0x0131
    #: The resources to keep it are not there.
    RESOURCE_LIMITATION = 0x0213


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """An instance, by class and UID."""

    sop_class_uid: str
    sop_instance_uid: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Failure:
    """An instance that is not committed to."""

    reference: Reference
    #: Usually a `FailureReason`; any 16 bits that a peer gave.
    reason: int


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitmentAsk:
    """A request: will you keep these? (N-ACTION, PS3.4 J.3.2)"""

    transaction_uid: str
    #: Without repetition, never empty.
    references: tuple[Reference, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitmentReport:
    """An answer: these I keep, those I do not (N-EVENT-REPORT, PS3.4 J.3.3)."""

    transaction_uid: str
    committed: tuple[Reference, ...]
    failed: tuple[Failure, ...]


def encode_ask(ask: CommitmentAsk) -> Dataset:
    """Action Information (PS3.4 table J.3-1)."""
    ds = Dataset()
    ds.add(_uid_element(_TRANSACTION, ask.transaction_uid))
    ds.ReferencedSOPSequence = _items(ask.references)
    return ds


def decode_ask(ds: Dataset) -> CommitmentAsk:
    """What Action Information asks. Raises DataSetError, without a word of what it holds."""
    references = tuple(dict.fromkeys(_reference(item) for item in _sequence(ds, _REFERENCED)))
    if not references:
        raise DataSetError("a storage commitment request names no instance")
    return CommitmentAsk(transaction_uid=_uid(ds, _TRANSACTION, "Transaction UID"), references=references)


def encode_report(report: CommitmentReport) -> tuple[int, Dataset]:
    """Event Type ID and Event Information (PS3.4 table J.3-2)."""
    ds = Dataset()
    ds.add(_uid_element(_TRANSACTION, report.transaction_uid))
    # Type 1C: absent where nothing was committed to.
    if report.committed:
        ds.ReferencedSOPSequence = _items(report.committed)
    if not report.failed:
        return ALL_COMMITTED, ds
    ds.FailedSOPSequence = _items(failure.reference for failure in report.failed)
    for item, failure in zip(ds.FailedSOPSequence, report.failed, strict=True):
        item.FailureReason = failure.reason
    return SOME_FAILED, ds


def decode_report(event_type_id: int, ds: Dataset) -> CommitmentReport:
    """What Event Information reports. Raises DataSetError, without a word of what it holds.

    A report that contradicts itself is no report: committing to something is a promise.
    """
    if event_type_id not in (ALL_COMMITTED, SOME_FAILED):
        raise DataSetError("a storage commitment report has an unknown Event Type ID")
    committed = tuple(dict.fromkeys(_reference(item) for item in _sequence(ds, _REFERENCED)))
    failures = {_reference(item): _reason(item) for item in _sequence(ds, _FAILED)}
    if (event_type_id == ALL_COMMITTED) is bool(failures):
        raise DataSetError(
            "a storage commitment report's Event Type ID and its failures contradict each other"
        )
    if not committed and not failures:
        raise DataSetError("a storage commitment report names no instance")
    if not failures.keys().isdisjoint(committed):
        raise DataSetError("a storage commitment report says both of an instance: committed and failed")
    return CommitmentReport(
        transaction_uid=_uid(ds, _TRANSACTION, "Transaction UID"),
        committed=committed,
        failed=tuple(Failure(reference=reference, reason=reason) for reference, reason in failures.items()),
    )


def read(data: bytes, transfer_syntax_uid: str) -> Dataset:
    """A data set as it came, in little endian: looked at before it is decoded, so that its memory is bounded.

    Raises DataSetError.
    """
    # Every item of a sequence becomes a Dataset of some kilobytes, an empty one of 8 bytes too.
    if len(data) > LONGEST_DATA_SET or data.count(_ITEM) > MOST_REFERENCES:
        raise DataSetError(f"a storage commitment message names more than {MOST_REFERENCES} instances")
    try:
        return read_dataset(
            BytesIO(data), is_implicit_VR=UID(transfer_syntax_uid).is_implicit_VR, is_little_endian=True
        )
    except _UNREADABLE:
        raise DataSetError("a storage commitment message is no data set") from None


def _items(references: Iterable[Reference]) -> list[Dataset]:
    """The SOP Instance Reference Macro (PS3.3 table 10-11) for each reference."""
    items = []
    for reference in references:
        item = Dataset()
        item.add(_uid_element(_REFERENCED_CLASS, reference.sop_class_uid))
        item.add(_uid_element(_REFERENCED_INSTANCE, reference.sop_instance_uid))
        items.append(item)
    return items


def _uid_element(tag: int, uid: str) -> DataElement:
    """A UID as it is: senders exist whose UIDs pydicom warns of (leading zeros), and they want them back."""
    return DataElement(tag, "UI", uid, validation_mode=config.IGNORE)


def _sequence(ds: Dataset, tag: int) -> Sequence[Dataset]:
    """The items of a sequence; none where it is absent or empty."""
    try:
        items = ds[tag].value if tag in ds else []
    except _UNREADABLE:
        raise DataSetError("a storage commitment message holds a sequence that cannot be read") from None
    if items is None:
        return []
    if not isinstance(items, ItemSequence | list):
        raise DataSetError("a storage commitment message holds a value where a sequence belongs")
    if len(items) > MOST_REFERENCES:
        raise DataSetError(f"a storage commitment message names more than {MOST_REFERENCES} instances")
    return items


def _reference(item: Dataset) -> Reference:
    return Reference(
        sop_class_uid=_uid(item, _REFERENCED_CLASS, "Referenced SOP Class UID"),
        sop_instance_uid=_uid(item, _REFERENCED_INSTANCE, "Referenced SOP Instance UID"),
    )


def _uid(ds: Dataset, tag: int, name: str) -> str:
    """A UID as it stands in the bytes: pydicom's own conversion warns with the value it does not like."""
    element = ds.get_item(tag)
    value = element.value if element is not None else b""
    if isinstance(value, str):
        value = value.encode("ascii", "replace")
    if not isinstance(value, bytes):
        raise DataSetError(f"{name} is not a UID (PS3.5 section 9.1)")
    return checked_uid(value, name)


def _reason(item: Dataset) -> int:
    """Failure Reason; peers that leave it out have failed all the same."""
    try:
        value = item[_REASON].value if _REASON in item else FailureReason.PROCESSING_FAILURE
    except _UNREADABLE:
        value = None
    if not isinstance(value, int):
        raise DataSetError("Failure Reason is not a number")
    return value
