"""The spool: what is durable, what is kept, what is set aside."""

from __future__ import annotations

import fcntl
import hashlib
import io
import logging
import multiprocessing
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite

from dicom_node import file_meta, stored_files
from dicom_node import incoming as incoming_module
from dicom_node.errors import DataSetError, SpoolFull
from dicom_node.file_meta import FileMetaTemplate
from dicom_node.header import BadUid
from dicom_node.incoming import WrongInstance
from dicom_node.instance import StoredInstance
from dicom_node.spool import Spool
from tests.support.phantoms import Phantom, datasets

EXPLICIT = "1.2.840.10008.1.2.1"


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool", watermark_bytes=0) as made:
        yield made


def image(**changes: object) -> Dataset:
    ds = datasets(Phantom(shape=(1, 16, 16)))[0]
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def data_set(ds: Dataset) -> bytes:
    """The bytes after the file meta."""
    buffer = io.BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    whole = buffer.getvalue()
    return whole[file_meta.decode(whole).data_offset :]


def store(spool: Spool, ds: Dataset, data: bytes | None = None) -> StoredInstance:
    return spool.store(
        data_set(ds) if data is None else data,
        sop_class_uid=ds.SOPClassUID,
        sop_instance_uid=ds.SOPInstanceUID,
        transfer_syntax_uid=EXPLICIT,
        source_ae_title="SENDER",
        association_id="a",
    )


def files(spool: Spool) -> list[str]:
    """Every file but the locks, relative to the root."""
    found = (path for path in spool.root.rglob("*") if path.is_file() and path.name != "lock")
    return sorted(str(path.relative_to(spool.root)) for path in found)


def test_stores_the_bytes_as_they_came_under_their_uids(spool: Spool) -> None:
    ds = image()
    data = data_set(ds)

    stored = store(spool, ds)

    assert stored.path == Path(ds.StudyInstanceUID, ds.SeriesInstanceUID, f"{ds.SOPInstanceUID}.dcm")
    assert files(spool) == [str(stored.path)]
    with spool.open(stored.path) as file:
        whole = file.read()
    meta = file_meta.decode(whole)
    assert whole[meta.data_offset :] == data
    assert stored.sha256 == hashlib.sha256(data).hexdigest() == meta.sha256
    assert stored.size == len(whole)
    assert (stored.duplicate, stored.conflicting, stored.association_id) == (False, False, "a")
    assert stored.received_at.tzinfo is UTC


def test_another_library_reads_the_file_meta(spool: Spool) -> None:
    ds = image()

    stored = store(spool, ds)

    read = pydicom.dcmread(spool.root / stored.path)
    assert read == ds
    assert read.file_meta.MediaStorageSOPClassUID == ds.SOPClassUID
    assert read.file_meta.MediaStorageSOPInstanceUID == ds.SOPInstanceUID
    assert read.file_meta.TransferSyntaxUID == EXPLICIT
    assert read.file_meta.SourceApplicationEntityTitle == "SENDER"
    length = read.file_meta.FileMetaInformationGroupLength
    assert 132 + 12 + length + len(data_set(ds)) == stored.size


def test_same_bytes_again_are_acknowledged_and_not_written(spool: Spool) -> None:
    ds = image()
    first = store(spool, ds)
    before = (spool.root / first.path).stat()

    again = store(spool, ds)

    assert (again.duplicate, again.conflicting, again.path) == (True, False, first.path)
    assert (again.sha256, again.size) == (first.sha256, first.size)
    after = (spool.root / first.path).stat()
    assert after.st_ino == before.st_ino
    # Whoever deletes old files sees that this one was received anew.
    assert after.st_mtime_ns > before.st_mtime_ns
    assert files(spool) == [str(first.path)]


def test_other_bytes_under_the_same_uid_go_beside_the_first(spool: Spool) -> None:
    # Given an instance, and another with its UID
    ds = image()
    first = store(spool, ds)
    content = (spool.root / first.path).read_bytes()
    ds.PatientID = "SOMEBODY-ELSE"

    other = store(spool, ds)
    other_again = store(spool, ds)

    # Then both are kept, the first one untouched
    assert (other.duplicate, other.conflicting) == (False, True)
    assert other.path != first.path
    assert (spool.root / first.path).read_bytes() == content
    assert pydicom.dcmread(spool.root / other.path).PatientID == "SOMEBODY-ELSE"
    assert (other_again.duplicate, other_again.conflicting, other_again.path) == (True, True, other.path)
    assert len(files(spool)) == 2


@pytest.mark.parametrize("damage", ["no file meta", "empty", "cut off", "one bit"])
def test_a_damaged_file_makes_room_for_the_instance_and_is_kept(spool: Spool, damage: str) -> None:
    ds = image()
    stored = store(spool, ds)
    path = spool.root / stored.path
    whole = path.read_bytes()
    damaged = {
        "no file meta": b"lost its content",
        "empty": b"",
        "cut off": whole[:-7],
        "one bit": whole[:-1] + bytes([whole[-1] ^ 1]),
    }[damage]
    path.write_bytes(damaged)
    os.utime(path, (0, 0))

    again = store(spool, ds)

    assert (again.duplicate, again.conflicting, again.path) == (False, False, stored.path)
    assert path.read_bytes() == whole
    [aside] = (spool.root / "partial").iterdir()
    assert aside.read_bytes() == damaged
    # It is kept from now on, however old the file was
    assert stored_files.prune_partial(spool.root, before=datetime.now(UTC) - timedelta(days=1)) == 0
    assert store(spool, ds).duplicate


def test_a_sound_file_that_replaced_a_damaged_one_meanwhile_stays(spool: Spool) -> None:
    ds = image()
    path = spool.root / store(spool, ds).path
    path.write_bytes(b"damaged")
    with path.open("rb") as seen:
        # Given another process that puts the damaged file right after this one saw it
        store(spool, ds)
        whole = path.read_bytes()
        spool._set_damaged_aside(seen, path)
    assert path.read_bytes() == whole


def test_large_instances_stream_through_a_file(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a buffer that holds a fraction of the data set
    ds = image(PixelData=os.urandom(100_000), Rows=250, Columns=200)
    data = data_set(ds)
    template = FileMetaTemplate(
        sop_class_uid=ds.SOPClassUID, transfer_syntax_uid=EXPLICIT, source_ae_title="SENDER"
    )
    incoming = spool.begin(template=template, sop_instance_uid=ds.SOPInstanceUID, buffer=bytearray(4096))

    incoming.write(data)
    partial = files(spool)
    stored = incoming.commit(sop_class_uid=ds.SOPClassUID, transfer_syntax_uid=EXPLICIT, association_id=None)

    # Then it went to a temporary file that nobody takes for an instance, and then to its place
    assert len(partial) == 1 and partial[0].startswith("incoming/") and partial[0].endswith(".part")
    whole = (spool.root / stored.path).read_bytes()
    assert whole[file_meta.decode(whole).data_offset :] == data
    assert file_meta.decode(whole).sha256 == stored.sha256 == hashlib.sha256(data).hexdigest()
    assert files(spool) == [str(stored.path)]

    # And the same one again leaves no copy behind
    again = spool.begin(template=template, sop_instance_uid=ds.SOPInstanceUID, buffer=bytearray(4096))
    again.write(data)
    assert again.commit(
        sop_class_uid=ds.SOPClassUID, transfer_syntax_uid=EXPLICIT, association_id=None
    ).duplicate
    assert files(spool) == [str(stored.path)]


def test_a_header_longer_than_the_buffer_is_found_in_the_file(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(incoming_module, "BUFFER_BYTES", 1024)
    ds = image(ImageComments="")
    ds.add_new(0x00091001, "OB", bytes(20_000))
    template = FileMetaTemplate(
        sop_class_uid=ds.SOPClassUID, transfer_syntax_uid=EXPLICIT, source_ae_title=""
    )
    incoming = spool.begin(template=template, sop_instance_uid=ds.SOPInstanceUID, buffer=bytearray(1024))

    incoming.write(data_set(ds))
    stored = incoming.commit(sop_class_uid=ds.SOPClassUID, transfer_syntax_uid=EXPLICIT, association_id=None)

    assert stored.series_instance_uid == ds.SeriesInstanceUID


def test_refuses_another_instance_than_announced(spool: Spool) -> None:
    ds = image()
    data = data_set(ds)
    ds.SOPInstanceUID = "1.2.3"

    with pytest.raises(WrongInstance, match="SOP Instance UID"):
        store(spool, ds, data)
    assert files(spool) == []


def test_refuses_another_class_than_announced(spool: Spool) -> None:
    ds = image()
    data = data_set(ds)
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.4"

    with pytest.raises(WrongInstance, match="SOP Class UID"):
        store(spool, ds, data)


def test_refuses_a_study_uid_with_a_path_in_it(spool: Spool) -> None:
    ds = image()
    uid = str(ds.StudyInstanceUID)
    evil = ("../" * 30)[: len(uid) - 1] + "x"

    with pytest.raises(BadUid):
        store(spool, ds, data_set(ds).replace(uid.encode(), evil.encode()))
    assert files(spool) == []


def test_full_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, watermark_bytes=1 << 62)

    with pytest.raises(SpoolFull):
        store(spool, image())
    assert files(spool) == []


def test_a_failed_disk_keeps_what_came(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given a disk that fails at the last moment
    def broken(descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)

    with pytest.raises(OSError, match="Input/output"):
        store(spool, image())

    # Then no final name exists, and the bytes were set aside
    assert [name.split("/")[0] for name in files(spool)] == ["partial"]
    assert list(stored_files.scan(spool.root)) == []


def test_scan_finds_all_and_changes_nothing(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    # Given two instances, a side file, and files that are none
    one, two = image(), image()
    stored = [store(spool, one), store(spool, two)]
    one.PatientID = "OTHER"
    stored.append(store(spool, one))
    rubbish = spool.root / "1.2" / "3.4" / "5.6.dcm"
    rubbish.parent.mkdir(parents=True)
    rubbish.write_bytes(b"no image")
    before = files(spool)

    with caplog.at_level(logging.WARNING):
        found = {instance.path: instance for instance in stored_files.scan(spool.root)}

    # Then each is described as it was when stored, but for the association
    assert set(found) == {instance.path for instance in stored}
    for instance in stored:
        known = found[instance.path]
        assert known.association_id is None
        assert (known.sha256, known.size, known.conflicting) == (
            instance.sha256,
            instance.size,
            instance.conflicting,
        )
        assert (known.study_instance_uid, known.patient_id, known.modality, known.transfer_syntax_uid) == (
            instance.study_instance_uid,
            instance.patient_id,
            instance.modality,
            instance.transfer_syntax_uid,
        )
    # and to the very microsecond, so that a report and a scan of one file are known to be of one file
    first, untouched, beside = (found[instance.path] for instance in stored)
    assert (untouched.received_at, beside.received_at) == (stored[1].received_at, stored[2].received_at)
    # but for the file that was looked at again when other bytes came; it still is the earlier one
    assert stored[0].received_at < first.received_at < beside.received_at
    assert list(found).index(first.path) < list(found).index(beside.path)
    assert "1.2/3.4/5.6.dcm" in caplog.text
    assert files(spool) == before


def test_scan_computes_a_digest_that_another_program_did_not_leave(spool: Spool) -> None:
    ds = image()
    path = spool.root / ds.StudyInstanceUID / ds.SeriesInstanceUID / f"{ds.SOPInstanceUID}.dcm"
    path.parent.mkdir(parents=True)
    ds.save_as(path, enforce_file_format=True)

    (found,) = stored_files.scan(spool.root)

    assert found.sha256 == hashlib.sha256(data_set(ds)).hexdigest()


def _leave_unfinished(root: str) -> None:
    """Die in the middle of an instance."""
    spool = Spool(Path(root), watermark_bytes=0)
    template = FileMetaTemplate(sop_class_uid="1.2", transfer_syntax_uid=EXPLICIT, source_ae_title="")
    incoming = spool.begin(template=template, sop_instance_uid="1.2.3", buffer=bytearray(512))
    incoming.write(bytes(4096))
    os._exit(9)


def test_what_a_dead_process_left_is_set_aside(tmp_path: Path) -> None:
    # Given a living process with an instance in hand, and one that died with one
    living = Spool(tmp_path, watermark_bytes=0)
    template = FileMetaTemplate(sop_class_uid="1.2", transfer_syntax_uid=EXPLICIT, source_ae_title="")
    in_hand = living.begin(template=template, sop_instance_uid="1.2.4", buffer=bytearray(512))
    in_hand.write(bytes(4096))
    process = multiprocessing.get_context("spawn").Process(target=_leave_unfinished, args=(str(tmp_path),))
    process.start()
    process.join(60)
    assert len([name for name in files(living) if name.startswith("incoming/")]) == 2

    another = Spool(tmp_path, watermark_bytes=0)

    # Then only the dead one's is moved, nothing is deleted, and a scan sees neither
    names = files(another)
    assert len([name for name in names if name.startswith("partial/")]) == 1
    assert len([name for name in names if name.startswith("incoming/")]) == 1
    assert list(stored_files.scan(another.root)) == []
    in_hand.set_aside()
    living.close()
    another.close()
    assert list((tmp_path / "incoming").iterdir()) == []


def _race(root: str, data: bytes, uids: tuple[str, str], barrier: object, results: object) -> None:
    spool = Spool(Path(root), watermark_bytes=0)
    barrier.wait()  # type: ignore[attr-defined]
    stored = spool.store(data, sop_class_uid=uids[0], sop_instance_uid=uids[1], transfer_syntax_uid=EXPLICIT)
    results.put((stored.sha256, stored.duplicate, stored.conflicting))  # type: ignore[attr-defined]
    spool.close()


@pytest.mark.parametrize("same", [True, False], ids=["same bytes", "other bytes"])
def test_two_processes_store_one_uid_at_once(tmp_path: Path, same: bool) -> None:
    ds = image()
    first = data_set(ds)
    ds.PatientID = "PHANTOM-1" if same else "PHANTOM-2"
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    uids = (str(ds.SOPClassUID), str(ds.SOPInstanceUID))
    processes = [
        context.Process(target=_race, args=(str(tmp_path), data, uids, barrier, results))
        for data in (first, data_set(ds))
    ]
    for process in processes:
        process.start()
    answers = sorted(results.get(timeout=60)[1:] for _ in processes)
    for process in processes:
        process.join(60)

    # Then one of them was first, and the other knows that it was not; no bytes are lost
    assert answers == ([(False, False), (True, False)] if same else [(False, False), (False, True)])
    spool = Spool(tmp_path, watermark_bytes=0)
    assert len(list(stored_files.scan(spool.root))) == (1 if same else 2)
    spool.close()


def test_a_folder_that_vanished_is_made_again(spool: Spool) -> None:
    ds = image()
    stored = store(spool, ds)
    (spool.root / stored.path).unlink()
    (spool.root / stored.path.parent).rmdir()

    assert not store(spool, ds).duplicate
    assert (spool.root / stored.path).exists()


def test_bytes_that_are_no_data_set_leave_nothing(spool: Spool) -> None:
    with pytest.raises(DataSetError):
        store(spool, image(), b"not DICOM at all" * 100)
    assert files(spool) == []


def test_a_folder_that_another_process_takes_for_a_dead_one_s_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given another process that starts at the same moment and removes our folder before it is locked
    locked = fcntl.flock
    removed: list[Path] = []

    def late(descriptor: int, operation: int) -> None:
        if not removed:
            (folder,) = (tmp_path / "incoming").iterdir()
            (folder / "lock").unlink()
            folder.rmdir()
            removed.append(folder)
        locked(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    # When the spool is opened, then it works all the same
    with Spool(tmp_path, watermark_bytes=0) as spool:
        assert not store(spool, image()).duplicate
    assert len(removed) == 1
