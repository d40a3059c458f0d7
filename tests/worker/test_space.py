"""Want of space is told once, when it begins and when it ends, whatever the number of refused images."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from db import events, models, refusals
from db import space as episodes
from tests.worker import journey as journeys
from tests.worker import night
from tests.worker.journey import Journey
from worker import doctor, metrics, readiness, retention, space
from worker.sections import Node, Retention
from worker.settings import Settings

MB = 1024 * 1024


def refuse(journey: Journey, association: str, count: int) -> None:
    with journey.database.write() as session:
        for number in range(count):
            refusals.note(
                session,
                association,
                status=0xA700,
                sop_instance_uid=f"1.2.{association[1:]}.{number}",
                reason="the spool's disk is below its watermark",
                for_space=True,
            )


def said(journey: Journey) -> list[str]:
    with journey.database.read() as session:
        return [event.kind for event in reversed(events.newest(session)) if event.kind.startswith("space")]


def test_one_event_as_it_begins_and_one_as_it_ends(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    configured = Settings(storage=journey.storage, node=Node(min_free_mb=100))
    free, began = [200 * MB], datetime.now(UTC)
    monkeypatch.setattr(space, "free_bytes", lambda _: free[0])

    def watch(after: float) -> None:
        space.watch(journey.database, configured, began + timedelta(seconds=after))

    watch(0)
    assert said(journey) == []
    # When the disk goes below its watermark and many images are refused
    free[0] = 50 * MB
    refuse(journey, "a1", 30)
    for after in (2, 4, 6):
        watch(after)
    assert said(journey) == ["space-short"]
    assert space.shortage(journey.database) is not None
    assert space.shortage(journey.database)[1] == 30  # type: ignore[index]
    # And there is space again, but somebody was refused a moment ago, or hardly any
    free[0] = 200 * MB
    watch(8)
    free[0] = 101 * MB
    watch(500)
    assert said(journey) == ["space-short"]
    free[0] = 200 * MB
    watch(600)
    watch(602)
    assert said(journey) == ["space-short", "space-again"]
    (_, over) = [event for event in journey.rows(models.Event) if event.kind.startswith("space")]
    assert over.message == (
        "images are taken again, 210 MB are free: 30 were refused in 10 min; their senders must send them again"
    )
    assert space.shortage(journey.database) is None
    # The list of all events tells that, and not each image
    with journey.database.read() as session:
        assert {event.kind for event in events.newest(session)} == {"space-short", "space-again"}


def test_refused_images_tell_of_it_though_the_sweep_saw_enough_space(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(space, "free_bytes", lambda _: 1 << 40)
    refuse(journey, "a1", 1)
    space.watch(journey.database, Settings(storage=journey.storage), datetime.now(UTC))
    assert said(journey) == ["space-short"]


def test_a_study_misses_the_images_that_were_refused_for_want_of_space(journey: Journey) -> None:
    journey.associate("a1")
    refuse(journey, "a1", 2)
    journey.receive(journey.store(journeys.datasets(), association="a1"))
    with journey.database.read() as session:
        assert refusals.missing(session, ["a1"]).count == 2
    # They are remembered for as long as a study asks for them; those of nobody are forgotten
    refuse(journey, "a2", 3)
    later = datetime.now(UTC) + timedelta(hours=2)
    space.forget(journey.database, later)
    kept = [row.association_id for row in journey.rows(models.Event) if row.kind == refusals.FOR_SPACE]
    assert kept == ["a1", "a1"]


def test_page_metrics_and_probe_say_since_when(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = night.open_station(tmp_path)
    try:
        monkeypatch.setattr(space, "free_bytes", lambda _: 1000)
        with here.database.write() as session:
            assert episodes.begin(session, "images are refused")
            assert not episodes.begin(session, "images are refused")
            refusals.note(session, "a1", status=0xA700, sop_instance_uid="1.2", reason="full", for_space=True)
        (disk,) = [check for check in readiness.readiness(here).checks if check.name == "disk"]
        assert not disk.ok
        assert "0 MB free, 1074 MB needed; images are refused since 20" in disk.found
        assert disk.found.endswith(", 1 so far")
        found = {
            sample.name: sample.value
            for family in metrics.registry(here).collect()
            for sample in family.samples
        }
        assert 0 < found["secondread_space_short_seconds"] < 60
        said = retention.in_words(here.database, here.settings)
        assert said == "0 MB of images and results; nothing is deleted by itself"
        (kept,) = [line for line in doctor.examine(here.settings) if line.subject == "retention"]
        assert not kept.healthy and kept.remark.startswith(f"{said}; images are refused since 20")
        assert (found["secondread_doomed_files"], found["secondread_oldest_purgeable_seconds"]) == (0, 0)
        with here.database.write() as session:
            assert episodes.end(session, "over")
            assert not episodes.end(session, "over")
            assert retention.figures(session, datetime.now(UTC)).short_seconds == 0
    finally:
        here.close()


def test_deleting_begins_before_refusing(tmp_path: Path) -> None:
    def made(free_mb: int | None, **values: Any) -> Settings:
        return Settings(
            storage=tmp_path, node=Node(min_free_mb=100), retention=Retention(free_mb=free_mb, **values)
        )

    made(None)
    made(101)
    with pytest.raises(ValidationError, match=r"retention\.free_mb: 100 is not more than node\.min_free_mb"):
        made(100)
