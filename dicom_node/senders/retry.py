"""When a delivery that failed is tried again."""

from __future__ import annotations

from datetime import datetime, timedelta

FIRST_DELAY = timedelta(seconds=30)
LONGEST_DELAY = timedelta(minutes=15)
#: After this long since the first attempt, a delivery is dead and a person decides.
GIVE_UP_AFTER = timedelta(hours=72)

_DOUBLINGS_TO_LONGEST = 5  # 30 s * 2**5 = 16 min; more doublings only grow a number that is cut anyway


def next_attempt(first_attempt_at: datetime, attempts: int, now: datetime) -> datetime | None:
    """The next attempt's time after `attempts` failed ones, or None where the delivery is dead.

    30 s after the first, doubling to 15 min; the last attempt falls on the 72nd hour itself. All times
    are aware. Raises ValueError on a naive time or where `attempts` is below 1.
    """
    if first_attempt_at.tzinfo is None or now.tzinfo is None:
        raise ValueError("times must be aware")
    if attempts < 1:
        raise ValueError("an attempt must have been made")
    deadline = first_attempt_at + GIVE_UP_AFTER
    if now >= deadline:
        return None
    doublings = min(attempts - 1, _DOUBLINGS_TO_LONGEST)
    delay = min(FIRST_DELAY * (1 << doublings), LONGEST_DELAY)
    return min(now + delay, deadline)
