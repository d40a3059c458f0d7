"""Stored files: what is old goes, what came anew stays, whoever does what at the same moment."""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from dicom_node import spool as spool_module
from dicom_node import stored_files
from dicom_node.errors import SpoolFull
from dicom_node.file_meta import FileMetaTemplate
from dicom_node.incoming import BUFFER_BYTES
from dicom_node.spool import Spool
from tests.dicom_node.test_spool import EXPLICIT, files, image, store

HOUR = timedelta(hours=1)
AGO = datetime.now(UTC) - HOUR


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool", watermark_bytes=0) as made:
        yield made


def age(path: Path, at: datetime = AGO) -> None:
    """Let a file be as old as this."""
    os.utime(path, (at.timestamp(), at.timestamp()))


def test_an_old_file_is_removed_with_the_folders_that_it_leaves_empty(spool: Spool) -> None:
    stored = store(spool, image())
    path = spool.root / stored.path
    age(path)
    newest = stored_files.newest_change([path, spool.root / "never there"])
    assert newest is not None
    assert stored_files.remove(path, unchanged_since=newest)
    stored_files.tidy(spool.root, [path.parent])
    assert list(stored_files.scan(spool.root)) == []
    assert not path.parent.parent.exists()
    # Again, after a crash
    assert stored_files.remove(path, unchanged_since=newest)
    stored_files.tidy(spool.root, [path.parent])


def test_a_file_that_came_again_stays(spool: Spool) -> None:
    """Its sender was told that it is safe, because the file was there."""
    ds = image()
    path = spool.root / store(spool, ds).path
    age(path)
    doomed = stored_files.newest_change([path])
    assert doomed is not None
    assert store(spool, ds).duplicate
    assert not stored_files.remove(path, unchanged_since=doomed)
    assert store(spool, ds).duplicate


def test_a_file_deleted_while_it_comes_again_is_stored_anew(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a listener that has read the old file to its end and finds the very same bytes
    ds = image()
    path = spool.root / store(spool, ds).path
    age(path)
    original = fcntl.flock

    def deleted_first(descriptor: int, how: int) -> None:
        if how == fcntl.LOCK_SH and path.exists():
            # When it is deleted between the listener's opening it and its lock
            path.unlink()
        original(descriptor, how)

    monkeypatch.setattr(spool_module.fcntl, "flock", deleted_first)
    again = store(spool, ds)
    # Then the image is written anew, and not called a duplicate of what is gone
    assert not again.duplicate
    assert path.exists()


def test_who_deletes_waits_for_who_receives_again(spool: Spool) -> None:
    ds = image()
    path = spool.root / store(spool, ds).path
    age(path)
    doomed = stored_files.newest_change([path])
    assert doomed is not None
    answers: list[bool] = []
    with path.open("rb") as file:
        fcntl.flock(file.fileno(), fcntl.LOCK_SH)
        deleting = threading.Thread(
            target=lambda: answers.append(stored_files.remove(path, unchanged_since=doomed))
        )
        deleting.start()
        deleting.join(0.3)
        assert deleting.is_alive()
        assert stored_files.received_again(file, path)
    deleting.join(30)
    assert answers == [False]
    assert path.exists()


def test_a_folder_that_is_removed_again_and_again_is_made_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    original, removed = Spool._make_folder, []

    def made_and_removed(self: Spool, folder: Path) -> None:
        original(self, folder)
        if len(removed) < 3:
            removed.append(folder)
            stored_files.tidy(self.root, [folder])

    monkeypatch.setattr(Spool, "_make_folder", made_and_removed)
    stored = store(spool, image())
    assert len(removed) == 3
    assert (spool.root / stored.path).exists()


def test_a_folder_that_another_process_made_anew_is_made_durable_again(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one may die before it synced the folder's name."""
    # Given a process that holds a folder for durable
    ds = image()
    path = spool.root / store(spool, ds).path
    folder = path.parent
    # When the folder is removed, and made by another process that has not synced it
    path.unlink()
    stored_files.tidy(spool.root, [folder])
    folder.mkdir(parents=True)
    synced: list[Path] = []
    original = stored_files.sync_folder
    monkeypatch.setattr(stored_files, "sync_folder", lambda one: (synced.append(one), original(one))[1])
    store(spool, ds)
    # Then this one makes its name durable before it says that the file is safe
    assert {folder, folder.parent, spool.root} <= set(synced)
    synced.clear()
    ds.SOPInstanceUID = "1.2.3.4"
    store(spool, ds)
    assert set(synced) == {folder}


def test_what_is_in_hand_counts_against_the_watermark(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given room for two buffers above the watermark
    class Disk:
        f_frsize = 1
        f_bavail = 10 * BUFFER_BYTES

    monkeypatch.setattr(spool_module.os, "statvfs", lambda _: Disk)
    spool._watermark_bytes = 8 * BUFFER_BYTES
    template = FileMetaTemplate(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2", transfer_syntax_uid=EXPLICIT, source_ae_title="A"
    )
    begun = [spool.begin(template=template, sop_instance_uid=f"1.2.{n}") for n in (1, 2)]
    # Then a third instance is refused at once, until one of the two has ended
    with pytest.raises(SpoolFull):
        spool.begin(template=template, sop_instance_uid="1.2.3")
    begun[0].set_aside()
    begun[0].set_aside()
    begun.append(spool.begin(template=template, sop_instance_uid="1.2.3"))
    with pytest.raises(SpoolFull):
        spool.begin(template=template, sop_instance_uid="1.2.4")


def test_what_did_not_fit_is_not_kept(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    ds = image()
    template = FileMetaTemplate(
        sop_class_uid=str(ds.SOPClassUID), transfer_syntax_uid=EXPLICIT, source_ae_title="A"
    )
    begun = spool.begin(template=template, sop_instance_uid=str(ds.SOPInstanceUID))
    begun.write(bytes(3 * BUFFER_BYTES))
    assert any("incoming" in name for name in files(spool))
    begun.set_aside(keep=False)
    assert files(spool) == []


def test_prune_deletes_only_what_is_old(spool: Spool) -> None:
    old, new = spool.root / "partial" / "a.part", spool.root / "partial" / "b.part"
    damaged = spool.root / "partial" / "c.damaged"
    for path in (old, new, damaged):
        path.write_bytes(b"x")
    now = datetime.now(UTC)
    age(old, now - timedelta(days=8))
    assert stored_files.prune_partial(spool.root, before=now - timedelta(days=7)) == 1
    assert not old.exists() and new.exists()
    # For want of space, all that was never acknowledged goes
    assert stored_files.prune_partial(spool.root, before=now, pattern="*.part") == 1
    assert damaged.exists()
