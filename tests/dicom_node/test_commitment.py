"""Storage commitment messages: round trips, a real Orthanc's shape, and what is no message."""

from __future__ import annotations

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from dicom_node import commitment
from dicom_node.commitment import (
    CommitmentAsk,
    CommitmentReport,
    Failure,
    FailureReason,
    Reference,
    decode_ask,
    decode_report,
    encode_ask,
    encode_report,
)
from dicom_node.errors import DataSetError

CT = "1.2.840.10008.5.1.4.1.1.2"


def reference(number: int, sop_class: str = CT) -> Reference:
    return Reference(sop_class_uid=sop_class, sop_instance_uid=f"1.2.826.0.1.{number}")


def encoded(ds: Dataset, syntax: str) -> bytes:
    target = DicomBytesIO()
    target.is_implicit_VR = syntax == ImplicitVRLittleEndian
    target.is_little_endian = True
    write_dataset(target, ds)
    return target.getvalue()


def ask(*references: Reference) -> CommitmentAsk:
    return CommitmentAsk(transaction_uid="1.2.826.0.9", references=references)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_request_survives_the_wire(syntax: str) -> None:
    asked = ask(reference(1), reference(2))

    assert decode_ask(commitment.read(encoded(encode_ask(asked), syntax), syntax)) == asked


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.parametrize(
    ("committed", "failed", "event_type"),
    [((1, 2), (), 1), ((1,), (2,), 2), ((), (1, 2), 2)],
)
def test_a_report_survives_the_wire(
    syntax: str, committed: tuple[int, ...], failed: tuple[int, ...], event_type: int
) -> None:
    report = CommitmentReport(
        transaction_uid="1.2.826.0.9",
        committed=tuple(reference(number) for number in committed),
        failed=tuple(
            Failure(reference=reference(number), reason=FailureReason.NO_SUCH_INSTANCE) for number in failed
        ),
    )

    kind, ds = encode_report(report)

    assert kind == event_type
    assert ("ReferencedSOPSequence" in ds) is bool(committed)
    assert decode_report(kind, commitment.read(encoded(ds, syntax), syntax)) == report


def test_a_report_in_orthancs_shape_is_read() -> None:
    """Orthanc writes both sequences, one of them empty where all or none were committed."""
    ds = encode_ask(ask(reference(1)))
    ds.FailedSOPSequence = []

    report = decode_report(1, ds)

    assert report.committed == (reference(1),)
    assert report.failed == ()


def test_an_instance_that_is_named_twice_counts_once() -> None:
    assert decode_ask(encode_ask(ask(reference(1), reference(1)))).references == (reference(1),)


def test_uids_with_leading_zeros_come_back_as_they_were() -> None:
    odd = Reference(sop_class_uid=CT, sop_instance_uid="1.2.003.04")

    ds = commitment.read(encoded(encode_ask(ask(odd)), ImplicitVRLittleEndian), ImplicitVRLittleEndian)

    assert decode_ask(ds).references == (odd,)


def test_a_failure_without_a_reason_is_a_failure() -> None:
    _, ds = encode_report(
        CommitmentReport(
            transaction_uid="1.2", committed=(), failed=(Failure(reference=reference(1), reason=0x0112),)
        )
    )
    del ds.FailedSOPSequence[0].FailureReason

    assert decode_report(2, ds).failed[0].reason == FailureReason.PROCESSING_FAILURE


def broken_asks() -> dict[str, Dataset]:
    whole = encode_ask(ask(reference(1)))
    cases = {name: Dataset() for name in ("empty",)}
    for name, tag in (("no transaction", 0x00081195), ("no references", 0x00081199)):
        cases[name] = Dataset(whole)
        del cases[name][tag]
    cases["empty sequence"] = Dataset(whole)
    cases["empty sequence"].ReferencedSOPSequence = []
    cases["not a sequence"] = Dataset(whole)
    cases["not a sequence"].add_new(0x00081199, "LO", "hello")
    cases["a name for a UID"] = encode_ask(ask(Reference(sop_class_uid=CT, sop_instance_uid="DOE^JANE")))
    cases["two UIDs"] = Dataset(whole)
    cases["two UIDs"].add_new(0x00081195, "UI", ["1.2", "1.3"])
    return cases


@pytest.mark.parametrize(("name", "ds"), broken_asks().items(), ids=broken_asks())
def test_what_is_no_request_is_refused_without_a_word_of_it(name: str, ds: Dataset) -> None:
    with pytest.raises(DataSetError) as caught:
        decode_ask(commitment.read(encoded(ds, ExplicitVRLittleEndian), ExplicitVRLittleEndian))

    assert "DOE" not in str(caught.value)


def test_reports_that_contradict_themselves_are_none() -> None:
    failed = (Failure(reference=reference(1), reason=0x0112),)
    kind, both = encode_report(
        CommitmentReport(transaction_uid="1.2", committed=(reference(1),), failed=failed)
    )
    only_good = encode_ask(ask(reference(1)))
    for event_type, ds in ((kind, both), (1, both), (2, only_good), (3, only_good), (0, only_good)):
        with pytest.raises(DataSetError):
            decode_report(event_type, ds)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00",
        b"garbage" * 100,
        b"\xff" * 4096,
        # A sequence that says that it is longer than the message.
        b"\x08\x00\x99\x11\xff\xff\xff\x7f" + b"\xfe\xff\x00\xe0\x00\x00\x00\x00" * 10,
        # Sequences in sequences, 40,000 deep.
        b"\x08\x00\x99\x11\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 40_000,
        b"\x08\x00\x99\x11SQ\x00\x00\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff" * 40_000,
    ],
)
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
def test_bytes_that_are_no_data_set_are_a_data_set_error(data: bytes, syntax: str) -> None:
    with pytest.raises(DataSetError):
        decode_ask(commitment.read(data, syntax))


def test_more_than_the_most_references_are_refused_before_they_are_decoded() -> None:
    item = b"\xfe\xff\x00\xe0\x00\x00\x00\x00"
    count = commitment.MOST_REFERENCES + 1
    data = b"\x08\x00\x99\x11" + (8 * count).to_bytes(4, "little") + item * count

    with pytest.raises(DataSetError, match="more than"):
        commitment.read(data, ImplicitVRLittleEndian)
    with pytest.raises(DataSetError, match="more than"):
        commitment.read(b"\0" * (commitment.LONGEST_DATA_SET + 1), ImplicitVRLittleEndian)
