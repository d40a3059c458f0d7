"""The ladder: which evidence says that a study, or a series of it, is complete; what each is worth."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event

from db import models, refusals, studies
from db.base import Database
from tests.worker import journey as journeys
from tests.worker import ladder
from tests.worker.journey import Journey
from tests.worker.ladder import SECOND_SERIES
from worker import completeness, pipeline

FIRST = journeys.SERIES


def _close(journey: Journey, *seconds: float) -> list[bool]:
    """Whether jobs come of it so many seconds after the last image."""
    last = journey.rows(models.Study)[0].last_instance_at
    return [bool(journey.close(last + timedelta(seconds=after))) for after in seconds]


def _state(journey: Journey) -> str:
    return journey.why().study.state


# 1. A storage commitment request ------------------------------------------------------------------


def test_a_request_that_names_all_that_came_closes_at_once(journey: Journey) -> None:
    # Given a modality that keeps its association open for the answer
    made = journeys.datasets()
    journey.receive(journey.store(made, outcome="open"))
    ladder.request(journey, made[:4])
    assert _close(journey, 0) == [False]
    ladder.request(journey, made[3:])
    assert _close(journey, 0) == [True]
    found = ladder.evidence(journey)
    assert (found["signal"], found["named"], found["instances"]) == ("storage commitment request", 6, 6)
    assert found["needed_seconds"] == 0
    assert found["associations"][0]["outcome"] == "open"


def test_a_sender_whose_request_was_not_its_last_word_is_waited_for(journey: Journey) -> None:
    # Given a sender that asks for each image
    made = journeys.datasets()
    journey.receive(journey.store(made[:1], outcome="open"))
    ladder.request(journey, made[:1])
    assert _close(journey, 0) == [True]
    for ds in made[1:]:
        journey.receive(journey.store([ds], association=None))
        ladder.request(journey, [ds])
        journey.close(journey.rows(models.Study)[0].last_instance_at)
    # Then it has made one revision of a part, and the other is closed after a quiet time
    assert _state(journey) == "receiving"
    assert _close(journey, 4, 5.5) == [False, True]
    assert (journey.why().study.revision, ladder.evidence(journey)["named"]) == (2, 6)


def test_a_request_for_what_never_came_is_waited_for_and_then_said(journey: Journey) -> None:
    made = journeys.datasets()
    journey.receive(journey.store(made[:4]))
    ladder.request(journey, made)
    (awaited,) = journey.why().waiting_for
    assert "2 images that a storage commitment request names are not here" in awaited
    assert _close(journey, 6, 58, 61) == [False, False, True]
    found = ladder.evidence(journey)
    assert (found["signal"], found["absent"], found["missing"]) == ("long quiet time", 2, 2)
    assert "2 images that its storage commitment request names never came" in journey.why().study.problem
    with journey.database.read() as session:
        assert studies.count(session, attention=True) == 1


def test_a_request_settles_what_was_refused_before(journey: Journey) -> None:
    made = journeys.datasets()
    journey.receive(journey.store(made))
    with journey.database.write() as session:
        refusals.note(session, "a1", status=0xA700, sop_instance_uid="1.7.1", reason="the disk is full")
    assert _close(journey, 6) == [False]
    ladder.request(journey, made)
    assert _close(journey, 6) == [True]
    assert journey.why().study.problem == ""


# 2. The sender's own count ------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["open", "aborted", "released"])
def test_an_equal_count_closes_whatever_became_of_the_association(journey: Journey, outcome: str) -> None:
    journey.receive(journey.store(journeys.datasets(), outcome=outcome))
    ladder.count(journey, {FIRST: 6})
    assert _close(journey, 4, 5.5) == [False, True]
    found = ladder.evidence(journey)
    assert (found["signal"], found["counted"], found["counted_by"]) == (
        "count of the sender",
        6,
        "modality (C-FIND)",
    )


def test_a_greater_count_is_waited_for_and_then_said(journey: Journey) -> None:
    journey.receive(journey.store(journeys.datasets()[:4]))
    ladder.count(journey, {FIRST: 6}, by="qido")
    assert "modality (QIDO-RS) has 6 images, 4 arrived" in journey.why().waiting_for[0]
    assert _close(journey, 6, 58, 61) == [False, False, True]
    found = ladder.evidence(journey)
    assert (found["signal"], found["counted"], found["missing"]) == ("long quiet time", 6, 2)
    assert journey.why().study.problem == (
        "modality (QIDO-RS) has 6 images, 4 arrived; "
        "the results are of the 4 that arrived: send the study again"
    )


def test_a_count_with_too_many_of_one_series_does_not_hide_what_lacks_of_another(journey: Journey) -> None:
    one, two = ladder.two_series()
    journey.receive(journey.store([*one, *two[:4]]))
    ladder.count(journey, {FIRST: 4, SECOND_SERIES: 6})
    assert "has 12 images, 10 arrived" in journey.why().waiting_for[0]
    # The first series had a whole association to itself; the study waits for the second
    _close(journey, 6)
    assert (_state(journey), [row.complete_at is not None for row in ladder.series(journey)]) == (
        "receiving",
        [True, False],
    )


@pytest.mark.parametrize(
    "said",
    [
        {"series": {FIRST: 3}},
        {"problem": "modality: no answer within 10 s"},
        {"series": {FIRST: 6}, "arrived": {FIRST: 5}},
    ],
    ids=["smaller", "failed", "outdated"],
)
def test_a_count_that_says_nothing_leaves_the_word_to_the_associations(
    journey: Journey, said: dict[str, object]
) -> None:
    journey.receive(journey.store(journeys.datasets()))
    ladder.count(journey, **said)  # type: ignore[arg-type]
    assert _close(journey, 4, 5.5) == [False, True]
    found = ladder.evidence(journey)
    assert found["signal"] == "associations released"
    assert found.get("not_counted", "") == said.get("problem", "")


def test_a_sender_that_is_asked_is_waited_for_though_not_for_ever(journey: Journey) -> None:
    journey.counting = frozenset({"modality"})
    journey.receive(journey.store(journeys.datasets()))
    assert _close(journey, 6) == [False]
    ladder.count(journey, answered=False)
    assert "the answer of modality (C-FIND), how many images it has" in journey.why().waiting_for[0]
    assert _close(journey, 59, 61) == [False, True]
    assert ladder.evidence(journey)["signal"] == "associations released"


def test_a_sender_that_is_not_asked_is_not_waited_for(journey: Journey) -> None:
    journey.counting = frozenset({"another"})
    journey.receive(journey.store(journeys.datasets()))
    assert _close(journey, 4, 5.5) == [False, True]


def test_a_count_of_the_whole_study_alone_will_do(journey: Journey) -> None:
    journey.receive(journey.store(journeys.datasets(), outcome="open"))
    ladder.count(journey, total=6)
    assert _close(journey, 5.5) == [True]


def test_our_own_results_are_none_of_the_sender_s_images(journey: Journey) -> None:
    # Given results that the sender got from us, and an image that came late
    made = journeys.datasets()
    journey.run(made[:5])
    own = {ds.series_instance_uid: 1 for ds in journey.rows(models.ResultObject)}
    journey.receive(journey.store(made[5:], association="a2", outcome="open"))
    ladder.count(journey, {FIRST: 6, **own})
    assert _close(journey, 5.5) == [True]
    assert ladder.evidence(journey)["counted"] == 6
    # And one that tells no series, so that nobody knows what it counts, says nothing
    journey.receive(journey.store(journeys.datasets(series_uid=SECOND_SERIES), association="a3"))
    ladder.release(journey, "a2")
    ladder.count(journey, total=14)
    assert _close(journey, 5.5) == [True]
    assert ladder.evidence(journey)["signal"] == "associations released"


# A series before its study ------------------------------------------------------------------------


def _two_associations(journey: Journey) -> None:
    one, two = ladder.two_series()
    journey.receive(journey.store(one, association="a1"))
    journey.receive(journey.store(two[:3], association="a2", outcome="open"))


def test_a_series_starts_when_its_associations_are_released(journey: Journey) -> None:
    _two_associations(journey)
    assert _close(journey, 4, 5.5, 30) == [False, True, False]
    # The study receives, and one job runs to its end
    answer = journey.why()
    assert (answer.study.state, [job.series_instance_uid for job in answer.jobs]) == ("receiving", [FIRST])
    assert [row.series_instance_uid for row in answer.decisions] == [FIRST]
    first, second = ladder.series(journey)
    assert first.evidence is not None and first.evidence["signal"] == "associations released"
    assert (first.evidence["instances"], second.complete_at) == (6, None)
    journey.follow([answer.jobs[0].id])
    assert (journey.why().jobs[0].state, _state(journey)) == ("done", "receiving")
    # Then the rest comes, and only that is made
    journey.receive(journey.store(ladder.two_series()[1][3:], association="a3"))
    ladder.release(journey, "a2")
    journey.follow(journey.close())
    answer = journey.why()
    assert (answer.study.state, [job.state for job in answer.jobs]) == ("done", ["done", "done"])
    assert sorted(row.series_instance_uid for row in answer.decisions) == [FIRST, SECOND_SERIES]
    assert len(journey.sent()) == 4
    proofs = [series.evidence and series.evidence["signal"] for series in answer.series]
    assert proofs == ["associations released", None]


def test_a_series_does_not_start_by_silence_alone(journey: Journey) -> None:
    one, two = ladder.two_series()
    journey.receive(journey.store([*one, *two], outcome="open"))
    assert _close(journey, 6, 61, 600) == [False, False, False]


@pytest.mark.parametrize("outcome", ["aborted", "lost"])
def test_a_series_whose_association_broke_off_waits_for_its_study(journey: Journey, outcome: str) -> None:
    _two_associations(journey)
    journey.receive(journey.store(ladder.two_series()[0][:0], association="a3"))
    made = journeys.datasets(series_uid=f"{journeys.STUDY}.3")
    journey.receive(journey.store(made, association="a4", outcome=outcome))
    journey.close()
    assert [row.complete_at is not None for row in ladder.series(journey)] == [True, False, False]


def test_a_series_starts_by_the_sender_s_count_of_it(journey: Journey) -> None:
    one, two = ladder.two_series()
    journey.receive(journey.store([*one, *two[:3]], outcome="open"))
    ladder.count(journey, {FIRST: 6, SECOND_SERIES: 6})
    assert _close(journey, 5.5, 600) == [True, False]
    first, second = ladder.series(journey)
    assert first.evidence is not None and first.evidence["counted"] == 6
    assert second.complete_at is None


def test_a_series_starts_at_once_by_a_request(journey: Journey) -> None:
    one, two = ladder.two_series()
    journey.receive(journey.store([*one, *two[:3]], outcome="open"))
    ladder.request(journey, one)
    assert _close(journey, 0) == [True]
    assert _state(journey) == "receiving"
    assert ladder.series(journey)[0].evidence["named"] == 6  # type: ignore[index]


def test_a_series_that_got_more_is_analysed_once_more_and_not_twice(journey: Journey) -> None:
    one, two = ladder.two_series()
    journey.receive(journey.store(one[:5], association="a1"))
    journey.receive(journey.store(two, association="a2", outcome="open"))
    (early,) = journey.close()
    journey.receive(journey.store(one[5:], association="a3"))
    assert ladder.series(journey)[0].complete_at is None
    # It is complete again, and the job that waited is not wanted any more
    (again,) = journey.close()
    assert {job.id: (job.state, job.reason) for job in journey.why().jobs} == {
        early: ("cancelled", "superseded"),
        again: ("queued", ""),
    }
    assert journey.analyse(early) == []
    assert len(journey.why().decisions) == 1
    ladder.release(journey, "a2")
    journey.follow(journey.close())
    assert [job.state for job in journey.why().jobs] == ["cancelled", "done", "done"]
    assert (_state(journey), len(journey.why().decisions), len(journey.sent())) == ("done", 2, 4)


def test_two_patients_start_nothing_early_and_stop_what_waits(journey: Journey) -> None:
    _two_associations(journey)
    (early,) = journey.close()
    stranger = journeys.datasets(series_uid=f"{journeys.STUDY}.3", patient_id="ANOTHER")
    journey.receive(journey.store(stranger, association="a3"))
    assert journey.close() == []
    ladder.release(journey, "a2")
    assert journey.close() == []
    answer = journey.why()
    assert "2 different Patient IDs" in answer.study.problem
    assert {job.state for job in answer.jobs} == {"cancelled", "skipped"}
    assert "2 different Patient IDs" in next(job.error for job in answer.jobs if job.id == early)


@pytest.mark.parametrize(
    "target",
    ["db.counts.complete_series", "db.decisions.record", "db.jobs.create", "db.supersession.supersede"],
)
def test_a_sweep_that_dies_while_it_starts_a_series_changes_nothing(journey: Journey, target: str) -> None:
    _two_associations(journey)
    with journeys.crash_after(target):
        journey.die(journey.close)
    assert (journey.why().jobs, journey.why().decisions) == ([], [])
    assert ladder.series(journey)[0].complete_at is None
    # Another goes on, dies before the study is closed, and nothing is doubled
    (early,) = journey.close()
    ladder.release(journey, "a2")
    with journeys.crash_after("db.studies.close"):
        journey.die(journey.close)
    assert _state(journey) == "receiving"
    assert set(journey.close()) > {early}
    assert (len(journey.why().jobs), len(journey.why().decisions)) == (2, 2)


# When to look -------------------------------------------------------------------------------------


def _statements(database: Database, step: object) -> int:
    made: list[str] = []

    def note(connection: object, cursor: object, statement: str, *_: object) -> None:
        made.append(statement)

    event.listen(database.engine, "before_cursor_execute", note)
    try:
        step()  # type: ignore[operator]
    finally:
        event.remove(database.engine, "before_cursor_execute", note)
    return len(made)


def test_nobody_looks_at_a_study_before_something_can_have_changed(journey: Journey) -> None:
    journey.receive(journey.store(journeys.datasets(), outcome="open"))
    looks = completeness.Looks()
    last = journey.rows(models.Study)[0].last_instance_at

    def at(after: float) -> int:
        now = last + timedelta(seconds=after)
        patience = completeness.Patience(quiet=journeys.QUIET, long_quiet=journeys.LONG_QUIET)
        return _statements(
            journey.database,
            lambda: pipeline.close(
                journey.database,
                routes=journey.routes,
                models=journey.shelf.rules,
                patience=patience,
                now=now,
                looks=looks,
            ),
        )

    idle = at(1)
    assert at(4.9) == idle
    assert at(5) > idle
    assert [at(after) for after in (5.1, 7, 9.9)] == [idle] * 3
    assert at(10) > idle
    # What the sender says is looked at when it comes
    ladder.count(journey, {FIRST: 6})
    assert at(10.1) > idle
    assert _state(journey) == "ready"


def test_a_release_is_found_to_the_tick(journey: Journey) -> None:
    journey.receive(journey.store(journeys.datasets(), outcome="open"))
    looks = completeness.Looks()
    patience = completeness.Patience(quiet=journeys.QUIET, long_quiet=journeys.LONG_QUIET)

    def close(now: datetime) -> list[int]:
        return pipeline.close(
            journey.database,
            routes=journey.routes,
            models=journey.shelf.rules,
            patience=patience,
            now=now,
            looks=looks,
        )

    last = journey.rows(models.Study)[0].last_instance_at
    assert close(last + timedelta(seconds=6)) == []
    ladder.release(journey, "a1")
    (row,) = journey.rows(models.Association)
    assert row.closed_at is not None and row.closed_at < datetime.now(UTC) + timedelta(seconds=1)
    ticks = [timedelta(seconds=6 + 0.1 * tick) for tick in range(60)]
    found = [tick for tick in ticks if close(last + tick)]
    assert len(found) == 1
