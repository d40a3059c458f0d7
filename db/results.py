"""What jobs found and made, as rows, each written once."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db import states
from db.models import Box, Delivery, Finding, Job, Measurement, ResultObject, Segment
from db.states import JOB_ENDED, DeliveryState


def replace_findings(
    session: Session,
    job_id: int,
    *,
    segments: Sequence[dict[str, Any]],
    measurements: Sequence[dict[str, Any]],
    findings: Sequence[dict[str, Any]],
    boxes: Sequence[dict[str, Any]] = (),
) -> None:
    """Write what a job found, in place of what an earlier attempt of it wrote."""
    for table, rows in (
        (Segment, segments),
        (Measurement, measurements),
        (Finding, findings),
        (Box, boxes),
    ):
        session.execute(delete(table).where(table.job_id == job_id))
        session.add_all(table(job_id=job_id, **row) for row in rows)


def replace_objects(
    session: Session,
    job_id: int,
    objects: Sequence[dict[str, Any]],
    *,
    destinations: Sequence[str],
    without: Collection[tuple[str, str]] = (),
    at: datetime,
) -> list[int]:
    """Write the objects that a job made and a pending delivery for each verified one and destination.

    Except for the pairs of a kind and a destination in `without`.
    An object that an earlier attempt wrote (the same SOP Instance UID) keeps its row and its deliveries;
    the dead ones among them are tried again, unless it is not verified this time: then none is.
    Returns the ids of the pending deliveries.
    """
    made = []
    for values in objects:
        row = session.scalar(
            select(ResultObject).where(ResultObject.sop_instance_uid == values["sop_instance_uid"])
        )
        if row is None:
            row = ResultObject(job_id=job_id, **values)
            session.add(row)
        else:
            for name, value in {**values, "purged_at": None}.items():
                setattr(row, name, value)
        made.append(row)
    session.flush()
    for row in made:
        if not row.verified:
            _move_deliveries(session, row.id, DeliveryState.PENDING, DeliveryState.DEAD, comment=row.problem)
    return [
        delivery.id
        for row in made
        if row.verified
        for delivery in _deliveries(
            session, row.id, [name for name in destinations if (row.kind, name) not in without], at=at
        )
        if delivery.state == DeliveryState.PENDING
    ]


def barren(session: Session, identities: Sequence[str]) -> set[str]:
    """Those of the jobs' identities whose job ended and made no object that has a row."""
    ended = Job.state.in_([state.value for state in JOB_ENDED])
    made = select(ResultObject.id).where(ResultObject.job_id == Job.id)
    return set(
        session.scalars(select(Job.identity).where(Job.identity.in_(identities), ended, ~made.exists()))
    )


def _deliveries(
    session: Session, result_id: int, destinations: Sequence[str], *, at: datetime
) -> list[Delivery]:
    """The deliveries of one result, made where missing; dead ones begin anew."""
    _move_deliveries(
        session,
        result_id,
        DeliveryState.DEAD,
        DeliveryState.PENDING,
        Delivery.destination.in_(destinations),
        attempts=0,
        first_attempt_at=None,
        next_attempt_at=at,
        nudged_at=None,
    )
    existing = {
        delivery.destination: delivery
        for delivery in session.scalars(
            select(Delivery).where(Delivery.result_id == result_id).order_by(Delivery.id)
        )
    }
    for destination in destinations:
        if destination not in existing:
            existing[destination] = Delivery(
                result_id=result_id,
                destination=destination,
                state=DeliveryState.PENDING.value,
                created_at=at,
                next_attempt_at=at,
            )
            session.add(existing[destination])
    session.flush()
    return list(existing.values())


def _move_deliveries(
    session: Session, result_id: int, from_state: DeliveryState, to: DeliveryState, *where: Any, **values: Any
) -> None:
    """Move those deliveries of one result that are in a state and meet the conditions."""
    found = select(Delivery.id).where(
        Delivery.result_id == result_id, Delivery.state == from_state.value, *where
    )
    for delivery_id in session.scalars(found).all():
        states.advance(session, Delivery, delivery_id, from_state, to, **values)


def segments_of(session: Session, job_id: int) -> list[Segment]:
    """A job's segments by number."""
    return list(session.scalars(select(Segment).where(Segment.job_id == job_id).order_by(Segment.number)))


def measurements_of(session: Session, job_id: int) -> list[Measurement]:
    """A job's measurements in the order it made them."""
    return list(
        session.scalars(select(Measurement).where(Measurement.job_id == job_id).order_by(Measurement.id))
    )


def findings_of(session: Session, job_id: int) -> list[Finding]:
    """A job's findings in the order it made them."""
    return list(session.scalars(select(Finding).where(Finding.job_id == job_id).order_by(Finding.id)))
