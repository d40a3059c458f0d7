"""Retention: what is finished goes, whatever dies in between; what comes again meanwhile stays."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from db import jobs, models, purging, studies
from db.errors import FilesGone
from dicom_node import stored_files
from dicom_node.instance import StoredInstance
from tests.worker import journey as journeys
from tests.worker.journey import Crashing, Journey
from worker import repair, retention, settings
from worker.loop_guard import ConfiguredGuard
from worker.retention import Keeper, Store
from worker.sections import Guard, Node, Retention
from worker.station import Station

HOUR = timedelta(hours=1)
#: Everything of the journeys is hours old then, however long the tests before these took.
LATER = datetime.now(UTC) + timedelta(days=2)


def store_of(journey: Journey) -> Store:
    return Store(database=journey.database, storage=journey.storage, guard=ConfiguredGuard.of(Guard()))


def keeper(journey: Journey, **values: Any) -> Keeper:
    """A sweep's keeper with this retention."""
    configured = settings.Settings(
        storage=journey.storage, node=Node(min_free_mb=1), retention=Retention(**values)
    )
    return Keeper(store_of(journey), configured)


def purge(journey: Journey, uid: str = journeys.STUDY, *, now: datetime = LATER) -> str:
    with journey.database.read() as session:
        study = studies.by_uid(session, uid)
    store = store_of(journey)
    seen = retention.look(store, study, now=now, untouched_for=retention.REST)
    return retention.purge(store, study, seen, now=now)


def finish(journey: Journey, *, now: datetime = LATER) -> None:
    """What a sweep does until nothing is doomed that can be deleted."""
    after: int | None = 0
    while after is not None:
        after = retention.delete_doomed(store_of(journey), after=after, now=now)


def files(journey: Journey) -> list[str]:
    """Images and results on disk."""
    found = [
        path for path in journey.storage.rglob("*") if path.is_file() and path.suffix in (".dcm", ".png")
    ]
    return sorted(str(path.relative_to(journey.storage)) for path in found)


def folders(journey: Journey) -> list[str]:
    """Folders of studies, series and jobs."""
    below = [*(journey.storage / "spool").glob("[0-9]*"), *(journey.storage / "results").glob("*")]
    return sorted(path.name for path in below)


def rescan(journey: Journey) -> None:
    """A look through the spool, long after the last file came."""
    here = Station(
        settings=settings.Settings(storage=journey.storage),
        database=journey.database,
        shelf=journey.shelf,
        lightbox=journey.lightbox,
        process_id="listener",
        started_at=LATER,
    )
    repair.look(here)


def state(journey: Journey) -> str:
    return journey.why().study.state


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is too fresh for the scan."""
    monkeypatch.setattr(repair, "FRESH_SECONDS", 0.0)


def test_a_purged_study_still_tells_what_was_found(journey: Journey) -> None:
    journey.run(journeys.datasets())
    before = journey.job()
    assert len(files(journey)) == 6 + 2 + 5
    # When it is purged
    assert purge(journey) == ""
    finish(journey)
    # Then its files and folders are gone, and its rows tell on
    assert (files(journey), folders(journey), journey.rows(models.DoomedFile)) == ([], [], [])
    assert state(journey) == "purged"
    after = journey.job()
    assert (after.findings, after.measurements, after.deliveries) == (
        before.findings,
        before.measurements,
        before.deliveries,
    )
    (event,) = [event for event in journey.why().events if event.kind == "purged"]
    assert event.message.startswith("its files were deleted: 6 received ones")
    # And it cannot be purged, or run, again
    assert purge(journey).startswith("its files were deleted on ")
    with journey.database.write() as session:
        session.get_one(models.Job, before.id).state = "failed"
    with pytest.raises(FilesGone), journey.database.write() as session:
        jobs.retry(session, before.id)


@pytest.mark.parametrize(
    ("target", "calls"),
    [
        ("worker.retention.events.note", 0),
        ("worker.retention.delete_doomed", 0),
        ("worker.retention.stored_files.remove", 0),
        ("worker.retention.stored_files.remove", 3),
        ("worker.retention.stored_files.tidy", 0),
        ("worker.retention.stored_files.tidy", 1),
        ("worker.retention.purging.forget", 0),
        ("worker.retention.purging.forget", 1),
        ("worker.retention.stored_files.remove_folder", 0),
        ("worker.retention.stored_files.remove_folder", 1),
        ("worker.retention.purging.forget", 2),
    ],
    ids=[
        "in the transaction",
        "after the transaction",
        "before the first file",
        "after the third file",
        "before the folders",
        "after the folders",
        "before the rows go",
        "before their commit",
        "before the results",
        "after the results",
        "before the results' commit",
    ],
)
def test_a_purge_that_dies_goes_on(journey: Journey, target: str, calls: int) -> None:
    journey.run(journeys.datasets())
    dying = keeper(journey, days=0.01)

    def sweep() -> None:
        with Crashing(target, calls=calls):
            while dying.tick(LATER):
                pass

    journey.die(sweep)
    # A look through the spool in between makes nothing of what is still there
    before = len(journey.rows(models.Instance))
    rescan(journey)
    assert len(journey.rows(models.Instance)) == before
    # When the next sweep begins
    fresh = keeper(journey, days=0.01)
    while fresh.tick(LATER):
        pass
    # Then all is gone, and only once
    assert (files(journey), folders(journey), journey.rows(models.DoomedFile)) == ([], [], [])
    assert state(journey) == "purged"
    assert len([event for event in journey.rows(models.Event) if event.kind == "purged"]) == 1
    rescan(journey)
    assert journey.rows(models.Instance) == []


@pytest.mark.parametrize(
    "reported", ["before the deletion", "after the deletion", "never: its listener died"]
)
@pytest.mark.parametrize("found", ["the old file", "no file any more"])
def test_an_image_that_comes_again_while_it_is_purged_is_never_lost(
    journey: Journey, reported: str, found: str
) -> None:
    """Its sender was answered 0x0000, whether the file was there still or had to be written anew."""
    journey.run(journeys.datasets())
    assert purge(journey) == ""
    if found == "no file any more":
        # A sweep died between the files and their rows
        with Crashing("worker.retention.purging.forget"):
            journey.die(lambda: finish(journey))
    # When one of the images comes again
    (again,) = journey.store(journeys.datasets()[2:3], association="a2")
    assert again.duplicate == (found == "the old file")
    if reported == "before the deletion":
        journey.receive([again])
    finish(journey)
    if reported == "after the deletion":
        journey.receive([again])
    # Then just that one is there, and has a row
    assert [name for name in files(journey)] == [f"spool/{again.path}"]
    (row,) = journey.rows(models.Instance)
    assert (row.path, row.revision) == (str(again.path), 2)
    assert journey.rows(models.DoomedFile) == []
    assert state(journey) == "receiving"


def test_a_file_that_just_came_again_is_left_to_its_listener(journey: Journey) -> None:
    journey.run(journeys.datasets())
    assert purge(journey) == ""
    (again,) = journey.store(journeys.datasets()[:1], association="a2")
    finish(journey, now=datetime.now(UTC))
    assert files(journey) == [f"spool/{again.path}"]
    # Its row comes from the report, with the association that carried it
    assert journey.rows(models.Instance) == []
    assert len(journey.rows(models.DoomedFile)) == 1
    journey.receive([again])
    finish(journey, now=datetime.now(UTC))
    (row,) = journey.rows(models.Instance)
    assert (row.association_id, journey.rows(models.DoomedFile)) == ("a2", [])


def test_a_study_that_is_sent_again_gets_no_second_answer(journey: Journey) -> None:
    journey.run(journeys.datasets())
    sent = len(journey.sent())
    assert purge(journey) == ""
    finish(journey)
    # When all of it is sent again
    journey.run(journeys.datasets(), association="a2")
    # Then it is done with what it had: nothing is computed or sent twice
    why = journey.why()
    assert (why.study.state, why.study.revision, why.study.problem) == ("done", 2, "")
    (job,) = why.jobs
    assert (job.state, job.revision, job.attempts) == ("done", 2, 1)
    assert len(journey.sent()) == sent
    # And can be purged again
    assert purge(journey, now=LATER + HOUR) == ""
    finish(journey)
    assert files(journey) == []


def test_part_of_a_purged_study_is_not_taken_for_the_whole(journey: Journey) -> None:
    journey.run(journeys.datasets())
    assert purge(journey) == ""
    finish(journey)
    # When one late image comes of the six that were deleted
    follow = journey.arrive(journeys.datasets()[:1], association="a2")
    # Then no model gets it, and the study says what to do
    assert follow == []
    why = journey.why()
    assert why.study.problem == (
        "its files were deleted after their retention time, and only 1 of its 6 images came again: "
        "send the whole study again"
    )
    assert [job.state for job in why.jobs] == ["done", "skipped"]
    # When the others follow, the answer stands that was known
    journey.run(journeys.datasets()[1:], association="a3")
    assert journey.why().study.problem == ""
    assert [job.state for job in journey.why().jobs if job.revision == 3] == ["done"]


def test_a_result_that_comes_back_after_the_purge_goes_with_it_some_day(journey: Journey) -> None:
    journey.run(journeys.datasets())
    assert purge(journey) == ""
    finish(journey)
    result = journeys.datasets(series_uid="1.2.3.4")[0]
    result.ManufacturerModelName = "Other AI"
    journey.guard = ConfiguredGuard.of(Guard(also=({"ManufacturerModelName": "*AI*"},)))
    # When another AI's result comes alone
    assert journey.arrive([result], association="a2") == []
    # Then it is no part of the study that is missing, and goes in its turn
    assert (state(journey), journey.why().study.problem) == ("done", "")
    # And what was found is still what was found
    (job,) = journey.why().jobs
    assert (job.state, job.revision) == ("done", 2)
    assert [decision.matched for decision in journey.why().decisions] == [False]
    assert files(journey) != []
    assert purge(journey) == ""
    finish(journey)
    assert files(journey) == []
    assert journey.rows(models.Study)[0].purged_instances == 6


def test_a_late_image_stops_a_purge_that_has_only_looked(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    journey.run(journeys.datasets())
    late: list[StoredInstance] = []
    original = stored_files.newest_change

    def look(paths: Any) -> datetime | None:
        newest = original(paths)
        late.extend(journey.store(journeys.datasets(series_uid="1.2.3.4"), association="a2"))
        journey.receive(late)
        return newest

    monkeypatch.setattr(retention.stored_files, "newest_change", look)
    assert purge(journey) == "it is still receiving"
    assert len([name for name in files(journey) if name.startswith("spool")]) == 12


def test_an_image_that_came_again_lately_holds_its_study_back(journey: Journey) -> None:
    journey.run(journeys.datasets())
    (again,) = journey.store(journeys.datasets()[:1], association="a2")
    now = datetime.now(UTC)
    assert purge(journey, now=now).startswith("an image of it came, or came again, at ")
    spool = journey.storage / "spool"
    assert (spool / again.path).exists()


# By the configuration -----------------------------------------------------------------------------


def other(number: int) -> list[Any]:
    """A study of its own."""
    uid = f"1.2.826.0.1.3680043.8.498.9{number}"
    return journeys.datasets(study_uid=uid, series_uid=f"{uid}.1")


def states(journey: Journey) -> list[str]:
    return [study.state for study in journey.rows(models.Study)]


def work(kept: Keeper, now: datetime) -> int:
    """Steps until there is nothing to do."""
    steps = 0
    while kept.tick(now):
        steps += 1
    return steps


def test_by_age(journey: Journey) -> None:
    journey.run(other(1), association="a1")
    kept = keeper(journey, days=1)
    now = datetime.now(UTC)
    assert work(kept, now + timedelta(hours=23)) == 0
    assert states(journey) == ["done"]
    assert work(kept, now + timedelta(hours=25)) >= 2
    assert (states(journey), files(journey)) == (["purged"], [])


def test_by_space_the_oldest_go_until_there_is_enough(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in (1, 2, 3):
        journey.run(other(number), association=f"a{number}")
    # Given a disk with 30 MB more for each study that is gone
    free = lambda _: (100 - 10 * sum(1 for _ in (journey.storage / "spool").glob("1.*"))) * 1024 * 1024  # noqa: E731
    monkeypatch.setattr(retention.space, "free_bytes", free)
    # Then within the hour nothing goes, whatever the space
    assert work(keeper(journey, free_mb=85), datetime.now(UTC)) == 0
    # And then as many as must, the oldest first
    work(keeper(journey, free_mb=85), LATER)
    assert states(journey) == ["purged", "purged", "done"]
    # Neither age nor space: nothing goes
    assert work(keeper(journey), LATER + timedelta(days=4000)) == 0
    assert states(journey) == ["purged", "purged", "done"]


def test_a_step_is_small(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "STEP_FILES", 2)
    journey.run(journeys.datasets())
    kept = keeper(journey, days=0.01)
    assert kept.tick(LATER)
    left = []
    while kept.tick(LATER):
        left.append(len([name for name in files(journey) if name.startswith("spool")]))
    assert left[:3] == [4, 2, 0]


def test_a_file_that_cannot_be_deleted_holds_nothing_up(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "STEP_FILES", 2)
    journey.run(journeys.datasets())
    original, broken = stored_files.remove, [True]

    def remove(path: Path, **how: Any) -> bool:
        if broken[0] and path.name.endswith((".1.dcm", ".2.dcm")):
            raise PermissionError(1, "Operation not permitted", str(path))
        return original(path, **how)

    monkeypatch.setattr(retention.stored_files, "remove", remove)
    kept = keeper(journey, days=0.01)
    work(kept, LATER)
    assert len(files(journey)) == 2
    broken[0] = False
    work(kept, LATER + retention.LOOK)
    assert files(journey) == []


def test_what_broke_off_is_deleted_in_time_or_for_space(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = journey.storage / "spool" / "partial"
    partial.mkdir(parents=True)
    for name in ("a.part", "b.damaged"):
        (partial / name).write_bytes(b"x")
    kept = keeper(journey, partial_days=1)
    monkeypatch.setattr(retention.space, "free_bytes", lambda _: 1 << 60)
    now = datetime.now(UTC)
    assert not kept.tick(now)
    assert len(list(partial.iterdir())) == 2
    # Where space is short, what was never acknowledged goes at once
    monkeypatch.setattr(retention.space, "free_bytes", lambda _: 1)
    assert not kept.tick(now + timedelta(seconds=10))
    assert [path.name for path in partial.iterdir()] == ["b.damaged"]
    assert not kept.tick(now + timedelta(days=1, hours=1))
    assert list(partial.iterdir()) == []


def test_a_retried_job_keeps_its_folder(journey: Journey) -> None:
    """Its study was purged, came again, and the job began anew before its old folder was deleted."""
    (job_id,) = journey.arrive(journeys.datasets())
    with journey.database.write() as session:
        assert jobs.cancel(session, job_id, datetime.now(UTC))
        assert studies.finish_if_ended(session, journey.rows(models.Study)[0].id, datetime.now(UTC))
    assert purge(journey) == ""
    journey.arrive(journeys.datasets(), association="a2")
    with journey.database.write() as session:
        assert jobs.retry(session, job_id)
    with journey.database.read() as session:
        rows = purging.doomed(session, after=0, limit=100)
    follow = journey.analyse(job_id)
    assert follow
    # When the sweep goes on with what it read before
    for row in rows:
        if row.path.startswith("results/"):
            retention._delete_results(store_of(journey), row)
    finish(journey)
    for delivery_id in follow:
        journey.deliver(delivery_id)
    assert {line.state for line in journey.job().deliveries} == {"sent"}
    assert len(files(journey)) == 13
