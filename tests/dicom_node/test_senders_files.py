"""Who a file is, read without decoding it; and what cannot be sent at all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from dicom_node import errors
from dicom_node.senders import Outcome, Verdict
from dicom_node.senders.files import identify, identify_all, is_uid
from tests.support import phantoms


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return phantoms.write(phantoms.datasets(phantoms.Phantom(shape=(1, 16, 16))), tmp_path / "image")[0]


def test_a_file_names_itself(image: Path) -> None:
    found = identify(image)
    assert found.path == image
    assert found.sop_class_uid == CTImageStorage
    assert found.transfer_syntax_uid == ExplicitVRLittleEndian
    assert found.sop_instance_uid.encode() in image.read_bytes()
    assert found.size == image.stat().st_size


def test_the_data_set_behind_the_uids_is_not_read(image: Path, tmp_path: Path) -> None:
    # Given a file that ends right behind SOP Instance UID
    content = image.read_bytes()
    uid = identify(image).sop_instance_uid.encode()
    cut = tmp_path / "cut.dcm"
    cut.write_bytes(content[: content.rindex(uid) + len(uid) + len(uid) % 2])
    # Then its identity is known all the same
    assert identify(cut).sop_instance_uid.encode() == uid


def test_a_deflated_data_set_is_identified(tmp_path: Path) -> None:
    made = phantoms.datasets(phantoms.Phantom(shape=(1, 16, 16)))
    made[0].file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    (path,) = phantoms.write(made, tmp_path / "deflated")
    assert identify(path).sop_instance_uid == made[0].SOPInstanceUID


def test_what_cannot_be_sent_says_why(image: Path, tmp_path: Path) -> None:
    content = image.read_bytes()
    bad = {
        "not a DICOM file": b"PK\x03\x04" + bytes(300),
        "not a DICOM file (PS3.10)": b"",
        "different SOP UIDs": _with_other_instance(content, identify(image).sop_instance_uid),
    }
    for number, (reason, bytes_) in enumerate(bad.items()):
        path = tmp_path / f"{number}.dcm"
        path.write_bytes(bytes_)
        with pytest.raises(errors.DataSetError, match=re.escape(reason)):
            identify(path)
    with pytest.raises(errors.DataSetError, match="cannot be read: No such file"):
        identify(tmp_path / "absent.dcm")
    with pytest.raises(errors.DataSetError, match="cannot be read: Is a directory"):
        identify(tmp_path)


def _with_other_instance(content: bytes, uid: str) -> bytes:
    """The file with the last digit of the data set's (not the file meta's) SOP Instance UID changed."""
    end = content.rindex(uid.encode()) + len(uid)
    digit = b"1" if content[end - 1 : end] != b"1" else b"2"
    return content[: end - 1] + digit + content[end:]


def test_a_uid_that_could_name_another_file_is_refused(image: Path, tmp_path: Path) -> None:
    original = identify(image).sop_instance_uid
    path = tmp_path / "bad.dcm"
    for bad in ("../../etc/passwd", "1.2.3/4.5", "1.2 3", "abc", "1.2\n3"):
        # Padded to the length of the original, so that the file meta's group length stays true.
        path.write_bytes(
            image.read_bytes().replace(original.encode(), bad.ljust(len(original), "x").encode())
        )
        with pytest.raises(errors.DataSetError, match="no usable Media Storage SOP Instance"):
            identify(path)


@pytest.mark.parametrize(
    ("text", "good"),
    [("1.2.840", True), ("1" * 64, True), ("1" * 65, False), ("", False), (".1", False), ("1.2\n", False)],
)
def test_what_a_uid_is(text: str, good: bool) -> None:
    assert is_uid(text) is good


def test_unusable_files_have_their_outcome_at_once(image: Path, tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no DICOM here")
    outcomes: list[Outcome] = []
    usable = identify_all([text, image], outcomes.append)
    assert [file.path for file in usable] == [image]
    assert [(each.path, each.verdict, each.status) for each in outcomes] == [(text, Verdict.REFUSED, None)]
