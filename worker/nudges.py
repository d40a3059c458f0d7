"""Messages that were lost are sent again: fewer wait at the broker than rows do in the database."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import partial

from db import commitment_requests, commitments, deliveries, jobs
from worker import broker, enqueue
from worker.errors import BrokerError
from worker.station import Station

logger = logging.getLogger(__name__)

#: A message that is not at the broker may be on its way to a worker's claim for so long.
IN_FLIGHT = timedelta(seconds=1)
#: A message about a commitment may be lost when it was not heeded for so long.
ASK_AGAIN = timedelta(seconds=30)
_NEVER = datetime.min.replace(tzinfo=UTC)


def send_again(station: Station, now: datetime) -> None:
    """Nudge about every due row whose message was never sent, and about as many more as are missing.

    A broker that comes back empty, and a worker that dies with a message, are found within two looks;
    a long queue is not sent again and again because it takes its time. What waits in the queue of a device that is
    no longer used counts for nothing: its jobs are sent to the other's.
    """
    analyses = station.settings.work.queue
    try:
        waiting = broker.queue_lengths(station.settings, [analyses, "deliver"])
    except BrokerError as error:
        logger.warning("%s; what waits is sent when it is back", error)
        return
    with station.database.read() as session:
        job_ids = _unheard(partial(jobs.unheard, session, now=now), waiting[analyses], now)
        delivery_ids = _unheard(partial(deliveries.due, session, now=now), waiting["deliver"], now)
        # Who sends the last result asks at once: these are few, and not in a hurry.
        commitment_ids = commitments.due(session, now=now, nudged_before=now - ASK_AGAIN)
        request_ids = commitment_requests.due(session, now=now, nudged_before=now - ASK_AGAIN)
    enqueue.jobs(station.database, job_ids, station.settings.work)
    enqueue.deliveries(station.database, delivery_ids)
    enqueue.commitments(station.database, commitment_ids)
    enqueue.answers(station.database, request_ids)


def _unheard(due: Callable[..., list[int]], waiting: int, now: datetime) -> list[int]:
    """Ids of due rows to nudge about, where so many messages wait; `due` takes `nudged_before`."""
    never = due(nudged_before=_NEVER)
    missing = len(due(nudged_before=now)) - len(never) - waiting
    if missing <= 0:
        return never
    # Oldest first: while others are taken in their order, the one without a message becomes the oldest.
    silent = [row_id for row_id in due(nudged_before=now - IN_FLIGHT) if row_id not in set(never)]
    return never + silent[:missing]
