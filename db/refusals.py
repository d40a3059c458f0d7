"""Refusals: images that were answered with a failure, and which of them never came after all."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import events
from db.models import Event, Instance, Series

#: Keys that a single statement may name; SQLite allows 32,766 variables.
_CHUNK = 500
_KIND = "refused"
#: For want of space: one event for each image, but listed only with its study; see `db.space`.
FOR_SPACE = "refused-for-space"
#: By the loop guard, by policy: no study misses it.
_LOOPED_KIND = "refused-by-guard"
#: What `note` writes, read back: the status, and the SOP Instance UID where it was known.
_MESSAGE = re.compile(r"0x([0-9A-F]{4}) for (?:([^\s:]+):)?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Missing:
    """Images that were refused and did not come since."""

    count: int
    #: The statuses that their sender got, in order (PS3.4 B.2.3).
    statuses: tuple[int, ...]


def note(
    session: Session,
    association_id: str,
    *,
    status: int,
    sop_instance_uid: str,
    reason: str,
    looped: bool = False,
    for_space: bool = False,
) -> None:
    """Write the event of an image that was answered with a failure. `reason` must hold no patient data.

    `looped`: the loop guard refused it; that is no image that its study misses. `for_space`: for want of
    space, and for nothing else.
    """
    kind = _LOOPED_KIND if looped else FOR_SPACE if for_space else _KIND
    message = f"0x{status:04X} for {sop_instance_uid or 'an object'}: {reason}"
    events.note(session, kind, message, association_id=association_id)


def missing(session: Session, association_ids: Iterable[str]) -> Missing:
    """What the associations refused and no study that they carried has by now.

    An image that was refused twice counts once; one without a UID counts each time.
    """
    carriers = list(association_ids)
    refused: dict[str, int] = {}
    found = session.execute(
        select(Event.id, Event.message).where(
            Event.kind.in_([_KIND, FOR_SPACE]), Event.association_id.in_(carriers)
        )
    )
    for event_id, message in found:
        said = _MESSAGE.match(message)
        if said is not None:
            refused[said[2] or f"event {event_id}"] = int(said[1], 16)
    for uid in _arrived(session, sorted(refused), carriers):
        del refused[uid]
    return Missing(count=len(refused), statuses=tuple(sorted(set(refused.values()))))


def _arrived(session: Session, uids: list[str], carriers: list[str]) -> set[str]:
    """Those of the images that are in a study which the associations carried."""
    carried = (
        select(Series.study_id)
        .join(Instance, Instance.series_id == Series.id)
        .where(Instance.association_id.in_(carriers))
    )
    series = select(Series.id).where(Series.study_id.in_(carried))
    arrived: set[str] = set()
    for start in range(0, len(uids), _CHUNK):
        arrived.update(
            session.scalars(
                select(Instance.sop_instance_uid).where(
                    Instance.series_id.in_(series),
                    Instance.sop_instance_uid.in_(uids[start : start + _CHUNK]),
                )
            )
        )
    return arrived
