"""A real disk that fills: images are refused before the reserve is touched, and nothing is lost beyond that."""

from __future__ import annotations

import os
import pkgutil
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from unittest import mock

import pytest
from pydicom.dataset import Dataset

from db import models
from db.base import Database
from dicom_node.errors import SpoolFull
from dicom_node.file_meta import FileMetaTemplate
from dicom_node.results import files
from dicom_node.spool import Spool
from tests.engines import build
from tests.support import disks
from tests.support.disks import MEGABYTE
from tests.support.listening import data_set_bytes
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from worker import outcomes
from worker.shelf import Shelf

RESERVE = 24 * MEGABYTE
#: An output whose second label has its probability given.
PROBABLE = {"name": "logits", "labels": [build.label(1, "body"), build.label(2, "bone", probability=True)]}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 MB."""
    with disks.small_disk(tmp_path / "disk", 64) as mounted:
        yield mounted


@pytest.fixture
def small(disk: Path, shelf: Shelf, migrated_file: Path) -> Iterator[Journey]:
    """An installation whose images, results and database are all on the small disk."""
    path = shutil.copy(migrated_file, disk / "secondread.db")
    with Database(f"sqlite:///{path}") as database:
        yield Journey(database=database, storage=disk, shelf=shelf)


class Lowest:
    """The least free space while the block runs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.seen = disks.free(folder)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def _look(self) -> None:
        while not self._ended.is_set():
            self.seen = min(self.seen, disks.free(self._folder))
            time.sleep(0.0005)

    def __enter__(self) -> Lowest:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def _send(spool: Spool, number: int, size: int, answers: list[str]) -> None:
    """One association's instances, 1 MB at a time, each beginning like an image."""
    template = FileMetaTemplate(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        source_ae_title="A",
    )
    for turn in range(6):
        incoming = None
        keep = False
        try:
            incoming = spool.begin(template=template, sop_instance_uid=f"1.2.{number}.{turn}")
            for _ in range(size // MEGABYTE):
                incoming.write(secrets.token_bytes(MEGABYTE))
            incoming._sync()
            keep = True
            answers.append("stored")
        except SpoolFull:
            answers.append("refused")
        finally:
            if incoming is not None:
                incoming.set_aside(keep=keep)


def test_many_large_images_at_once_leave_the_reserve(disk: Path) -> None:
    answers: list[str] = []
    with Spool(disk / "spool", watermark_bytes=RESERVE) as spool, Lowest(disk) as lowest:
        senders = [
            threading.Thread(target=_send, args=(spool, number, 6 * MEGABYTE, answers))
            for number in range(20)
        ]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join()
    assert answers.count("refused") > 20 and answers.count("stored") >= 3
    # What is in hand counts: not even for a moment is the reserve touched
    assert lowest.seen >= RESERVE - 256 * 1024
    # What was refused in its middle takes no space
    left = sum(path.stat().st_size for path in (disk / "spool" / "partial").iterdir())
    assert left == pytest.approx(answers.count("stored") * 6 * MEGABYTE, rel=0.01)


def test_results_and_rows_are_written_where_images_are_refused(small: Journey) -> None:
    # Given a disk on which images are refused
    job_ids = small.arrive(journeys.datasets())
    with (small.storage / "filler").open("wb") as filler:
        filler.write(bytes(disks.free(small.storage) - RESERVE + MEGABYTE))
    with Spool(small.storage / "spool", watermark_bytes=RESERVE) as spool, pytest.raises(SpoolFull):
        spool.require_room()
    # Then the answer is still computed, written and sent
    small.follow(job_ids)
    assert small.job().state == "done"
    assert len(small.sent()) == 2


@pytest.mark.parametrize("full_in", ["results", "pictures", "rows"])
def test_a_disk_that_is_full_to_the_last_byte_only_delays(
    small: Journey, monkeypatch: pytest.MonkeyPatch, full_in: str
) -> None:
    """The first error is the disk's own, wherever it comes."""
    monkeypatch.setattr(outcomes, "DATABASE_PATIENCE", outcomes.DATABASE_WAIT / 2)
    (job_id,) = small.arrive(journeys.datasets())
    filler = small.storage / "filler"
    target = {
        "results": "worker.pipeline.dicom_results.make_results",
        "pictures": "worker.pipeline.pictures.draw",
        "rows": "worker.outcomes.results.replace_findings",
    }[full_in]
    with Before(target, lambda: disks.fill(filler)):
        try:
            small.analyse(job_id)
        except Exception as error:  # noqa: BLE001 - the task's part, as worker.tasks plays it
            assert "disk" in str(error), error
            outcomes.wait_for_database(small.bench, job_id)
    assert disks.free(small.storage) < MEGABYTE
    filler.unlink()
    # When there is space again
    small.recover()
    # Then the job has its one answer, and nobody had to do anything
    assert small.job().state == "done"
    assert len({sent.sop_instance_uid for sent in small.sent()}) == 2


@pytest.mark.parametrize(("kind", "keyword"), [("seg", "PixelData"), ("parametric-map", "FloatPixelData")])
def test_a_disk_that_fills_in_the_middle_of_an_object_only_delays(
    small: Journey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, keyword: str
) -> None:
    """Also in the middle of its pixels, which pydicom writes past every buffer and whose error it replaces."""
    journeys.write_model(tmp_path / "models" / "tiny", outputs=[PROBABLE], results=[kind])
    monkeypatch.setattr(outcomes, "STORAGE_WAIT", timedelta(0))
    filler, write = small.storage / "filler", files.write

    def filled(ds: Dataset, path: Path) -> None:
        disks.fill(filler)
        os.truncate(filler, filler.stat().st_size - len(ds[keyword].value) * 3 // 4)
        write(ds, path)

    with closing(Shelf([tmp_path / "models"], threads=1)) as small.shelf:
        (job_id,) = small.arrive(journeys.datasets(shape=(8, 512, 512)))
        with monkeypatch.context() as filling:
            filling.setattr(files, "write", filled)
            assert small.analyse(job_id) == []
        [job] = small.rows(models.Job)
        assert (job.state, job.reason, job.attempts) == ("queued", "storage", 0)
        assert job.error == "the storage does not work: No space left on device"
        # Nothing of the object stays behind, and nobody is told of an attempt
        assert list((small.storage / "results").rglob("*dcm*")) == []
        assert small.rows(models.Event) == []
        filler.unlink()
        small.recover()
    assert (small.job().state, small.job().attempts) == ("done", 1)


def test_a_failure_is_announced_when_there_is_space_again(small: Journey) -> None:
    small.routes = [journeys.route(announce_to=("pacs",))]
    made = journeys.datasets()
    small.run(made[:2] + made[3:])
    filler = small.storage / "filler"
    disks.fill(filler)
    small.announce()
    [job] = small.rows(models.Job)
    assert (job.state, job.unannounced, job.notes, small.sent()) == ("failed", True, None, [])
    filler.unlink()
    small.announce()
    [job] = small.rows(models.Job)
    assert (job.unannounced, len(small.sent())) == (False, 1)


def test_what_was_acknowledged_before_the_disk_was_full_gets_its_rows_after(small: Journey) -> None:
    stored = small.store(journeys.datasets())
    filler = small.storage / "filler"
    disks.fill(filler)
    # The database takes what fits, or nothing of it
    many = [
        replace(
            one, path=Path(f"1.2/1.2/{number}.dcm"), sop_instance_uid=f"1.2.{number}", patient_id="X" * 60
        )
        for number in range(5000)
        for one in stored[:1]
    ]
    with pytest.raises(Exception, match="disk"):
        small.receive(many)
    assert small.rows(models.Instance) == []
    # An image is refused by the disk itself then, and leaves nothing
    with pytest.raises((OSError, SpoolFull)):
        small.store([_large()], association=None)
    filler.unlink()
    small.receive(stored)
    small.follow(small.close())
    assert small.job().state == "done"


def _large() -> object:
    ds = journeys.datasets(shape=(1, 1024, 1024))[0]
    assert len(data_set_bytes(ds)) > MEGABYTE
    return ds


class Before:
    """While the block runs, something happens once before each call of `target`."""

    def __init__(self, target: str, act: Callable[[], None]) -> None:
        original = pkgutil.resolve_name(target)

        def call(*args: object, **kwargs: object) -> object:
            act()
            return original(*args, **kwargs)

        self._patch = mock.patch(target, side_effect=call)

    def __enter__(self) -> None:
        self._called = self._patch.start()

    def __exit__(self, *_: object) -> None:
        self._patch.stop()
        assert self._called.called
