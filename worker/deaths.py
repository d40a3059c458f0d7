"""What dead processes held is given back: their associations are over, their deliveries are free."""

from __future__ import annotations

import logging
from datetime import datetime

from db import associations, commitment_requests, deliveries, events
from worker import heartbeat, machine
from worker.station import Station

logger = logging.getLogger(__name__)


def bury(station: Station, now: datetime) -> set[str]:
    """Bury the processes that are dead; the roles that they played.

    One that ran on this machine is known to be dead at once, one elsewhere when it has been silent for long.
    """
    with station.database.write() as session:
        dead = associations.dead(session, silent_since=now - heartbeat.SILENT, is_gone=machine.is_gone)
        lost = associations.bury(session, [process.id for process in dead], at=now)
        freed = deliveries.free_orphans(session)
        unanswered = commitment_requests.free_orphans(session)
        for process in dead:
            silent = (now - process.seen_at).total_seconds()
            text = f"{process.role} {process.id} ended without a word; last seen {silent:.0f} s before"
            events.note(session, "process-lost", text)
            logger.warning("%s", text)
    if lost:
        logger.warning("%s associations were lost with the process that held them", lost)
    if freed:
        logger.warning("%s deliveries were held by a dead process and are sent again", freed)
    if unanswered:
        logger.warning("%s storage commitment requests were held by a dead process", unanswered)
    return {process.role for process in dead}
