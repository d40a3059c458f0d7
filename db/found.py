"""What was found, over all studies: asked for in one query."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session, aliased

from db import job_series
from db.models import Box, Finding, Job, Measurement, Series, Study
from db.states import JobState


@dataclass(frozen=True, kw_only=True, slots=True)
class FoundValue:
    """One line of `secondread findings`: a measurement, a finding or a box, with where it came from."""

    study_instance_uid: str
    accession_number: str
    study_date: str
    series_description: str
    job_id: int
    model: str
    model_version: str
    #: The study's revision that was analysed.
    revision: int
    #: Whether that is its present one; otherwise images came since, and no answer about them yet.
    current: bool
    finished_at: datetime | None
    #: "measurement", "finding" or "box".
    kind: str
    key: str
    code: str
    scheme: str
    meaning: str
    segment: str
    #: A measurement's value in `unit`; a finding's presence, 1 or 0; a box's score, 0 to 1.
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
    """What the newest answer of each model about each series says, newest job first.

    `code` matches a code value or a manifest key; `above` keeps values greater than it.
    """
    asked = _Asked(model=model, code=code, since=since, above=above, limit=limit)
    found = [*_measurements(session, asked), *_findings(session, asked), *_boxes(session, asked)]
    found.sort(key=lambda value: -value.job_id)
    return found if limit is None else found[:limit]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Asked:
    """What `search` was asked."""

    model: str | None
    code: str | None
    since: datetime | None
    above: float | None
    limit: int | None


#: The columns of the journey that every found value carries.
_ORIGIN = (
    Study.study_instance_uid,
    Study.accession_number,
    Study.study_date,
    func.coalesce(Series.series_description, "").label("series_description"),
    Job.id.label("job_id"),
    Job.model,
    Job.model_version,
    Job.revision,
    (Job.revision == Study.revision).label("current"),
    Job.finished_at,
)


def _measurements(session: Session, asked: _Asked) -> list[FoundValue]:
    """The measurements' part of `search`."""
    columns = (Measurement.segment_label.label("segment"), Measurement.value, Measurement.unit)
    rows = _rows(session, Measurement, columns, asked, beyond=lambda above: Measurement.value > above)
    return [FoundValue(**row, kind="measurement", explanation="") for row in rows]


def _findings(session: Session, asked: _Asked) -> list[FoundValue]:
    """The findings' part of `search`."""

    def beyond(above: float) -> ColumnElement[bool]:
        # Presence counts as 1, absence as 0.
        return Finding.present.in_([present for present in (False, True) if present > above])

    rows = _rows(session, Finding, (Finding.present, Finding.explanation), asked, beyond=beyond)
    return [FoundValue(**_presence(dict(row)), kind="finding", segment="", unit="") for row in rows]


def _boxes(session: Session, asked: _Asked) -> list[FoundValue]:
    """The boxes' part of `search`."""
    columns = (Box.label, Box.number, Box.slice, Box.size_mm, Box.score.label("value"))
    rows = _rows(session, Box, columns, asked, beyond=lambda above: Box.score > above)
    return [FoundValue(**_placed(dict(row)), kind="box", segment="", unit="1") for row in rows]


def _placed(columns: dict[str, Any]) -> dict[str, Any]:
    """A box's columns with its name, its place and its size in words."""
    label, number, index, size = (columns.pop(name) for name in ("label", "number", "slice", "size_mm"))
    millimetres = " x ".join(f"{length:.1f}" for length in size)
    columns["explanation"] = f"{label} {number}, slice {index}{f', {millimetres} mm' if size else ''}"
    return columns


def _presence(columns: dict[str, Any]) -> dict[str, Any]:
    """A finding's columns with its presence as a value."""
    columns["value"] = float(columns.pop("present"))
    return columns


def _rows(
    session: Session,
    table: type[Measurement] | type[Finding] | type[Box],
    columns: Sequence[Any],
    asked: _Asked,
    *,
    beyond: Callable[[float], ColumnElement[bool]],
) -> Iterator[Any]:
    """The rows of a table with origin, code and `columns`, newest job first for each meaning that the code may have."""
    coded = (
        table.key,
        table.code_value.label("code"),
        table.code_scheme.label("scheme"),
        table.code_meaning.label("meaning"),
    )
    statement = select(*_ORIGIN, *coded, *columns).join(Job, Job.id == table.job_id)
    if asked.above is not None:
        statement = statement.where(beyond(asked.above))
    statement = _narrow(statement, asked)
    if asked.code is None:
        newest = statement.order_by(Job.id.desc(), table.id)
        yield from session.execute(newest.limit(asked.limit)).mappings()
        return
    # Apart, each from an index in this order: with OR all that was ever measured would be read and sorted.
    for meant in (table.key == asked.code, and_(table.code_value == asked.code, table.key != asked.code)):
        wanted = statement.where(meant).order_by(table.job_id.desc(), table.id)
        yield from session.execute(wanted.limit(asked.limit)).mappings()


def _narrow(statement: Any, asked: _Asked) -> Any:
    """Join the origin and apply the conditions that all tables share."""
    statement = (
        statement.join(Study, Study.id == Job.study_id)
        .outerjoin(Series, Series.id == Job.series_id)
        .where(_answered(Job), ~_newer_answer())
    )
    if asked.model is not None:
        statement = statement.where(Job.model == asked.model)
    if asked.since is not None:
        # Jobs are searched newest id first: this says where to stop looking. `+ 0` and `coalesce` keep
        # SQLite from walking up all ids to the first, and from sorting what it would find by time.
        recent = aliased(Job)
        first = select(func.min(recent.id + 0)).where(recent.created_at >= asked.since).scalar_subquery()
        statement = statement.where(
            Job.id >= first, func.coalesce(Job.created_at, asked.since) >= asked.since
        )
    return statement


def _answered(job: type[Job]) -> ColumnElement[bool]:
    """Whether a job came to an answer that may be believed: its objects read back as what it found."""
    return and_(job.engine != "", or_(job.state != JobState.FAILED.value, job.reason != "gate"))


def _newer_answer() -> ColumnElement[bool]:
    """Whether a newer job of the same model about the same series came to an answer."""
    newer = aliased(Job)
    later = or_(newer.revision > Job.revision, and_(newer.revision == Job.revision, newer.id > Job.id))
    same = (
        newer.study_id == Job.study_id,
        job_series.same(newer, Job),
        newer.model == Job.model,
        newer.parameters == Job.parameters,
    )
    return select(newer.id).where(*same, later, _answered(newer)).exists()
