"""What is shown of studies, jobs and deliveries: the shapes of --json, of the API and of the page."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel


class View(BaseModel):
    """Something that is shown."""


class SeriesView(View):
    """A series of a study."""

    series_instance_uid: str
    modality: str
    description: str
    instances: int


class StudyLine(View):
    """A study in a list."""

    study_instance_uid: str
    state: str
    revision: int
    patient_id: str
    accession_number: str
    study_date: str
    description: str
    modalities: list[str]
    instances: int
    received_at: datetime
    #: Seconds since the last change of state or image.
    age_seconds: float
    #: State per job, e.g. {"done": 1}.
    jobs: dict[str, int]
    #: What needs a person, in words; "" where nothing does.
    problem: str


class JobLine(View):
    """A job in a list."""

    id: int
    study_instance_uid: str
    route: str
    model: str
    model_version: str
    state: str
    attempts: int
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None
    #: Seconds from the job's making to its end, or until now.
    age_seconds: float
    reason: str
    error: str
    engine: str


class DeliveryLine(View):
    """A delivery in a list."""

    id: int
    job_id: int
    kind: str
    sop_instance_uid: str
    destination: str
    state: str
    attempts: int
    next_attempt_at: datetime | None
    sent_at: datetime | None
    status: str
    comment: str


class MeasurementLine(View):
    """A measurement of a job."""

    key: str
    meaning: str
    code: str
    segment: str
    value: float
    unit: str


class FindingLine(View):
    """A finding of a job."""

    key: str
    meaning: str
    code: str
    present: bool
    urgency: str
    explanation: str


class ObjectLine(View):
    """A result object of a job."""

    kind: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    path: str
    size: int
    sha256: str
    verified: bool
    problem: str


class JobDetail(JobLine):
    """Everything about a job."""

    identity: str
    model_digest: str
    series_instance_uid: str
    destinations: list[str]
    seconds: dict[str, float]
    notes: list[str]
    measurements: list[MeasurementLine]
    findings: list[FindingLine]
    objects: list[ObjectLine]
    deliveries: list[DeliveryLine]


class DecisionLine(View):
    """What a route said about a series."""

    route: str
    model: str
    series_instance_uid: str
    matched: bool
    reason: str
    trace: dict[str, Any]


class EventLine(View):
    """Something that happened."""

    at: datetime
    kind: str
    message: str


class Why(View):
    """Everything that is known of a study: what was seen, which rules matched, what ran, what left."""

    study: StudyLine
    series: list[SeriesView]
    evidence: dict[str, Any] | None
    decisions: list[DecisionLine]
    jobs: list[JobDetail]
    events: list[EventLine]


class Snapshot(View):
    """Counts for the page's head and the metrics."""

    studies: dict[str, int]
    jobs: dict[str, int]
    deliveries: dict[str, int]
    #: Living processes per role.
    processes: dict[str, int]
    #: Age of the job that waits longest; 0 where none waits.
    oldest_job_seconds: float
