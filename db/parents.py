"""The studies and series that received files belong to: made where missing, described by the files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import select, tuple_, update
from sqlalchemy.orm import Session

from db.base import insert_missing
from db.models import Series, Study
from db.new_instance import NewInstance
from db.states import StudyState

#: What a study has from one of its files.
_DESCRIBED = ("patient_id", "issuer_of_patient_id", "accession_number", "study_date", "study_description")


def ensure_studies(session: Session, instances: Sequence[NewInstance]) -> dict[str, Study]:
    """Rows of the studies that the instances name, locked until commit, made where missing."""
    first: dict[str, NewInstance] = {}
    for instance in instances:
        if instance.study_instance_uid not in first or instance.attributes:
            first[instance.study_instance_uid] = instance
    # In one order in every process: two that insert the same keys crosswise would wait for each other.
    wanted = [_study_row(first[uid]) for uid in sorted(first)]
    insert_missing(session, Study, wanted, ["study_instance_uid"])
    rows = session.scalars(
        select(Study)
        .where(Study.study_instance_uid.in_(first))
        .order_by(Study.id)
        .with_for_update(key_share=True)
        .execution_options(populate_existing=True)
    )
    return {study.study_instance_uid: study for study in rows}


def _study_row(instance: NewInstance) -> dict[str, Any]:
    """Column values of a new study."""
    attributes = instance.attributes or {}
    return {
        "study_instance_uid": instance.study_instance_uid,
        "state": StudyState.RECEIVING.value,
        "revision": 1,
        "patient_id": clean(instance.patient_id, 64),
        "issuer_of_patient_id": _text(attributes, "IssuerOfPatientID", 64),
        "accession_number": _text(attributes, "AccessionNumber", 64),
        "study_date": _text(attributes, "StudyDate", 16),
        "study_description": _text(attributes, "StudyDescription", 128),
        "received_at": instance.received_at,
        "last_instance_at": instance.received_at,
        "problem": "",
    }


def _text(attributes: dict[str, Any], keyword: str, length: int) -> str:
    """An attribute as text that fits its column; "" where it is missing or not text."""
    value = attributes.get(keyword)
    return clean(str(value), length) if isinstance(value, str | int | float) else ""


def clean(text: str, length: int) -> str:
    """The text as PostgreSQL takes it: no NUL, nothing that UTF-8 lacks, no longer than its column."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()[:length]


def ensure_series(
    session: Session, instances: Sequence[NewInstance], studies: dict[str, Study]
) -> dict[tuple[int, str], int]:
    """Ids of the series that the instances name, by (study id, Series Instance UID)."""
    wanted: dict[tuple[int, str], dict[str, Any]] = {}
    for instance in instances:
        key = (studies[instance.study_instance_uid].id, instance.series_instance_uid)
        attributes = instance.attributes
        if key not in wanted or (attributes and not wanted[key]["attributes"]):
            wanted[key] = {
                "study_id": key[0],
                "series_instance_uid": key[1],
                "modality": clean(instance.modality, 16),
                "series_description": _text(attributes or {}, "SeriesDescription", 128),
                "attributes": attributes,
            }
    insert_missing(session, Series, list(wanted.values()), ["study_id", "series_instance_uid"])
    for values in wanted.values():
        if values["attributes"]:
            _fill_attributes(session, values)
    found = session.execute(
        select(Series.id, Series.study_id, Series.series_instance_uid).where(
            tuple_(Series.study_id, Series.series_instance_uid).in_(list(wanted))
        )
    )
    return {(study_id, uid): series_id for series_id, study_id, uid in found}


def _fill_attributes(session: Session, values: dict[str, Any]) -> None:
    """Give a series that was made without attributes those of a later file."""
    session.execute(
        update(Series)
        .where(
            Series.study_id == values["study_id"],
            Series.series_instance_uid == values["series_instance_uid"],
            Series.attributes.is_(None),
        )
        .values(attributes=values["attributes"], series_description=values["series_description"])
        .execution_options(synchronize_session=False)
    )


def describe_anew(session: Session, instance: NewInstance, attributes: dict[str, Any]) -> None:
    """Let a file that took another's place speak for its series and study, as the first one did."""
    if not attributes:
        return
    study = session.scalars(
        select(Study).where(Study.study_instance_uid == instance.study_instance_uid)
    ).one()
    described = _study_row(replace(instance, attributes=attributes))
    for name in _DESCRIBED:
        setattr(study, name, described[name])
    series = session.scalars(
        select(Series).where(
            Series.study_id == study.id, Series.series_instance_uid == instance.series_instance_uid
        )
    ).one()
    series.attributes = attributes
    series.modality = clean(instance.modality, 16)
    series.series_description = _text(attributes, "SeriesDescription", 128)
