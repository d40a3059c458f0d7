"""Attributes of clean and dirty files as plain values that survive JSON and SQL."""

from __future__ import annotations

import json
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from dicom_node import attributes
from dicom_node.attributes import AttributeValue, read_attributes
from dicom_node.errors import DataSetError
from tests.support import enhanced, phantoms
from tests.support.phantoms import Phantom

DATA = Path(__file__).parents[1] / "data"
FILES = sorted((DATA / "dirty").glob("*.dcm")) + sorted((DATA / "charsets").glob("*.dcm"))


def patched(path: Path, *changes: tuple[bytes, bytes]) -> Path:
    """The file with bytes replaced that pydicom would refuse to write."""
    content = path.read_bytes()
    for old, new in changes:
        assert len(old) == len(new) and content.count(old) == 1
        content = content.replace(old, new)
    path.write_bytes(content)
    return path


@pytest.fixture
def written(tmp_path: Path) -> Path:
    return phantoms.write(phantoms.datasets(Phantom())[:1], tmp_path)[0]


def test_values_are_plain(written: Path) -> None:
    found = read_attributes(written)
    assert found["Modality"] == "CT"
    assert found["SliceThickness"] == 2.5 and type(found["SliceThickness"]) is float
    assert found["InstanceNumber"] == 1 and type(found["InstanceNumber"]) is int
    assert found["Rows"] == 32
    assert found["ImageType"] == ["ORIGINAL", "PRIMARY", "AXIAL"]
    assert found["PixelSpacing"] == [0.8, 0.7]
    assert found["PatientName"] == "Phantom^Asymmetric"
    assert found["SOPClassUID"] == str(CTImageStorage)
    assert found["TransferSyntaxUID"] == str(ExplicitVRLittleEndian)
    assert found["ReferringPhysicianName"] is None
    assert "PixelData" not in found


@pytest.mark.parametrize("undefined", [False, True])
def test_an_enhanced_image_has_what_its_first_frame_has(undefined: bool, tmp_path: Path) -> None:
    ds = enhanced.image(phantoms.datasets(Phantom(shape=(400, 2, 2))))
    ds["PerFrameFunctionalGroupsSequence"].is_undefined_length = undefined
    found = read_attributes(phantoms.write([ds], tmp_path)[0])
    assert (found["SliceThickness"], found["PixelSpacing"]) == (2.5, [0.8, 0.7])
    assert found["ImagePositionPatient"] == [-30.0, -20.0, 100.0]
    assert (found["ConvolutionKernel"], found["KVP"], found["RescaleIntercept"]) == ("B60s", 120.0, -1024.0)
    assert found["AnatomicRegionSequence"] == ["51185008^SCT^Chest"]
    assert (found["NumberOfFrames"], found["InstanceNumber"]) == (400, 1)
    json.dumps(found)


def test_functional_groups_cannot_say_whose_image_it_is(tmp_path: Path) -> None:
    ds = enhanced.image(phantoms.datasets(Phantom()))
    ds.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0].PatientID = "OTHER"
    ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].StudyInstanceUID = "1.2.3"
    found = read_attributes(phantoms.write([ds], tmp_path)[0])
    assert (found["PatientID"], found["StudyInstanceUID"]) == (ds.PatientID, ds.StudyInstanceUID)


@pytest.mark.parametrize("kept", [0.1, 0.3, 0.6, 0.9])
def test_an_enhanced_image_that_is_cut_off_gives_what_it_holds(kept: float, tmp_path: Path) -> None:
    [path] = phantoms.write([enhanced.image(phantoms.datasets(Phantom(shape=(40, 4, 4))))], tmp_path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * kept)])
    assert read_attributes(path)["Modality"] == "CT"


def test_what_a_rule_cannot_look_at_is_left_out(tmp_path: Path) -> None:
    ds = phantoms.datasets(Phantom())[0]
    ds.private_block(0x0029, "MAKER", create=True).add_new(0x10, "LO", "private")
    ds.add_new((0x6000, 0x0010), "US", 512)
    ds.ICCProfile = b"bytes"
    ds.ReferencedStudySequence = Sequence([Dataset()])
    found = read_attributes(phantoms.write([ds], tmp_path)[0])
    assert not {"PixelData", "ICCProfile", "OverlayRows", "ReferencedStudySequence", ""} & set(found)


def test_codes_are_text(tmp_path: Path) -> None:
    ds, code = phantoms.datasets(Phantom())[0], Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "24627-2", "LN", "CT Chest"
    ds.ProcedureCodeSequence = Sequence([code, code])
    found = read_attributes(phantoms.write([ds], tmp_path)[0])
    assert found["ProcedureCodeSequence"] == ["24627-2^LN^CT Chest"] * 2


def test_a_number_that_is_none_stays_as_sent(written: Path) -> None:
    # Explicit VR: DS, length 4, "2.5 " and US, length 2, 32.
    path = patched(written, (b"DS\x04\x002.5 ", b"DS\x04\x00*** "))
    assert read_attributes(path)["SliceThickness"] == "***"


def test_a_value_of_the_wrong_length_is_none(written: Path) -> None:
    path = patched(written, (b"\x28\x00\x10\x00US\x02\x00", b"\x28\x00\x10\x00UL\x02\x00"))
    found = read_attributes(path)
    assert found["Rows"] is None
    assert found["Columns"] == 40


def test_not_a_number_is_text(written: Path) -> None:
    path = patched(written, (b"DS\x04\x002.5 ", b"DS\x04\x00nan "))
    assert read_attributes(path)["SliceThickness"] == "nan"


def test_controls_and_surrogates_do_not_get_through(written: Path) -> None:
    path = patched(written, (b"Phantom study", b"Ph\x00\x07tom!\x1b[31m"))
    described = read_attributes(path)["StudyDescription"]
    assert isinstance(described, str)
    assert described.isprintable()
    described.encode("utf-8")


def test_an_unknown_character_set_loses_no_attribute(written: Path) -> None:
    path = patched(written, (b"ISO_IR 192", b"ISO_IR 999"))
    found = read_attributes(path)
    assert found["PatientName"] == "Phantom^Asymmetric"
    assert found["SpecificCharacterSet"] == "ISO_IR 999"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_dirty_files_give_what_they_hold(path: Path) -> None:
    found = read_attributes(path)
    again: dict[str, AttributeValue] = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert "\\u0000" not in json.dumps(found)
    json.dumps(found, ensure_ascii=False).encode("utf-8")
    assert found["TransferSyntaxUID"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("chrArab", "قباني^لنزار"),
        ("chrFren", "Buc^Jérôme"),
        ("chrGerm", "Äneas^Rüdiger"),
        ("chrGreek", "Διονυσιος"),
        ("chrH31", "Yamada^Tarou=山田^太郎=やまだ^たろう"),
        ("chrH32", "ﾔﾏﾀﾞ^ﾀﾛｳ=山田^太郎=やまだ^たろう"),
        ("chrHbrw", "שרון^דבורה"),
        ("chrI2", "Hong^Gildong=洪^吉洞=홍^길동"),
        ("chrKoreanMulti", "김희중"),
        ("chrRuss", "Люкceмбypг"),
        ("chrX1", "Wang^XiaoDong=王^小東"),
        ("chrX2", "Wang^XiaoDong=王^小东"),
    ],
)
def test_names_of_every_script(name: str, expected: str) -> None:
    assert read_attributes(DATA / "charsets" / f"{name}.dcm")["PatientName"] == expected


def test_a_file_that_is_cut_off_gives_what_is_left() -> None:
    found = read_attributes(DATA / "dirty" / "rtplan_truncated.dcm")
    assert found["Modality"] == "RTPLAN"
    assert read_attributes(DATA / "dirty" / "MR_truncated.dcm")["Rows"] == 64


def test_a_file_cut_within_a_sequence_gives_what_came_before(tmp_path: Path) -> None:
    ds, item = phantoms.datasets(Phantom())[0], Dataset()
    item.CodeMeaning = "x" * 60
    ds.ProcedureCodeSequence = Sequence([item])
    path = phantoms.write([ds], tmp_path)[0]
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"xxxx") + 20])
    assert read_attributes(path)["StudyDate"] == "20261101"


@pytest.mark.parametrize("content", [b"", b"text", b"\0" * 4000, b"\0" * 128 + b"DICM", b"\xff" * 999])
def test_what_is_no_dicom_is_said_to_be_none(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "file.dcm"
    path.write_bytes(content)
    with pytest.raises(DataSetError):
        read_attributes(path)


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataSetError):
        read_attributes(tmp_path / "none.dcm")


def test_empty_uids_come_from_the_file_meta(written: Path) -> None:
    ds = pydicom.dcmread(written)
    uid, ds.SOPInstanceUID = ds.SOPInstanceUID, None
    ds.save_as(written)
    assert read_attributes(written)["SOPInstanceUID"] == str(uid)


def test_a_data_set_in_memory() -> None:
    found = attributes.from_dataset(phantoms.datasets(Phantom())[0])
    assert found["KVP"] == 120.0
    assert "TransferSyntaxUID" not in found
