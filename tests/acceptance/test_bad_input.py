"""Bad input over DICOM to a running installation: a stored reason for each, and nobody else notices."""

from __future__ import annotations

import copy
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from tests.acceptance.installation import Installation, until
from tests.support import phantoms
from tests.support.listening import CT, EXPLICIT, Wire, data_set_bytes, store_command, value
from tests.support.orthanc import Orthanc
from tests.support.phantoms import Phantom

pytestmark = [pytest.mark.peer("dcmtk"), pytest.mark.peer("orthanc")]


def patient(number: int) -> dict[str, str]:
    """A patient that no log may name."""
    return {"patient_id": f"BADINPUT-{number:04d}", "patient_name": f"Unfortunate{number}^Berta"}


@pytest.fixture(scope="module", autouse=True)
def good_studies(node: Installation, pacs: Orthanc) -> Iterator[dict[str, str]]:
    """Good studies that arrived around the bad input; in the end each has its results, whole."""
    sent: dict[str, str] = {}
    yield sent
    finished = {uid: node.done(uid) for uid in sent}
    held = pacs.instances()
    for uid, why in finished.items():
        done = [job for job in why["jobs"] if job["state"] == "done"]
        assert why["study"]["instances"] == 12 and done, sent[uid]
        assert {one["sop_instance_uid"] for one in done[-1]["objects"]} <= set(held), sent[uid]
    assert node.patients_in_log() == []


@pytest.fixture(autouse=True)
def surrounded(
    node: Installation, good_studies: dict[str, str], tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[None]:
    """Half of a good study arrives before the bad input, half of it after."""
    made = phantoms.datasets(Phantom(patient_id="GOOD-STUDY-1", patient_name="Wellbeing^Gerda"))
    files = phantoms.write(made, tmp_path / "good")
    half = len(files) // 2
    assert node.dcmsend(*files[:half]).returncode == 0
    yield
    assert node.process is not None and node.process.poll() is None
    assert node.dcmsend(*files[half:]).returncode == 0
    good_studies[str(made[0].StudyInstanceUID)] = request.node.name


def new_event(node: Installation, kind: str, words: str, act: Callable[[], object]) -> str:
    """The event of this kind with these words that `act` brought about."""
    before = node.events(kind).count
    counted = {message: before(message) for message in node.events(kind)}
    act()

    def come() -> list[str]:
        now = node.events(kind)
        return [said for said in now if words in said and now.count(said) > counted.get(said, 0)]

    found: list[str] = until(come, f"an event {kind} with {words!r}; there are {node.events(kind)}")
    return found[0]


def c_store(node: Installation, uid: str, content: bytes, *, good: Dataset | None = None) -> list[int]:
    """Statuses of a C-STORE of these bytes, and of a good image after it on the same association."""
    with Wire(node.dicom_port) as wire:
        wire.associate({1: (CT, [EXPLICIT])})
        wire.send_values(value(1, 0x03, store_command(CT, uid)), value(1, 0x02, content))
        statuses = [wire.status()]
        if good is not None:
            wire.send_values(
                value(1, 0x03, store_command(CT, good.SOPInstanceUID)), value(1, 0x02, data_set_bytes(good))
            )
            statuses.append(wire.status())
        release(wire)
    return statuses


def release(wire: Wire) -> None:
    """A-RELEASE, and its answer."""
    wire.send_pdu(0x05, bytes(4))
    assert wire.receive_pdu()[:1] == b"\x06"


# Bytes that are no data set


@pytest.mark.parametrize(
    ("name", "uid", "content", "status", "words"),
    [
        ("text", "1.2.3.4", b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n" * 40, 0xC000, "0xC000 for 1.2.3.4"),
        ("zeros", "1.2.3.5", bytes(5000), 0xC000, "0xC000 for 1.2.3.5"),
        ("empty", "1.2.3.6", b"", 0xC000, "0xC000 for 1.2.3.6"),
        ("path", "../../../../tmp/owned", b"", 0xC001, "0xC001 for an object"),
    ],
)
def test_what_is_no_data_set_is_refused_and_why_says_so(
    node: Installation, name: str, uid: str, content: bytes, status: int, words: str
) -> None:
    made = phantoms.datasets(Phantom(shape=(1, 32, 40), **patient(1)))
    sent = content or (data_set_bytes(made[0]) if name == "path" else b"")
    assert c_store(node, uid, sent, good=made[0]) == [status, 0x0000]
    # It is kept with the association, so that the study that came with it can tell
    why = node.done(str(made[0].StudyInstanceUID))
    assert [event["kind"] for event in why["events"]].count("refused") == 1
    assert words in why["events"][0]["message"]
    assert "/tmp/owned" not in why["events"][0]["message"]
    assert words in node.run("why", str(made[0].StudyInstanceUID)).stdout
    assert not Path("/tmp/owned").exists()


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID"])
def test_a_path_in_another_uid_is_refused(node: Installation, keyword: str, tmp_path: Path) -> None:
    made = phantoms.datasets(Phantom(shape=(1, 32, 40), **patient(2)))[0]
    content = data_set_bytes(made)
    uid = str(made[keyword].value).encode()
    evil = b"../../../../tmp/owned".ljust(len(uid) + len(uid) % 2, b"\0")[: len(uid)]
    assert content.count(uid) == 1
    sent = content.replace(uid, evil)
    statuses: list[int] = []
    new_event(
        node,
        "refused",
        f"0xC001 for {made.SOPInstanceUID}",
        lambda: statuses.extend(c_store(node, made.SOPInstanceUID, sent)),
    )
    assert statuses == [0xC001]


def test_a_data_set_cut_off_before_its_uids_is_refused(node: Installation) -> None:
    made = phantoms.datasets(Phantom(shape=(1, 32, 40), **patient(3)))[0]
    content = data_set_bytes(made)
    cut = content[: content.index(str(made.StudyInstanceUID).encode()) - 8]
    statuses: list[int] = []
    new_event(
        node,
        "refused",
        f"0xC000 for {made.SOPInstanceUID}",
        lambda: statuses.extend(c_store(node, made.SOPInstanceUID, cut)),
    )
    assert statuses == [0xC000]


def test_pixels_cut_off_fail_the_job_with_a_reason(node: Installation) -> None:
    # Given a study of which one slice lost its last bytes at the sender
    made = phantoms.datasets(Phantom(**patient(4)))
    with Wire(node.dicom_port) as wire:
        wire.associate({1: (CT, [EXPLICIT])})
        for number, ds in enumerate(made):
            content = data_set_bytes(ds)
            sent = content[:-1000] if number == 5 else content
            wire.send_values(value(1, 0x03, store_command(CT, ds.SOPInstanceUID)), value(1, 0x02, sent))
            # It has what names it: refusing would lose what may be all there is
            assert wire.status() == 0
        release(wire)
    (job,) = node.done(str(made[0].StudyInstanceUID))["jobs"]
    assert (job["state"], job["reason"]) == ("failed", "truncated")
    assert "Send the series again" in job["error"]


# Callers who may not


@pytest.mark.parametrize(
    ("calling", "called", "answer", "words"),
    [
        ("SCANNER", "SOMEWHERE", "Called AE Title Not Recognized", "SCANNER at 127.0.0.1 was rejected"),
        ("STRANGER", "SECONDREAD", "Calling AE Title Not Recognized", "STRANGER at 127.0.0.1 was rejected"),
    ],
)
def test_who_may_not_call_stores_nothing(
    node: Installation, tmp_path: Path, calling: str, called: str, answer: str, words: str
) -> None:
    made = phantoms.datasets(Phantom(shape=(2, 32, 40), **patient(5)))
    files = phantoms.write(made, tmp_path / "files")
    node.note(*files)
    said: list[str] = []

    def send() -> None:
        program = node.sender("storescu", "-v", calling=calling)
        program[program.index("SECONDREAD")] = called
        done = node.tell(*program, *files)
        assert done.returncode != 0
        said.append(done.stderr + done.stdout)

    new_event(node, "rejected", words, send)
    assert answer in said[0]
    assert node.why(str(made[0].StudyInstanceUID)) == {}
    assert list(node.folder.glob(f"data/spool/{made[0].StudyInstanceUID}")) == []


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\nHost: pacs\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
        b"",
    ],
    ids=["http", "tls", "nothing"],
)
def test_who_speaks_no_dicom_is_let_go(node: Installation, content: bytes) -> None:
    with socket.create_connection(("127.0.0.1", node.dicom_port), timeout=20) as stranger:
        stranger.sendall(content)
        if not content:
            return
        # An A-ABORT at most, and the end of the connection
        answer = b"".join(iter(lambda: stranger.recv(4096), b""))
        assert answer[:1] in (b"", b"\x07")


# Studies that no model may have


def leaves(trace: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The tests of a trace."""
    for child in trace.get("children", ()):
        yield from leaves(child)
    if "children" not in trace:
        yield trace


def two_patients(made: list[Dataset]) -> list[Dataset]:
    """A second patient among the images of the first."""
    for ds in made[6:]:
        ds.PatientID = "BADINPUT-0666"
    return made


def no_modality(made: list[Dataset]) -> list[Dataset]:
    """Nobody says what made the images."""
    for ds in made:
        del ds.Modality
    return made


def one_slice(made: list[Dataset]) -> list[Dataset]:
    """The first of them only."""
    return made[:1]


def repeated(made: list[Dataset]) -> list[Dataset]:
    """Two unlike slices at one place."""
    again = copy.deepcopy(made[4])
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    again.PixelData = made[0].PixelData[::-1]
    return [*made, again]


def missing(made: list[Dataset]) -> list[Dataset]:
    """No slice at one place."""
    return made[:5] + made[6:]


def localizer(made: list[Dataset]) -> list[Dataset]:
    """A scout among the axials."""
    first = made[0]
    uids = {"study_uid": first.StudyInstanceUID, "series_uid": first.SeriesInstanceUID}
    who = {"patient_id": first.PatientID, "patient_name": str(first.PatientName)}
    (scout,) = phantoms.datasets(Phantom(shape=(1, 64, 40), orientation=phantoms.CORONAL, **uids, **who))
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    scout.FrameOfReferenceUID = first.FrameOfReferenceUID
    return [*made, scout]


SPOILT = (two_patients, no_modality, one_slice, repeated, missing, localizer)


@pytest.fixture(scope="module")
def spoilt(node: Installation, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Study Instance UIDs of the spoilt studies, all sent at once."""
    uids = {}
    for number, spoil in enumerate(SPOILT, start=10):
        made = spoil(phantoms.datasets(Phantom(**patient(number))))
        sent = node.storescu(*phantoms.write(made, tmp_path_factory.mktemp(spoil.__name__)))
        assert sent.returncode == 0, sent.stderr
        uids[spoil.__name__] = str(made[0].StudyInstanceUID)
    return uids


def test_two_patients_under_one_study(node: Installation, spoilt: dict[str, str]) -> None:
    why = node.done(spoilt["two_patients"])
    assert "2 different Patient IDs" in why["study"]["problem"]
    (job,) = why["jobs"]
    assert (job["state"], job["reason"], job["objects"]) == ("skipped", "study-problem", [])
    assert "2 different Patient IDs" in node.run("why", spoilt["two_patients"]).stdout


def test_modality_missing(node: Installation, spoilt: dict[str, str]) -> None:
    why = node.done(spoilt["no_modality"])
    assert why["jobs"] == []
    (decision,) = why["decisions"]
    (leaf,) = [leaf for leaf in leaves(decision["trace"]) if leaf["subject"] == "Modality"]
    assert (decision["matched"], leaf["value"], leaf["verdict"]) == (False, None, False)
    said = node.run("why", spoilt["no_modality"]).stdout
    assert "Modality missing" in said and "missing" in said.replace("Modality missing", "")


def test_one_slice_only(node: Installation, spoilt: dict[str, str]) -> None:
    why = node.done(spoilt["one_slice"])
    assert why["jobs"] == []
    (decision,) = why["decisions"]
    found = {leaf["subject"]: leaf for leaf in leaves(decision["trace"])}
    counted = found["NumberOfSeriesRelatedInstances"]
    assert (decision["matched"], counted["value"], counted["verdict"]) == (False, 1, False)
    assert "NumberOfSeriesRelatedInstances" in decision["reason"]


@pytest.mark.parametrize(
    ("name", "reason", "words"),
    [
        ("repeated", "repeated-position", "more than one image"),
        ("missing", "missing-slice", "1 slice is missing"),
    ],
)
def test_slices_that_repeat_or_miss_a_position(
    node: Installation, spoilt: dict[str, str], name: str, reason: str, words: str
) -> None:
    (job,) = node.done(spoilt[name])["jobs"]
    assert (job["state"], job["reason"], job["objects"]) == ("failed", reason, [])
    assert words in job["error"]
    assert words in " ".join(node.run("why", spoilt[name]).stdout.split())


def test_a_localizer_among_axials_is_set_aside(node: Installation, spoilt: dict[str, str]) -> None:
    (job,) = node.done(spoilt["localizer"])["jobs"]
    assert (job["state"], len(job["objects"])) == ("done", 2)
    assert "1 localizer image set aside" in job["notes"]
