"""Every dirty file and every character set, over DICOM to a running installation."""

from __future__ import annotations

import copy
import struct
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest

from tests.acceptance.installation import Installation, until
from tests.support import phantoms
from tests.support.listening import EXPLICIT, IMPLICIT, Wire, store_command, value
from tests.support.orthanc import Orthanc
from tests.support.phantoms import Phantom

pytestmark = [pytest.mark.peer("dcmtk"), pytest.mark.peer("orthanc")]

_DATA = Path(__file__).parents[1] / "data"
FILES = sorted([*(_DATA / "dirty").glob("*.dcm"), *(_DATA / "charsets").glob("*.dcm")])
#: They hold no UIDs of a study, or no data set at all: nothing that could be filed or asked about.
NAMELESS = {
    "UN_sequence.dcm",
    "empty_charset_LEI.dcm",
    "meta_missing_tsyntax.dcm",
    "nested_priv_SQ.dcm",
    "no_meta_group_length.dcm",
    "priv_SQ.dcm",
    "chrSQEncoding.dcm",
    "chrSQEncoding1.dcm",
}
#: Character sets whose names go all the way to the results.
NAMES = ("chrGreek", "chrRuss", "chrArab", "chrH31", "chrI2", "chrX1", "chrX2")


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A file as it went over the wire."""

    sop_instance_uid: str
    study_instance_uid: str
    content: bytes
    status: int


def split(path: Path) -> tuple[str, bytes]:
    """(transfer syntax, bytes of the data set), whatever the file meta is worth."""
    whole = path.read_bytes()
    at = 132 if whole[128:132] == b"DICM" else 0
    syntax = IMPLICIT
    if path.name.startswith("ExplVR"):
        syntax = "1.2.840.10008.1.2.2" if "BigEnd" in path.name else EXPLICIT
    while whole[at : at + 2] == b"\x02\x00":
        long = whole[at + 4 : at + 6] in (b"OB", b"UN")
        (length,) = struct.unpack_from("<L" if long else "<H", whole, at + (8 if long else 6))
        start = at + (12 if long else 8)
        if whole[at : at + 4] == b"\x02\x00\x10\x00":
            syntax = whole[start : start + length].rstrip(b"\0 ").decode()
        at = start + length
    return syntax, whole[at:]


def store(node: Installation, path: Path, number: int) -> Sent:
    """C-STORE of a file's very bytes."""
    node.note(path)
    ds = pydicom.dcmread(path, force=True, stop_before_pixels=True)
    sop_class = str(ds.get("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"))
    uid = str(ds.get("SOPInstanceUID", f"1.2.826.0.1.3680043.8.498.77.{number}"))
    syntax, content = split(path)
    with Wire(node.dicom_port) as wire:
        wire.associate({1: (sop_class, [syntax])})
        wire.send_values(value(1, 0x03, store_command(sop_class, uid)))
        for at in range(0, len(content), 16000):
            wire.send_values(value(1, 0x02 if at + 16000 >= len(content) else 0, content[at : at + 16000]))
        status = wire.status()
        wire.send_pdu(0x05, bytes(4))
        assert wire.receive_pdu()[:1] == b"\x06"
    return Sent(
        sop_instance_uid=uid,
        study_instance_uid=str(ds.get("StudyInstanceUID", "")),
        content=content,
        status=status,
    )


@pytest.fixture(scope="module")
def sent(node: Installation) -> dict[str, Sent]:
    """Every file, each on an association of its own."""
    return {path.name: store(node, path, number) for number, path in enumerate(FILES)}


@pytest.mark.filterwarnings("ignore::UserWarning:pydicom")
@pytest.mark.parametrize("name", [path.name for path in FILES])
def test_each_file_is_kept_or_refused_with_a_reason(
    node: Installation, sent: dict[str, Sent], name: str
) -> None:
    file = sent[name]
    if name in NAMELESS:
        assert file.status == 0xC000
        words = f"0xC000 for {file.sop_instance_uid}: "
        until(lambda: [said for said in node.events("refused") if said.startswith(words)], words)
        return
    assert file.status == 0x0000
    # Its very bytes are in the spool and have a row, which a second file of the same UID has as well
    why = node.done(file.study_instance_uid)
    query = f"SELECT path FROM instances WHERE sop_instance_uid = '{file.sop_instance_uid}'"
    kept = [(node.folder / "data" / "spool" / path).read_bytes() for (path,) in node.rows(query)]
    assert [whole for whole in kept if whole.endswith(file.content)]
    # No model wants it, and each series has a reason
    assert why["jobs"] == []
    asked = {decision["series_instance_uid"]: decision for decision in why["decisions"]}
    assert set(asked) == {series["series_instance_uid"] for series in why["series"]}
    assert all(decision["reason"] and not decision["matched"] for decision in asked.values())


def test_nobody_minded(node: Installation, sent: dict[str, Sent]) -> None:
    assert node.process is not None and node.process.poll() is None
    said = node.run("why", sent["badVR.dcm"].study_instance_uid)
    assert said.returncode == 0 and "1 image in 1 series, and 1 kept aside" in said.stdout
    assert node.patients_in_log() == []
    assert "Traceback" not in node.log and "ended with" not in node.log


def test_names_in_every_character_set_come_back(node: Installation, pacs: Orthanc, tmp_path: Path) -> None:
    # Given a CT of each patient
    studies = {}
    for name in NAMES:
        source = pydicom.dcmread(_DATA / "charsets" / f"{name}.dcm")
        made = phantoms.datasets(Phantom(shape=(9, 32, 40)))
        for ds in made:
            for keyword in ("SpecificCharacterSet", "PatientName", "PatientID"):
                ds[keyword] = copy.deepcopy(source[keyword])
            ds.ReferringPhysicianName = ds.PatientName
        assert node.dcmsend(*phantoms.write(made, tmp_path / name)).returncode == 0
        studies[str(made[0].StudyInstanceUID)] = str(source.PatientName)
    # Then each result says the name as its images do
    for uid, patient in studies.items():
        (job,) = node.done(uid)["jobs"]
        assert job["state"] == "done", job["error"]
        for made_object in job["objects"]:
            path = tmp_path / f"{made_object['sop_instance_uid']}.dcm"
            path.write_bytes(pacs.file(made_object["sop_instance_uid"]))
            assert str(pydicom.dcmread(path).PatientName) == patient
    assert node.patients_in_log() == []
