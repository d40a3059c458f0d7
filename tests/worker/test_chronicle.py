"""The supervisor's events are written in their order, also those of a time without a database."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from db import models
from tests.worker.journey import Journey
from worker import chronicle
from worker.chronicle import Chronicle


def _events(journey: Journey) -> list[tuple[str, str]]:
    return [(row.kind, row.message) for row in journey.rows(models.Event)]


def test_what_is_told_while_the_database_is_away_is_written_when_it_is_back(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, tried = journey.database.write, threading.Event()

    def away() -> Any:
        tried.set()
        raise OSError("away")

    monkeypatch.setattr(chronicle, "_RETRY_SECONDS", 0.02)
    monkeypatch.setattr(journey.database, "write", away)
    with Chronicle(journey.database) as written:
        began = time.monotonic()
        written.tell("listen-1 ended")
        written.tell("cpu ended")
        # Whoever tells does not wait
        assert time.monotonic() - began < 10
        assert tried.wait(15)
        monkeypatch.setattr(journey.database, "write", write)
        deadline = time.monotonic() + 60
        while len(_events(journey)) < 2:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert _events(journey) == [("role-restarted", "listen-1 ended"), ("role-restarted", "cpu ended")]


def test_an_end_without_a_database_is_an_end(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    def away() -> Any:
        raise OSError("away")

    monkeypatch.setattr(journey.database, "write", away)
    with Chronicle(journey.database) as written:
        written.tell("listen-1 ended")
    assert _events(journey) == []
