"""A warm worker: models stay open while there is room, and a series is read once for all its models."""

from __future__ import annotations

import gc
import logging
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dicom_node import series as dicom_series
from tests.worker import journey as journeys
from tests.worker.journey import Journey
from worker.lightbox import LightBox
from worker.series_files import Files
from worker.shelf import Shelf

NAMES = ("a", "b", "c")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Three packages."""
    for name in NAMES:
        journeys.write_model(tmp_path / "models" / name, name=name)
    return tmp_path / "models"


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many files each reading of a series had."""
    counted: list[int] = []
    real = dicom_series.read_series

    def read(paths: Any, **how: Any) -> Any:
        counted.append(len(paths))
        return real(paths, **how)

    monkeypatch.setattr(dicom_series, "read_series", read)
    return counted


def test_the_second_job_of_a_worker_loads_nothing(
    journey: Journey, models: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    journey.shelf = Shelf([models], threads=1)
    journey.routes = [journeys.route(run=("a",))]
    first, second = journeys.datasets(), journeys.datasets(study_uid="1.2.72", series_uid="1.2.72.1")
    journey.run(first)
    journey.run(second)
    (cold,), (warm,) = journey.why().jobs, journey.why("1.2.72").jobs
    assert (cold.state, warm.state) == ("done", "done")
    assert cold.seconds["load"] > warm.seconds["load"]
    assert [record.args[0] for record in caplog.records if "is loaded on" in record.msg] == ["a"]  # type: ignore[index]
    journey.shelf.close()


@pytest.fixture
def small(models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shelf]:
    """A shelf with room for two models, of which each takes 1 MB."""
    resident = iter(range(0, 10**9, 2**20))
    monkeypatch.setattr("worker.machine.resident_bytes", lambda: next(resident))
    opened = Shelf([models], threads=1, megabytes=2.5)
    yield opened
    opened.close()


def test_the_model_that_was_not_used_for_longest_makes_room(small: Shelf) -> None:
    first = small.runner("a")
    small.runner("b")
    assert small.warm == ("a", "b") and not small.is_full
    assert small.runner("a") is first
    small.runner("c")
    assert small.warm == ("a", "c")
    # What was closed is opened again when it is wanted
    small.runner("b")
    assert small.warm == ("c", "b")


def test_a_model_in_use_is_never_closed(small: Shelf) -> None:
    with small.at_work():
        runners = [small.runner(name) for name in NAMES]
        assert small.warm == NAMES and small.is_full
        # Each still answers: a closed one would raise
        for runner in runners:
            runner.infer({"image": np.zeros((1, 1, 8, 16, 16), np.float32)})
    # Afterwards the budget holds again
    assert small.warm == ("b", "c")


def test_one_model_that_is_larger_than_the_room_is_open_alone(models: Path) -> None:
    shelf = Shelf([models], threads=1, megabytes=0.0001)
    for name in NAMES:
        shelf.runner(name)
        assert shelf.warm == (name,) and shelf.is_full
    shelf.close()


def _together(journey: Journey, models: Path, lightbox: LightBox) -> None:
    """A journey in which three models look at one series."""
    journey.shelf = Shelf([models], threads=1)
    journey.routes = [journeys.route(run=NAMES)]
    journey.lightbox = lightbox


def test_models_of_one_series_share_what_was_read(journey: Journey, models: Path, reads: list[int]) -> None:
    _together(journey, models, LightBox(megabytes=100))
    job_ids = journey.arrive(journeys.datasets())
    journey.analyse(job_ids[0])
    assert reads == [6] and journey.lightbox.kept_bytes > 0
    for job_id in job_ids[1:]:
        journey.analyse(job_id)
    assert reads == [6]
    shared = _files(journey)
    journey.lightbox.close()

    # Each answer is the one that it gives by itself, byte for byte
    journey.lightbox = LightBox()
    with journey.database.write() as session:
        for job in journey.rows(journeys.models.Job):
            session.get_one(journeys.models.Job, job.id).state = "queued"
    for path in shared:
        path.unlink()
    for job_id in job_ids:
        journey.analyse(job_id)
    assert reads == [6, 6, 6, 6] and _files(journey) == shared and len(shared) >= 6
    journey.shelf.close()


def _files(journey: Journey) -> dict[Path, bytes]:
    """What was made."""
    return {path: path.read_bytes() for path in sorted((journey.storage / "results").rglob("*.dcm"))}


def test_a_series_that_was_sent_again_with_other_bytes_is_read_anew(
    journey: Journey, reads: list[int]
) -> None:
    journey.keep_last, journey.lightbox = True, LightBox(megabytes=100)
    journey.run(journeys.datasets())
    changed = journeys.datasets()
    for ds in changed:
        pixels = np.frombuffer(ds.PixelData, np.uint16) // 2
        ds.PixelData = pixels.tobytes()
    journey.run(changed, association="a2")
    assert reads == [6, 6]
    before, after = (job.measurements for job in journey.why().jobs)
    assert [row.value for row in before] != [row.value for row in after]
    journey.lightbox.close()


def test_only_so_many_bytes_are_kept_the_last_read_first(journey: Journey, reads: list[int]) -> None:
    journey.lightbox = LightBox(megabytes=0.6)
    for number in (1, 2, 3):
        study = f"1.2.7{number}"
        journey.run(journeys.datasets(study_uid=study, series_uid=f"{study}.1"))
        assert 0 < journey.lightbox.kept_bytes <= 0.6 * 2**20
    assert len(reads) == 3
    # One that is larger than all there may be is not kept, and the others are not let go for it
    before = journey.lightbox.kept_bytes
    journey.run(
        journeys.datasets(study_uid="1.2.79", series_uid="1.2.79.1", shape=(6, 256, 256)), association="a2"
    )
    assert journey.lightbox.kept_bytes == before
    journey.lightbox.close()


def test_nothing_is_kept_of_what_nobody_reads_for_a_while(journey: Journey) -> None:
    journey.lightbox = LightBox(megabytes=100, idle_seconds=0.2)
    journey.run(journeys.datasets())
    deadline = time.monotonic() + 60
    while journey.lightbox.kept_bytes:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_nothing_is_kept_where_there_is_no_room_for_it(journey: Journey, reads: list[int]) -> None:
    journey.run(journeys.datasets())
    assert (reads, journey.lightbox.kept_bytes) == ([6], 0)


def test_what_is_shared_cannot_be_written_to(journey: Journey) -> None:
    journey.lightbox = LightBox(megabytes=100)
    journey.run(journeys.datasets())
    images = journey.rows(journeys.models.Instance)
    files = Files(
        series_instance_uid="1.2",
        paths=[journey.storage / "spool" / row.path for row in images],
        digests=[row.sha256 for row in images],
    )
    source = journey.lightbox.read(files, next(iter(journey.shelf.packages.values())).manifest.reference)
    with pytest.raises(ValueError, match="read-only"):
        source.volume.array[0] = 0
    # And it is let go with the last who looks at it
    alive = weakref.ref(source)
    journey.lightbox.close()
    del source
    gc.collect()
    assert alive() is None
