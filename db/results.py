"""What jobs found and made, as rows: written once, asked for in one query."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from db import states
from db.models import Delivery, Finding, Job, Measurement, ResultObject, Segment, Series, Study
from db.states import JOB_ENDED, DeliveryState


def replace_findings(
    session: Session,
    job_id: int,
    *,
    segments: Sequence[dict[str, Any]],
    measurements: Sequence[dict[str, Any]],
    findings: Sequence[dict[str, Any]],
) -> None:
    """Write what a job found, in place of what an earlier attempt of it wrote."""
    for table, rows in ((Segment, segments), (Measurement, measurements), (Finding, findings)):
        session.execute(delete(table).where(table.job_id == job_id))
        session.add_all(table(job_id=job_id, **row) for row in rows)


def replace_objects(
    session: Session,
    job_id: int,
    objects: Sequence[dict[str, Any]],
    *,
    destinations: Sequence[str],
    at: datetime,
) -> list[int]:
    """Write the objects that a job made and a pending delivery for each verified one and destination.

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
        for delivery in _deliveries(session, row.id, destinations, at=at)
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
        for delivery in session.scalars(select(Delivery).where(Delivery.result_id == result_id))
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


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundValue:
    """One line of `secondread findings`: a measurement or a finding, with where it came from."""

    study_instance_uid: str
    accession_number: str
    study_date: str
    series_description: str
    job_id: int
    model: str
    model_version: str
    finished_at: datetime | None
    #: "measurement" or "finding".
    kind: str
    key: str
    code: str
    scheme: str
    meaning: str
    segment: str
    #: A measurement's value in `unit`; a finding's presence, 1 or 0.
    value: float
    unit: str
    explanation: str


def search(
    session: Session,
    *,
    model: str | None = None,
    code: str | None = None,
    since: datetime | None = None,
    above: float | None = None,
    limit: int | None = None,
) -> list[FoundValue]:
    """Measurements and findings of the current revisions, newest job first.

    `code` matches a code value or a manifest key; `above` keeps values greater than it.
    """
    found = [
        *_search_measurements(session, model=model, code=code, since=since, above=above, limit=limit),
        *_search_findings(session, model=model, code=code, since=since, above=above, limit=limit),
    ]
    found.sort(key=lambda value: -value.job_id)
    return found if limit is None else found[:limit]


#: The columns of the journey that every found value carries.
_ORIGIN = (
    Study.study_instance_uid,
    Study.accession_number,
    Study.study_date,
    func.coalesce(Series.series_description, "").label("series_description"),
    Job.id.label("job_id"),
    Job.model,
    Job.model_version,
    Job.finished_at,
)


def _search_measurements(
    session: Session,
    *,
    model: str | None,
    code: str | None,
    since: datetime | None,
    above: float | None,
    limit: int | None,
) -> list[FoundValue]:
    """The measurements' part of `search`."""
    statement = select(
        *_ORIGIN,
        Measurement.key,
        Measurement.code_value.label("code"),
        Measurement.code_scheme.label("scheme"),
        Measurement.code_meaning.label("meaning"),
        Measurement.segment_label.label("segment"),
        Measurement.value,
        Measurement.unit,
    ).join(Job, Job.id == Measurement.job_id)
    if above is not None:
        statement = statement.where(Measurement.value > above)
    statement = _narrow(statement, Measurement, model=model, code=code, since=since)
    rows = session.execute(statement.order_by(Job.id.desc(), Measurement.id).limit(limit)).mappings()
    return [FoundValue(**row, kind="measurement", explanation="") for row in rows]


def _search_findings(
    session: Session,
    *,
    model: str | None,
    code: str | None,
    since: datetime | None,
    above: float | None,
    limit: int | None,
) -> list[FoundValue]:
    """The findings' part of `search`."""
    statement = select(
        *_ORIGIN,
        Finding.key,
        Finding.code_value.label("code"),
        Finding.code_scheme.label("scheme"),
        Finding.code_meaning.label("meaning"),
        Finding.present,
        Finding.explanation,
    ).join(Job, Job.id == Finding.job_id)
    if above is not None:
        # Presence counts as 1, absence as 0.
        statement = statement.where(
            Finding.present.in_([present for present in (False, True) if present > above])
        )
    statement = _narrow(statement, Finding, model=model, code=code, since=since)
    rows = session.execute(statement.order_by(Job.id.desc(), Finding.id).limit(limit)).mappings()
    return [FoundValue(**_presence(dict(row)), kind="finding", segment="", unit="") for row in rows]


def _presence(columns: dict[str, Any]) -> dict[str, Any]:
    """A finding's columns with its presence as a value."""
    columns["value"] = float(columns.pop("present"))
    return columns


def _narrow(
    statement: Any,
    table: type[Measurement] | type[Finding],
    *,
    model: str | None,
    code: str | None,
    since: datetime | None,
) -> Any:
    """Join the origin and apply the conditions that both searches share."""
    statement = (
        statement.join(Study, Study.id == Job.study_id)
        .outerjoin(Series, Series.id == Job.series_id)
        .where(Job.revision == Study.revision)
    )
    if model is not None:
        statement = statement.where(Job.model == model)
    if code is not None:
        statement = statement.where((table.code_value == code) | (table.key == code))
    if since is not None:
        statement = statement.where(Job.created_at >= since)
    return statement
