"""The header walk: every syntax, every cut, and what it must refuse."""

from __future__ import annotations

import io
import struct
import zlib

import pytest
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import dcmwrite, write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from dicom_node import header
from dicom_node.errors import DataSetError
from tests.support.phantoms import Phantom, datasets

EXPLICIT = str(ExplicitVRLittleEndian)
UID_KEYWORDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")


def one(**changes: object) -> Dataset:
    """A small CT image, with attributes set; None deletes one."""
    ds = datasets(Phantom(shape=(1, 8, 8)))[0]
    for keyword, value in changes.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    return ds


def encode(ds: Dataset, transfer_syntax: str = EXPLICIT) -> bytes:
    """The data set's bytes without file meta, as they travel."""
    buffer = DicomBytesIO()
    buffer.is_little_endian = transfer_syntax != ExplicitVRBigEndian
    buffer.is_implicit_VR = transfer_syntax == ImplicitVRLittleEndian
    write_dataset(buffer, ds)
    data = buffer.getvalue()
    if transfer_syntax == DeflatedExplicitVRLittleEndian:
        deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return deflate.compress(data) + deflate.flush()
    return data


def uids(ds: Dataset) -> tuple[str, ...]:
    return tuple(str(ds[keyword].value) for keyword in UID_KEYWORDS)


def peeked_uids(data: bytes, transfer_syntax: str = EXPLICIT) -> tuple[str, ...]:
    found = header.peek(data, transfer_syntax)
    return (
        found.sop_class_uid,
        found.sop_instance_uid,
        found.study_instance_uid,
        found.series_instance_uid,
    )


@pytest.mark.parametrize(
    "transfer_syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        # Compressed pixels leave the header explicit little endian; so do syntaxes nobody knows (PS3.5 A.4).
        "1.2.840.10008.1.2.4.90",
        "1.2.3.4.5",
    ],
)
def test_reads_every_encoding(transfer_syntax: str) -> None:
    ds = one()

    found = header.peek(encode(ds, transfer_syntax), str(transfer_syntax))

    assert peeked_uids(encode(ds, transfer_syntax), str(transfer_syntax)) == uids(ds)
    assert (found.patient_id, found.modality) == ("PHANTOM-1", "CT")


def test_reads_a_data_set_whose_syntax_is_mislabelled() -> None:
    ds = one()

    assert peeked_uids(encode(ds, ImplicitVRLittleEndian), EXPLICIT) == uids(ds)
    assert peeked_uids(encode(ds, EXPLICIT), str(ImplicitVRLittleEndian)) == uids(ds)


@pytest.mark.parametrize("transfer_syntax", [EXPLICIT, str(ImplicitVRLittleEndian)])
def test_every_cut_before_the_uids_asks_for_more_and_none_after(transfer_syntax: str) -> None:
    # Given a data set, and where its Series Instance UID ends
    ds = one()
    data = encode(ds, transfer_syntax)
    series = ds.SeriesInstanceUID.encode()
    needed = data.index(series) + len(series) + len(series) % 2

    # Then each shorter head says that it is too short, and each longer one is enough
    for length in range(needed):
        with pytest.raises(header.HeadTooShort):
            header.peek(data[:length], transfer_syntax)
    for length in range(needed, len(data)):
        assert peeked_uids(data[:length], transfer_syntax) == uids(ds)


def nested_sequence() -> bytes:
    """(0008,1115) of undefined length, holding items of defined and undefined length and a UN sequence."""
    implicit_item = struct.pack("<HHL", 0x0009, 0x1001, 4) + b"\0\0\0\0"
    unknown = (
        struct.pack("<HH2sHL", 0x0009, 0x1002, b"UN", 0, 0xFFFFFFFF)
        + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
        + implicit_item
        + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
        + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    )
    decoy = struct.pack("<HH2sH", 0x0020, 0x000E, b"UI", 4) + b"6.6\0"
    return (
        struct.pack("<HH2sHL", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF)
        + struct.pack("<HHL", 0xFFFE, 0xE000, len(decoy))
        + decoy
        + struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
        + unknown
        + decoy
        + struct.pack("<HHL", 0xFFFE, 0xE00D, 0)
        + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    )


def test_skips_sequences_of_undefined_length_and_their_uids() -> None:
    # Given a sequence before the patient that holds another Series Instance UID
    ds = one()
    data = encode(ds)
    patient = data.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))
    data = data[:patient] + nested_sequence() + data[patient:]

    assert peeked_uids(data) == uids(ds)


def test_sequences_without_end_do_not_run_away() -> None:
    data = encode(one())
    start = data[: data.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))]
    item = struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF) + struct.pack(
        "<HH2sHL", 0x0008, 0x1115, b"SQ", 0, 0xFFFFFFFF
    )

    with pytest.raises(DataSetError, match="nested"):
        header.peek(start + item[8:] + item * 5_000, EXPLICIT)
    unknown = struct.pack("<HH2sHL", 0x0008, 0x1115, b"UN", 0, 0xFFFFFFFF)
    with pytest.raises(DataSetError):
        header.peek(start + unknown + (struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)) * 5_000, EXPLICIT)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
        b"%PDF-1.7 and so on, for a while",
        b"<html><body>An error page</body></html>",
        bytes(4096),
        b"\xff" * 4096,
    ],
    ids=["png", "pdf", "html", "zeros", "ones"],
)
@pytest.mark.parametrize(
    "transfer_syntax",
    [EXPLICIT, str(ImplicitVRLittleEndian), str(ExplicitVRBigEndian), header.DEFLATED_LITTLE],
)
def test_refuses_what_is_not_dicom(data: bytes, transfer_syntax: str) -> None:
    with pytest.raises(DataSetError):
        header.peek(data, transfer_syntax)


def test_refuses_a_whole_file_sent_as_a_data_set() -> None:
    buffer = io.BytesIO()
    dcmwrite(buffer, one(), enforce_file_format=True)

    with pytest.raises(DataSetError, match="not DICOM"):
        header.peek(buffer.getvalue(), EXPLICIT)


def test_refuses_elements_out_of_order() -> None:
    data = encode(one())
    patient = data.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))

    with pytest.raises(DataSetError, match="out of order"):
        header.peek(data[:patient] + data, EXPLICIT)


@pytest.mark.parametrize("keyword", UID_KEYWORDS)
def test_names_the_missing_uid(keyword: str) -> None:
    name = {"S": " Instance UID"}["S"] if keyword != "SOPClassUID" else "SOP Class UID"

    with pytest.raises(DataSetError, match=name):
        header.peek(encode(one(**{keyword: None})), EXPLICIT)


@pytest.mark.parametrize(
    "value",
    [
        "../../etc/passwd",
        "1.2/3",
        "1..2",
        ".1.2",
        "1.2.",
        "1.2.x",
        "1 .2",
        "1." + "2" * 63,
        "1.2\\1.3",
        "٣.٤",
    ],
)
def test_refuses_uids_that_could_not_name_a_file(value: str) -> None:
    raw = value.encode("utf-8")

    with pytest.raises(header.BadUid, match="Some UID is not a UID"):
        header.checked_uid(raw, "Some UID")
    # And the message does not repeat what was sent
    with pytest.raises(header.BadUid) as caught:
        header.checked_uid(raw, "Some UID")
    assert value not in str(caught.value)


def test_accepts_padding_and_leading_zeros() -> None:
    assert header.checked_uid(b"1.2.3\0", "x") == "1.2.3"
    assert header.checked_uid(b"1.2.3 ", "x") == "1.2.3"
    assert header.checked_uid(b"1.02.3", "x") == "1.02.3"
    assert header.checked_uid(b"1." + b"2" * 62, "x") == "1." + "2" * 62


def test_patient_id_in_another_character_set() -> None:
    ds = one(SpecificCharacterSet="ISO_IR 100", PatientID="Ærø-7")

    assert header.peek(encode(ds), EXPLICIT).patient_id == "Ærø-7"


def test_patient_id_with_bytes_of_no_character_set_is_still_a_text() -> None:
    data = encode(one(PatientID="ABCD")).replace(b"ABCD", b"\xff\xfeCD")

    assert header.peek(data, EXPLICIT).patient_id == "\ufffd\ufffdCD"


def test_absent_patient_id_and_modality_are_empty() -> None:
    found = header.peek(encode(one(PatientID=None, Modality=None)), EXPLICIT)

    assert (found.patient_id, found.modality) == ("", "")


def test_inflation_is_bounded() -> None:
    # Given a data set whose private element inflates to a gigabyte
    deflate = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    data = encode(one())
    start = data[: data.index(struct.pack("<HH2s", 0x0010, 0x0010, b"PN"))]
    bomb = [deflate.compress(start + struct.pack("<HH2sHL", 0x0009, 0x1001, b"OB", 0, 1 << 30))]
    bomb += [deflate.compress(bytes(1 << 24)) for _ in range(64)]

    with pytest.raises(header.HeadTooShort):
        header.peek(b"".join(bomb) + deflate.flush(), header.DEFLATED_LITTLE)
