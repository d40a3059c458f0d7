"""Rows to begin a test with, each made through the functions that the product uses."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from db import deliveries, intake, jobs, leases, results
from db.models import Delivery, Job, Study
from db.new_instance import NewInstance
from db.states import JobState

#: The tests' present.
NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
#: How long a lease lasts in the tests.
LEASE = timedelta(minutes=5)
SECOND = timedelta(seconds=1)
#: Codes: a measurement, an anatomical structure, a finding.
LAA = {"code_value": "126-1", "code_scheme": "99SR", "code_meaning": "Low attenuation area"}
LUNG = {"code_value": "39607008", "code_scheme": "SCT", "code_meaning": "Lung"}
NODULE = {"code_value": "27925004", "code_scheme": "SCT", "code_meaning": "Nodule"}


def new_instance(
    number: int = 1, *, study: str = "1.2.1", series: str | None = None, **values: Any
) -> NewInstance:
    """A file of the spool: number 2 of study 1.2.1 is SOP Instance UID 1.2.1.1.2."""
    series = series or f"{study}.1"
    uid = f"{series}.{number}"
    return NewInstance(
        **{
            "study_instance_uid": study,
            "series_instance_uid": series,
            "sop_instance_uid": uid,
            "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
            "transfer_syntax_uid": "1.2.840.10008.1.2.1",
            "path": f"{study}/{series}/{uid}.dcm",
            "size": 1000 + number,
            "sha256": digest(uid),
            "patient_id": "P1",
            "modality": "CT",
            "association_id": None,
            "received_at": NOW,
            "conflicting": False,
            "duplicate": False,
            **values,
        }
    )


def digest(text: str) -> str:
    """A digest that a text stands behind."""
    return hashlib.sha256(text.encode()).hexdigest()


def receive(session: Session, study: str = "1.2.1", *, count: int = 1, **values: Any) -> Study:
    """A study that has received `count` images."""
    intake.record_instances(session, [new_instance(n + 1, study=study, **values) for n in range(count)])
    return session.scalars(select(Study).where(Study.study_instance_uid == study)).one()


def make_job(
    session: Session,
    study: Study,
    identity: str = "a",
    *,
    roles: Mapping[str, int] = MappingProxyType({}),
    **values: Any,
) -> Job:
    """A queued job of the study's present revision, about the first series or those of these roles."""
    return jobs.create(
        session,
        {
            "study_id": study.id,
            "series_id": study.series[0].id,
            "revision": study.revision,
            "route": "chest ct",
            "model": "chest-ct",
            "model_version": "1",
            "model_digest": digest("chest-ct"),
            "identity": digest(identity),
            "destinations": ["pacs"],
            "state": JobState.QUEUED.value,
            "created_at": NOW,
            **values,
        },
        roles,
    )


def delivering(
    session: Session,
    study: Study,
    *,
    identity: str = "a",
    objects: int = 1,
    destinations: tuple[str, ...] = ("pacs",),
) -> tuple[Job, list[int]]:
    """A job whose objects are on their way, and the ids of its deliveries."""
    job = make_job(session, study, identity)
    taken = leases.claim(session, job.id, owner="w", now=NOW, lease=LEASE)
    assert taken is not None
    ids = results.replace_objects(
        session, job.id, [new_object(identity, n) for n in range(objects)], destinations=destinations, at=NOW
    )
    assert leases.leave_running(session, job.id, JobState.DELIVERING, owner="w")
    return jobs.get(session, job.id), ids


def new_object(identity: str, number: int, **values: Any) -> dict[str, Any]:
    """Column values of a result object."""
    return {
        "kind": "seg",
        "path": f"results/{identity}/{number}.dcm",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.66.4",
        "sop_instance_uid": f"1.9.{int(digest(identity)[:8], 16)}.{number}",
        "series_instance_uid": f"1.9.{int(digest(identity)[:8], 16)}",
        "size": 5000,
        "sha256": digest(f"{identity}{number}"),
        "verified": True,
        "problem": "",
        **values,
    }


def claim_all(session: Session, delivery_id: int, *, owner: str = "d", now: datetime = NOW) -> list[Delivery]:
    """Claim a delivery and its siblings."""
    return deliveries.claim(session, delivery_id, owner=owner, now=now, lease=LEASE)


def new_segment(number: int = 1) -> dict[str, Any]:
    """A segment's row."""
    return {"number": number, "label": f"lung {number}", "voxels": 1000, **LUNG}


def new_measurement(value: float, key: str = "laa", **values: Any) -> dict[str, Any]:
    """A measurement's row."""
    return {
        "key": key,
        "segment_number": 1,
        "segment_label": "lung 1",
        "value": value,
        "unit": "%",
        **LAA,
        **values,
    }


def new_finding(present: bool) -> dict[str, Any]:
    """A finding's row."""
    return {
        "key": "nodule",
        "present": present,
        "urgency": "routine",
        "explanation": "p = 0.7 > 0.5",
        **NODULE,
    }
