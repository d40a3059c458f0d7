"""Lines that say the same of the many objects of one series, together, so that people read them once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from db.states import DeliveryState
from worker import views

Line = TypeVar("Line", views.ObjectLine, views.DeliveryLine)


def objects(lines: Iterable[views.ObjectLine]) -> list[list[views.ObjectLine]]:
    """The objects of each kind and verdict."""
    return _gathered(lines, lambda line: (line.series_instance_uid, line.kind, line.problem))


def deliveries(lines: Iterable[views.DeliveryLine]) -> list[list[views.DeliveryLine]]:
    """Deliveries that stand alike; each dead one alone, which may be sent again."""
    return _gathered(lines, _standing)


def _standing(line: views.DeliveryLine) -> tuple[object, ...]:
    alone = line.id if line.state == DeliveryState.DEAD else None
    said = (line.state, line.status, line.comment, line.commitment, line.attempts)
    return (line.job_id, line.kind, line.destination, alone, *said)


def _gathered(lines: Iterable[Line], key: Callable[[Line], tuple[object, ...]]) -> list[list[Line]]:
    found: dict[tuple[object, ...], list[Line]] = {}
    for line in lines:
        found.setdefault(key(line), []).append(line)
    return list(found.values())
