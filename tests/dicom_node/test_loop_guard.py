"""The loop guard's eyes: our UIDs, contributing equipment in every encoding, and what the listener answers."""

from __future__ import annotations

import json
import struct
import uuid
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    generate_uid,
)

from dicom_node import header, own_uids, results, stored_files
from dicom_node.equipment import NOBODY, Equipment
from dicom_node.errors import DataSetError
from dicom_node.incoming import BUFFER_BYTES
from dicom_node.loop_guard import LoopGuard
from dicom_node.statuses import StoreStatus
from tests.dicom_node.test_header import EXPLICIT, encode, one
from tests.support import results as cases
from tests.support.listening import CT, Wire, data_set_bytes, listening, store_command, value

SYNTAXES = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    DeflatedExplicitVRLittleEndian,
)
GUARD = LoopGuard(max_hops=3)


def device(purpose: str = "109102", manufacturer: str = "Denoisers Ltd", scheme: str = "DCM") -> Dataset:
    """An item of the Contributing Equipment Sequence."""
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = purpose, scheme, "Equipment"
    item = Dataset()
    item.Manufacturer = manufacturer
    item.InstitutionName = "A hospital"
    item.PurposeOfReferenceCodeSequence = [code]
    return item


def image(*devices: Dataset) -> Dataset:
    return one(ContributingEquipmentSequence=list(devices))


def seen(data: bytes, transfer_syntax: str = EXPLICIT) -> Equipment:
    return header.peek(data, transfer_syntax).equipment


# Our UIDs


def test_our_uids_are_valid_uuids_and_known_again() -> None:
    made = [own_uids.make("job", str(number)) for number in range(500)]
    assert len(set(made)) == 500
    for uid in made:
        assert own_uids.is_ours(uid) and len(uid) <= 64
        assert uid.startswith(("2.25.670345871", "2.25.670345872"))  # as people are told
        known = uuid.UUID(int=int(uid.removeprefix("2.25.")))
        assert (known.version, known.variant) == (8, uuid.RFC_4122)
    assert own_uids.make("a", "b") == own_uids.make("a", "b") != own_uids.make("ab")


@pytest.mark.parametrize(
    "uid",
    [
        *(
            f"2.25.{uuid.UUID(int=int(sha256(bytes([n])).hexdigest()[:32], 16), version=4).int}"
            for n in range(9)
        ),
        f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, 'secondread').int}",
        # Our 32 bits, but not version 8: somebody's random UUID that happens to begin so.
        f"2.25.{int(own_uids.make('x').removeprefix('2.25.')) ^ (0xC << 76)}",
        own_uids.make("x").removeprefix("2.25."),
        own_uids.make("x") + "0",
        own_uids.make("x").replace("2.25.", "1.25."),
        own_uids.make("x").replace("2.25.", "2.25.0"),
        "2.25.",
        "2.25." + "²" * 38,
        "",
        generate_uid(entropy_srcs=["somebody"]),
    ],
)
def test_other_uids_are_not_ours(uid: str) -> None:
    assert not own_uids.is_ours(uid)


def test_every_uid_of_a_result_is_ours_and_none_of_its_source(tmp_path: Path) -> None:
    source = cases.series(cases.LIES["axial"])
    made = results.make_results(cases.context(source), cases.findings(source), ("seg", "sr"), tmp_path)
    for file in made:
        ds = dcmread(file.path)
        assert own_uids.is_ours(ds.SOPInstanceUID) and own_uids.is_ours(ds.SeriesInstanceUID)
        assert not own_uids.is_ours(ds.StudyInstanceUID)
        # Known by their equipment, too, should a PACS give them other UIDs
        peeked = header.peek(data_set_bytes(file.path), str(ds.file_meta.TransferSyntaxUID))
        assert peeked.equipment.ours
        renamed = {"sop_instance_uid": "1.2.3", "series_instance_uid": "1.2"}
        assert "equipment" in GUARD.reason(Judged(equipment=peeked.equipment, **renamed))
    for original in source.datasets:
        assert not own_uids.is_ours(original.SOPInstanceUID)
        assert not own_uids.is_ours(original.SeriesInstanceUID)


class Judged:
    """What the guard looks at."""

    def __init__(
        self, sop_instance_uid: str = "1.2.3", series_instance_uid: str = "1.2", equipment: Equipment = NOBODY
    ) -> None:
        self.sop_instance_uid, self.series_instance_uid = sop_instance_uid, series_instance_uid
        self.equipment = equipment


@pytest.mark.parametrize(
    ("found", "words"),
    [
        ({}, ""),
        ({"sop_instance_uid": own_uids.make("a")}, "UID"),
        ({"series_instance_uid": own_uids.make("a")}, "UID"),
        ({"equipment": Equipment(ours=True)}, "equipment"),
        # A CT that one AI denoised is still a CT
        ({"equipment": Equipment(processing=1)}, ""),
        ({"equipment": Equipment(processing=3)}, ""),
        ({"equipment": Equipment(processing=4)}, "4 processing devices"),
    ],
)
def test_verdicts(found: dict[str, Any], words: str) -> None:
    reason = GUARD.reason(Judged(**found))
    assert words in reason and bool(words) == bool(reason)
    assert len(f"loop guard: {reason}") <= 64  # Error Comment (0000,0902) is LO


# Contributing equipment


def element(tag: int, vr: bytes, data: bytes, *, length: int | None = None) -> bytes:
    """An element of explicit VR whose length takes four bytes, and may lie."""
    size = len(data) if length is None else length
    return struct.pack("<HH2sHL", tag >> 16, tag & 0xFFFF, vr, 0, size) + data


def spliced(vr: bytes, inside: bytes, *, length: int | None = None) -> bytes:
    """An image whose Contributing Equipment Sequence has these bytes as its value."""
    data = encode(one())
    at = data.index(struct.pack("<HH", 0x0020, 0x000D))
    return data[:at] + element(0x0018A001, vr, inside, length=length) + data[at:]


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
@pytest.mark.parametrize("undefined", [False, True])
def test_equipment_is_read_in_every_encoding(transfer_syntax: str, undefined: bool) -> None:
    ds = image(device(), device("109101"), device("109103"), device(manufacturer="SecondRead "))
    if undefined:
        ds["ContributingEquipmentSequence"].is_undefined_length = True
        for item in ds.ContributingEquipmentSequence:
            item.is_undefined_length_sequence_item = True
            item["PurposeOfReferenceCodeSequence"].is_undefined_length = True
    assert seen(encode(ds, transfer_syntax), transfer_syntax) == Equipment(ours=True, processing=2)
    ds.ContributingEquipmentSequence = [device(), device(scheme="99LOCAL"), Dataset()]
    assert seen(encode(ds, transfer_syntax), transfer_syntax) == Equipment(processing=1)


@pytest.mark.parametrize("transfer_syntax", SYNTAXES)
def test_most_images_name_nobody(transfer_syntax: str) -> None:
    assert seen(encode(one(), transfer_syntax), transfer_syntax) is NOBODY
    assert seen(encode(image(), transfer_syntax), transfer_syntax) == NOBODY


def test_a_sequence_behind_unknown_vr_is_implicit_little_endian() -> None:
    holder = Dataset()
    holder.ContributingEquipmentSequence = [device(), device(manufacturer="secondread")]
    inner = encode(holder, ImplicitVRLittleEndian)[8:]
    assert seen(spliced(b"UN", inner)) == Equipment(ours=True, processing=2)
    ended = inner + struct.pack("<HHL", 0xFFFE, 0xE0DD, 0)
    assert seen(spliced(b"UN", ended, length=0xFFFFFFFF)) == Equipment(ours=True, processing=2)


def test_nested_sequences_are_passed_over() -> None:
    deep = device()
    deep.PersonIdentificationCodeSequence = [device(manufacturer="secondread")]
    deep.OperatorIdentificationSequence = [image(device(manufacturer="secondread"), device())]
    assert seen(encode(image(deep))) == Equipment(processing=1)


@pytest.mark.parametrize(
    "inside",
    [
        b"",
        b"\xff" * 40,
        b"\0" * 7,
        struct.pack("<HHL", 0xFFFE, 0xE000, 1 << 30),
        struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF),
        struct.pack("<HHL", 0xFFFE, 0xE000, 8) + b"\x08\0\x70\0ZZ\0\0",
        struct.pack("<HHL", 0xFFFE, 0xE000, 0xFFFFFFFF)
        + b"".join(element(0x0040A170, b"SQ", b"", length=0xFFFFFFFF) for _ in range(500)),
        struct.pack("<HHL", 0xFFFE, 0xE000, 0) * 100_000,
    ],
    ids=["empty", "junk", "short", "too long", "unended", "bad vr", "deep", "many"],
)
def test_a_broken_sequence_keeps_no_image_out(inside: bytes) -> None:
    assert seen(spliced(b"SQ", inside)) == NOBODY


def test_what_was_read_before_the_break_counts() -> None:
    holder = Dataset()
    holder.ContributingEquipmentSequence = [device(), device(manufacturer="secondread")]
    whole = encode(holder)[12:]
    broken = whole + b"\xfe\xff\0\xe0\xff\xff\0\0junk"
    assert seen(spliced(b"SQ", broken)) == Equipment(ours=True, processing=2)


def test_an_unended_sequence_needs_more_bytes() -> None:
    data = encode(image(device()))
    at = data.index(struct.pack("<HH", 0x0018, 0xA001))
    with pytest.raises(header.HeadTooShort):
        header.peek(data[: at + 40], EXPLICIT)
    endless = data[:at] + element(0x0018A001, b"SQ", b"", length=0xFFFFFFFF)
    with pytest.raises(DataSetError):
        header.peek(endless, EXPLICIT)


# The listener


@pytest.mark.parametrize("large", [False, True])
def test_the_listener_refuses_what_loops_where_it_shall_not_be_stored(tmp_path: Path, large: bool) -> None:
    ours = one(SOPInstanceUID=own_uids.make("a"))
    if large:  # goes by way of a temporary file
        ours.PixelData = bytes(BUFFER_BYTES * 2)
        ours.Rows, ours.Columns = 1024, 1024
    innocent = one(SOPInstanceUID="1.2.3.4")
    innocent.ContributingEquipmentSequence = [device()]
    with listening(tmp_path, guard=GUARD) as here, Wire(here.port) as wire:
        wire.associate({1: (CT, [EXPLICIT])})
        statuses = []
        for ds in (ours, innocent):
            wire.send_values(value(1, 3, store_command(CT, str(ds.SOPInstanceUID))))
            data = encode(ds)
            for start in range(0, len(data), 16000):
                piece = data[start : start + 16000]
                wire.send_values(value(1, 2 if start + 16000 >= len(data) else 0, piece))
            statuses.append(wire.status())
        assert statuses == [StoreStatus.LOOPED, StoreStatus.SUCCESS]
        assert [stored.sop_instance_uid for stored in here.events.stored] == ["1.2.3.4"]
        assert here.events.stored[0].equipment == Equipment(processing=1)
        (refused,) = here.events.refusals
        assert refused.status == 0xC002 and refused.reason.startswith("loop guard: it is a result")
        assert len(here.dicom_files()) == 1
        # Nothing of it is kept, and nothing waits in partial/ for a week
        assert [path for path in tmp_path.rglob("*") if path.suffix in (".part", ".damaged")] == []
        assert list((tmp_path / "partial").iterdir()) == []


def test_the_scan_sees_what_the_listener_saw(tmp_path: Path) -> None:
    with listening(tmp_path) as here:
        for ds in (image(device(manufacturer="secondread")), one()):
            here.spool.store(
                encode(ds),
                sop_class_uid=CT,
                sop_instance_uid=str(ds.SOPInstanceUID),
                transfer_syntax_uid=EXPLICIT,
            )
        assert sorted(stored.equipment.ours for stored in stored_files.scan(here.spool.root)) == [False, True]


def test_the_digest_still_decides() -> None:
    # The 90 bits that are left are those of the digest of the parts
    digest = int.from_bytes(sha256(json.dumps(["job", "seg", "instance"]).encode()).digest()[:16], "big")
    number = int(own_uids.make("job", "seg", "instance").removeprefix("2.25."))
    free = (1 << 96) - 1 & ~(0xF << 76) & ~(0x3 << 62)
    assert number & free == digest & free
