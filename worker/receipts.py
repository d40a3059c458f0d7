"""How a delivery ends: the destination's answer, in one commit that moves the state and keeps the words."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy.orm import Session

from db import deliveries, events, jobs, studies
from db.models import Delivery
from dicom_node.senders import Outcome, Verdict, retry
from worker.bench import Post

logger = logging.getLogger(__name__)

#: Why a file that is no longer what was verified does not leave.
DAMAGED = "the file was changed on disk after it was verified; find out why, then retry its job"


def inspect(post: Post, rows: Sequence[Delivery]) -> tuple[list[Delivery], list[Delivery]]:
    """Deliveries whose files are still what the gate let through, and those whose files are not.

    A file that is gone is among the first: its sender says so.
    """
    whole: list[Delivery] = []
    damaged: list[Delivery] = []
    for row in rows:
        path = post.results_root / row.result.path
        changed = path.exists() and hashlib.sha256(path.read_bytes()).hexdigest() != row.result.sha256
        (damaged if changed else whole).append(row)
    return whole, damaged


def settle_alike(post: Post, rows: Sequence[Delivery], verdict: Verdict, comment: str) -> None:
    """Give the same answer to several deliveries that got none of their own."""
    for row in rows:
        uid = row.result.sop_instance_uid
        settle(post, row, Outcome(sop_instance_uid=uid, verdict=verdict, status=None, comment=comment))


def settle(post: Post, row: Delivery, outcome: Outcome) -> None:
    """Write a destination's answer: SENT, DEAD, or PENDING until the next attempt.

    Nothing is written where the delivery is not this sender's any more: it was taken for dead, and
    whoever sends now, or has sent since, knows better.
    """
    now = datetime.now(UTC)
    with post.database.write() as session:
        if outcome.verdict in (Verdict.DELIVERED, Verdict.WARNING):
            written = _sent(session, post, row, outcome, now)
        else:
            written = _not_sent(session, post, row, outcome, now)
        if written and jobs.settle_delivering(session, row.result.job_id, now):
            studies.finish_if_ended(session, row.result.job.study_id, now)
    if not written:
        logger.warning("%s: this sender no longer holds it; its answer is dropped", _named(row))


def _sent(session: Session, post: Post, row: Delivery, outcome: Outcome, now: datetime) -> bool:
    """The destination has it; a remark of its own stays with it."""
    answer: dict[str, Any] = {"status": outcome.status, "comment": outcome.comment}
    destination = post.destinations.get(row.destination)
    awaits = destination is not None and destination.commitment
    written = deliveries.sent(session, row.id, owner=post.owner, at=now, awaits_commitment=awaits, **answer)
    if written:
        remark = "" if outcome.verdict is Verdict.DELIVERED else f", with a warning: {_said(outcome)}"
        kind = row.result.kind.upper()
        logger.info("job %s: %s is at %s%s", row.result.job_id, kind, row.destination, remark)
    return written


def _not_sent(session: Session, post: Post, row: Delivery, outcome: Outcome, now: datetime) -> bool:
    """Once more, later; or never, where that brings nothing."""
    answer: dict[str, Any] = {"status": outcome.status, "comment": outcome.comment}
    again = retry.next_attempt(row.first_attempt_at or now, row.attempts, now)
    if outcome.verdict is Verdict.REFUSED or again is None:
        written = deliveries.dead(session, row.id, owner=post.owner, **answer)
        if written:
            logger.error("%s is given up: %s", _named(row), _said(outcome))
            note_dead(session, row, outcome.comment)
        return written
    written = deliveries.postpone(session, row.id, owner=post.owner, until=again, **answer)
    if written:
        logger.warning("%s is sent again at %s: %s", _named(row), f"{again:%H:%M:%S} UTC", _said(outcome))
    return written


def note_dead(session: Session, row: Delivery, comment: str) -> None:
    """The event that says that a delivery waits for a person now."""
    message = f"{row.result.kind} to {row.destination} is dead: {comment}"
    events.note(
        session,
        "dead-delivery",
        message,
        job_id=row.result.job_id,
        study_id=row.result.job.study_id,
    )


def _named(row: Delivery) -> str:
    """A delivery as the log names it."""
    return f"job {row.result.job_id}: {row.result.kind.upper()} to {row.destination} (delivery {row.id})"


def _said(outcome: Outcome) -> str:
    """What the log may say of an answer: a peer's own comment may quote the patient, our words do not."""
    return outcome.comment if outcome.status is None else f"status 0x{outcome.status:04X}"
