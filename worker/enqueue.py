"""The only sender of messages: after the commit, with row ids only, and never required to arrive."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from kombu.exceptions import OperationalError
from sqlalchemy.orm import Session

from db import deliveries as delivery_rows
from db import jobs as job_rows
from db.base import Database
from worker.app import app

logger = logging.getLogger(__name__)


def jobs(database: Database, job_ids: Sequence[int]) -> None:
    """Nudge the workers about queued jobs."""
    _send(database, "analyse", job_ids, job_rows.mark_nudged)


def deliveries(database: Database, delivery_ids: Sequence[int]) -> None:
    """Nudge the senders about due deliveries."""
    _send(database, "deliver", delivery_ids, delivery_rows.mark_nudged)


def _send(
    database: Database,
    task: str,
    ids: Sequence[int],
    mark: Callable[[Session, Sequence[int], datetime], None],
) -> None:
    """Send one message per id and remember when; a broker that is away leaves them to the sweep."""
    if not ids:
        return
    sent = []
    try:
        for row_id in ids:
            app.send_task(task, args=[row_id], retry=False)
            sent.append(row_id)
    except OperationalError:
        logger.warning("the broker is away; the sweep will send %s messages again", len(ids) - len(sent))
    if sent:
        with database.write() as session:
            mark(session, sent, datetime.now(UTC))
