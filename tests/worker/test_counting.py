"""Asking senders for their own number of images: when, how often, and that nobody waits for one that is silent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydicom.dataset import Dataset
from sqlalchemy import update

from db import models
from dicom_node import errors, query
from tests.support import finding
from tests.worker import journey as journeys
from tests.worker import ladder
from tests.worker.journey import Journey
from worker import broker, counting, doctor, enqueue, sections, settings, sweep
from worker.counting import Asker
from worker.evidence import Count
from worker.station import Station

PAST = datetime(2026, 1, 1, tzinfo=UTC)


def _station(journey: Journey, quiet: float = 5, long_quiet: float = 60, **peer: Any) -> Station:
    """A station that asks one peer, "modality"."""
    known = {
        "name": "modality",
        "ae_title": "PACS",
        "host": "127.0.0.1",
        "count": "cfind",
        "timeout_seconds": 2,
    }
    return Station(
        settings=settings.Settings(
            storage=journey.storage,
            peers=(sections.Peer(**{**known, **peer}),),
            routes=(sections.Route(name="chest ct", when={"Modality": "CT"}, run=("tiny",)),),
            node=sections.Node(quiet_seconds=quiet, long_quiet_seconds=long_quiet),
        ),
        database=journey.database,
        shelf=journey.shelf,
        lightbox=journey.lightbox,
        process_id="sweeper",
        started_at=datetime.now(UTC),
    )


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> list[query.Counted | Exception | None]:
    """What the peer says, in turn; the last for good. Each question is kept in `asked`."""
    said: list[query.Counted | Exception | None] = [query.Counted(series={journeys.SERIES: 6}, total=6)]

    def count(destination: Any, uid: str, *, by: str) -> query.Counted | None:
        _asked.append((destination.name, uid, by))
        answer = said.pop(0) if len(said) > 1 else said[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    _asked.clear()
    monkeypatch.setattr(query, "count", count)
    return said


_asked: list[tuple[str, str, str]] = []


def _asker(journey: Journey, **changes: Any) -> Callable[..., int]:
    """Looks, so many seconds after the last image, and says how many questions were asked by then."""
    here = _station(journey, **changes)
    asker = Asker(here, here.settings.peers[0])

    def look(*seconds: float) -> int:
        for after in seconds:
            now = journey.rows(models.Study)[0].last_instance_at + timedelta(seconds=after)
            for row in asker.due(now):
                asker.consider(row, now)
        return len(_asked)

    return look


def _said(journey: Journey) -> Count:
    (study,) = journey.rows(models.Study)
    found = Count.of(study.counted)
    assert found is not None
    return found


def test_a_study_is_asked_about_when_it_has_been_silent(journey: Journey, answers: list[Any]) -> None:
    journey.receive(journey.store(journeys.datasets(), outcome="open"))
    look = _asker(journey)
    assert look(0, 1, 2) == 0
    assert look(2.6, 2.7, 4) == 1
    assert _asked == [("modality", journeys.STUDY, "cfind")]
    assert (_said(journey).series, _said(journey).total, _said(journey).answered) == (
        {journeys.SERIES: 6},
        6,
        True,
    )


def test_it_is_asked_about_again_when_more_came(journey: Journey, answers: list[Any]) -> None:
    made = journeys.datasets()
    journey.receive(journey.store(made[:4], outcome="open"))
    look = _asker(journey)
    assert look(3) == 1
    journey.receive(journey.store(made[4:], association="a2"))
    # Not more often than every quiet time
    assert look(3) == 1
    assert look(9) == 2
    assert _said(journey).arrived == {journeys.SERIES: 6}


def test_the_same_question_is_repeated_ever_more_seldom(journey: Journey, answers: list[Any]) -> None:
    answers[:] = [query.Counted(series={journeys.SERIES: 9}, total=9)]
    journey.receive(journey.store(journeys.datasets(), outcome="open"))
    look = _asker(journey)
    counts = [look(float(second)) for second in range(3, 123)]
    assert counts[0] == 1
    assert counts[-1] == 5  # after 0, 5, 15, 35 and 75 s
    assert _said(journey).tries == 5


def test_a_study_of_somebody_else_is_not_asked_about(journey: Journey, answers: list[Any]) -> None:
    journey.receive(journey.store(journeys.datasets()))
    assert _asker(journey, name="another")(3, 30) == 0
    assert journey.rows(models.Study)[0].counted is None


def test_what_another_sweep_asks_is_left_to_it_until_it_has_died(
    journey: Journey, answers: list[Any]
) -> None:
    journey.receive(journey.store(journeys.datasets(), outcome="open"))
    ladder.count(journey, answered=False)
    look = _asker(journey)
    assert look(3, 30, 55) == 0
    assert look(65) == 1
    assert _said(journey).answered


def test_a_series_that_is_silent_is_asked_about_while_its_study_streams(
    journey: Journey, answers: list[Any]
) -> None:
    one, two = ladder.two_series()
    answers[:] = [query.Counted(series={journeys.SERIES: 6, ladder.SECOND_SERIES: 2}, total=8)]
    look = _asker(journey, quiet=0.4)
    journey.receive(journey.store(one, outcome="open"))
    assert look(0) == 0
    time.sleep(0.5)
    journey.receive(journey.store(two[:2], association="a2", outcome="open"))
    assert look(0) == 1
    assert look(0.1) == 1


def test_a_failure_is_kept_in_words(journey: Journey, answers: list[Any]) -> None:
    answers[:] = [errors.QueryError("modality: answered the query with 0xC001"), None]
    journey.receive(journey.store(journeys.datasets(), outcome="open"))
    look = _asker(journey)
    look(3)
    assert (_said(journey).total, _said(journey).problem) == (
        None,
        "modality: answered the query with 0xC001",
    )
    look(9)
    assert _said(journey).problem == "modality: does not know the study"


def test_a_peer_that_is_away_rests_and_its_studies_go_on(journey: Journey, answers: list[Any]) -> None:
    answers[:] = [errors.Unreachable("modality: nothing accepts connections there")]
    journey.receive(journey.store(journeys.datasets()))
    other = journeys.datasets(
        study_uid="1.2.826.0.1.3680043.8.498.72", series_uid="1.2.826.0.1.3680043.8.498.72.1"
    )
    journey.receive(journey.store(other, association="a2"))
    look = _asker(journey)
    # One study was asked about, and both have their answer
    assert look(3) == 1
    said = [Count.of(study.counted) for study in journey.rows(models.Study)]
    assert {count.problem for count in said if count} == {"modality: nothing accepts connections there"}
    assert len(said) == 2
    assert len(journey.close()) == 2


# Really asked, beside a real sweep ----------------------------------------------------------------


@pytest.fixture
def sweeping(monkeypatch: pytest.MonkeyPatch) -> Callable[[Station], Any]:
    """A sweep that runs while the block does; messages go nowhere."""
    monkeypatch.setattr(broker, "queue_lengths", lambda *_: {"cpu": 0, "deliver": 0})
    monkeypatch.setattr(enqueue.app, "send_task", lambda *_, **__: None)

    @contextmanager
    def run(here: Station) -> Iterator[None]:
        stop = threading.Event()
        thread = threading.Thread(target=sweep.run, args=(here, stop))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(20)
        assert not thread.is_alive()

    return run


def _until(condition: Callable[[], Any], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _study(journey: Journey, number: int = 0) -> models.Study:
    found: models.Study = journey.rows(models.Study)[number]
    return found


def test_a_sender_that_keeps_its_association_open_closes_its_study_by_its_count(
    journey: Journey, sweeping: Callable[[Station], Any]
) -> None:
    with finding.running(finding.counting({journeys.SERIES: 6})) as pacs:
        here = _station(journey, quiet=0.5, port=pacs.port)
        journey.receive(journey.store(journeys.datasets(), outcome="open"))
        with sweeping(here):
            _until(lambda: _study(journey).state == "ready")
    assert ladder.evidence(journey)["signal"] == "count of the sender"


def test_a_sender_that_never_answers_delays_nobody_else(
    journey: Journey, sweeping: Callable[[Station], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given a sender that takes the question and is silent, and a study of a modality that nobody asks
    monkeypatch.setattr(counting, "MOST_SECONDS", 4.0)
    answered = threading.Event()

    def silent(event: Any) -> Iterator[tuple[int, Dataset | None]]:
        answered.wait(30)
        yield 0x0000, None

    with finding.running(silent) as pacs:
        here = _station(journey, quiet=0.5, port=pacs.port, timeout_seconds=30)
        journey.receive(journey.store(journeys.datasets()))
        other = journeys.datasets(
            study_uid="1.2.826.0.1.3680043.8.498.72", series_uid="1.2.826.0.1.3680043.8.498.72.1"
        )
        journey.receive(journey.store(other, association=None))
        with journey.database.write() as session:
            session.execute(update(models.Study).where(models.Study.id == 2).values(last_instance_at=PAST))
            session.execute(
                update(models.Instance).where(models.Instance.series_id == 2).values(received_at=PAST)
            )
        with sweeping(here):
            _until(lambda: _study(journey, 1).state == "ready", seconds=15)
            assert _study(journey).state == "receiving"
            # Then the sender's own study goes on without its count
            _until(lambda: _study(journey).state == "ready")
        answered.set()
    found = ladder.evidence(journey)
    assert found["signal"] == "associations released"
    assert found["not_counted"] == "modality: no answer within 4 s"


def test_an_asker_survives_a_database_that_is_away(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "MOST_SECONDS", 0.05)
    monkeypatch.setattr(counting, "TICK_SECONDS", 0.02)
    failures: list[int] = []
    original = Asker.due

    def due(asker: Asker, now: datetime) -> Any:
        if len(failures) < 2:
            failures.append(1)
            raise OSError("away")
        return original(asker, now)

    monkeypatch.setattr(Asker, "due", due)
    journey.receive(journey.store(journeys.datasets(), outcome="open"))
    with (
        finding.running(finding.counting({journeys.SERIES: 6})) as pacs,
        counting.running(_station(journey, quiet=0, port=pacs.port)),
    ):
        _until(lambda: _study(journey).counted is not None and _said(journey).answered)
    assert len(failures) == 2


# What can be configured ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("peer", "words"),
    [
        ({"count": "qido", "ae_title": "A"}, "count: qido needs the peer's qido_url"),
        ({"count": "cfind", "stow_url": "http://pacs"}, "count: cfind needs the peer's own ae_title"),
        ({"count": "cfind", "ae_title": "*"}, "count: cfind needs the peer's own ae_title"),
        ({"count": "cfind", "ae_title": "A", "host": "10.1.0.0/16"}, "not a network"),
    ],
)
def test_a_peer_that_cannot_be_asked_is_a_mistake(peer: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        sections.Peer(**{"name": "pacs", "host": "127.0.0.1", **peer})


def test_a_peer_is_asked_where_it_answers(journey: Journey) -> None:
    here = _station(
        journey, count="qido", stow_url="http://pacs/stow", qido_url="http://pacs/qido", timeout_seconds=60
    )
    asked = counting.destination(here.settings.peers[0], here.settings)
    assert (asked.url, asked.timeout_seconds) == ("http://pacs/qido", counting.MOST_SECONDS)
    here = _station(journey, count="qido", stow_url="http://pacs/stow")
    assert counting.destination(here.settings.peers[0], here.settings).url == "http://pacs/stow"


def test_the_doctor_asks_too(journey: Journey) -> None:
    with finding.running(lambda event: iter([])) as pacs:
        here = _station(journey, port=pacs.port)
        assert counting.check(here.settings.peers[0], here.settings) == ""
    assert "nothing accepts connections there" in counting.check(here.settings.peers[0], here.settings)
    (said,) = [
        found
        for found in doctor.examine(here.settings)
        if found.subject == "peer modality" and not found.healthy
    ]
    assert "nothing accepts connections there" in said.remark
