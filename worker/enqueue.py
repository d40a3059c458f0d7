"""The only sender of messages: after the commit, with row ids only, and never required to arrive."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from types import MappingProxyType

from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session

from db import commitment_requests, priorities
from db import deliveries as delivery_rows
from db import jobs as job_rows
from db.base import Database
from db.priorities import Priority
from worker import limits
from worker.app import app
from worker.sections import Work

logger = logging.getLogger(__name__)

#: A worker ends itself at a job's limit. One that cannot, because nothing in it runs any more, is ended by
#: its parent so much later: after all that a worker does with a job before and after its analysis.
BACKSTOP = timedelta(seconds=20)


def jobs(database: Database, job_ids: Sequence[int], work: Work) -> None:
    """Nudge the workers about queued jobs."""
    with database.read() as session:
        allowed = limits.of_jobs(session, job_ids, work)
        turns = priorities.of_jobs(session, job_ids)
    seconds = {job_id: math.ceil((each.hard + BACKSTOP).total_seconds()) for job_id, each in allowed.items()}
    _send(
        database,
        "analyse",
        job_ids,
        job_rows.mark_nudged,
        queue=work.queue,
        time_limits=seconds,
        turns=turns,
    )


def deliveries(database: Database, delivery_ids: Sequence[int]) -> None:
    """Nudge the senders about due deliveries."""
    with database.read() as session:
        turns = priorities.of_deliveries(session, delivery_ids)
    _send(database, "deliver", delivery_ids, delivery_rows.mark_nudged, turns=turns)


def next_delivery(database: Database, delivery_id: int) -> None:
    """Nudge a sender about what else waits for a delivery's destination: one at a time speaks with each."""
    with database.read() as session:
        following = delivery_rows.next_for(session, delivery_id, datetime.now(UTC))
    deliveries(database, following)


def commitments(database: Database, delivery_ids: Sequence[int]) -> None:
    """Nudge the senders about deliveries whose commitment is to be asked for."""
    _send(database, "commit", delivery_ids, delivery_rows.mark_nudged)


def answers(database: Database, request_ids: Sequence[int]) -> None:
    """Nudge the senders about peers that are to be told what we hold."""
    _send(database, "answer", request_ids, commitment_requests.mark_nudged)


def _send(
    database: Database,
    task: str,
    ids: Sequence[int],
    mark: Callable[[Session, Sequence[int], datetime], None],
    *,
    queue: str | None = None,
    time_limits: Mapping[int, int] = MappingProxyType({}),
    turns: Mapping[int, int] = MappingProxyType({}),
) -> None:
    """Send one message per id, of the priority in `turns`, and remember when; None: to the task's own queue.

    A broker that is away leaves them to the sweep.
    """
    if not ids:
        return
    sent = []
    try:
        for row_id in ids:
            app.send_task(
                task,
                args=[row_id],
                queue=queue,
                retry=False,
                time_limit=time_limits.get(row_id),
                priority=int(turns.get(row_id, Priority.ROUTINE)),
            )
            sent.append(row_id)
    except OperationalError:
        logger.warning("the broker is away; the sweep will send %s messages again", len(ids) - len(sent))
    if sent:
        with database.write() as session:
            mark(session, sent, datetime.now(UTC))
