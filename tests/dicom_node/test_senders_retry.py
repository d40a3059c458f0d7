"""When a failed delivery is tried again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from dicom_node.senders.retry import next_attempt

START = datetime(2026, 11, 20, 10, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("attempts", "seconds"),
    [(1, 30), (2, 60), (3, 120), (4, 240), (5, 480), (6, 900), (7, 900), (1000, 900)],
)
def test_doubles_from_30_seconds_to_15_minutes(attempts: int, seconds: int) -> None:
    now = START + timedelta(hours=1)
    assert next_attempt(START, attempts, now) == now + timedelta(seconds=seconds)


def test_the_last_attempt_is_at_72_hours_and_none_follows() -> None:
    deadline = START + timedelta(hours=72)
    assert next_attempt(START, 300, deadline - timedelta(minutes=1)) == deadline
    assert next_attempt(START, 301, deadline) is None
    assert next_attempt(START, 1, deadline + timedelta(days=9)) is None


def test_following_the_schedule_ends_in_death_after_292_attempts() -> None:
    attempts, now = 0, START
    moment: datetime | None = START
    while moment is not None:
        attempts, now = attempts + 1, moment
        moment = next_attempt(START, attempts, now)
    # 30+60+120+240+480 s, then every 900 s to 72 h, the deadline itself included.
    assert (attempts, now) == (1 + 5 + (72 * 3600 - 930) // 900 + 1, START + timedelta(hours=72))


def test_naive_times_and_no_attempt_are_errors() -> None:
    naive = START.replace(tzinfo=None)
    with pytest.raises(ValueError, match="aware"):
        next_attempt(naive, 1, START)
    with pytest.raises(ValueError, match="aware"):
        next_attempt(START, 1, naive)
    with pytest.raises(ValueError, match="attempt"):
        next_attempt(START, 0, START)
