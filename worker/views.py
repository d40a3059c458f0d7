"""What is shown of studies, jobs and deliveries: the shapes of --json, of the API and of the page."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from pydantic import BaseModel, computed_field

from worker.model_views import PlanLine
from worker.report_views import ReportView

#: In the name of the engine that a job ran on, before what it took the place of.
IN_PLACE = ", in place of "


class View(BaseModel):
    """Something that is shown."""


class SeriesView(View):
    """A series of a study."""

    series_instance_uid: str
    modality: str
    description: str
    #: Each once: files that are analysed, or where it is guarded, kept; 0 where they were purged.
    instances: int
    #: How often the very same bytes came again.
    repeated: int
    #: Files of images of which other bytes are analysed.
    set_aside: int
    #: Why the loop guard lets no model have it; "" where nothing speaks against it.
    guarded: str
    #: When it was complete by itself, before its study, and what said so; None where it was not.
    complete_at: datetime | None = None
    evidence: dict[str, Any] | None = None


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
    #: Images, each once: without those kept aside, and without guarded series.
    instances: int
    #: Files of images of which other bytes are analysed.
    set_aside: int
    #: When its files were deleted: `instances` counts those that went, or came again since.
    purged_at: datetime | None = None
    #: How many of its series are results that came back: the loop guard keeps them from the models.
    guarded: int
    received_at: datetime
    #: Seconds since the last change of state or image.
    age_seconds: float
    #: State per job of the present revision, e.g. {"done": 1}.
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
    #: The study's revision that it belongs to.
    revision: int
    #: The job whose results this one's take the place of; None where there are none.
    supersedes: int | None
    state: str
    #: stat, routine or background: whose turn it is among those that wait.
    priority: str
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
    #: Whether it was stored with a remark of the destination's.
    warning: bool
    committed_at: datetime | None
    #: Where the destination has yet to commit to it: how that stands.
    commitment: str


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


class SegmentLine(View):
    """A segment of a job."""

    number: int
    label: str
    code: str
    voxels: int
    #: As #rrggbb; "" where the model that drew it is no longer here.
    colour: str = ""


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
    purged_at: datetime | None = None


class JobDetail(JobLine):
    """Everything about a job."""

    #: A waiting job's next attempt, and when a running one's is stopped.
    not_before: datetime | None
    deadline_at: datetime | None
    identity: str
    model_digest: str
    #: What the model was given for this job, by name.
    parameters: dict[str, Any]
    #: Of the series that its results lie on.
    series_instance_uid: str
    #: Series Instance UIDs by role, where its model looks at several.
    roles: dict[str, str] = {}
    #: The job whose results took the place of this one's; None where none did.
    replaced_by: int | None
    destinations: list[str]
    seconds: dict[str, float]
    notes: list[str]
    segments: list[SegmentLine]
    measurements: list[MeasurementLine]
    findings: list[FindingLine]
    #: None where it has not answered.
    report: ReportView | None
    #: The compiled plan that it ran on; None where on none, or where that is here no longer.
    plan: PlanLine | None = None
    objects: list[ObjectLine]
    deliveries: list[DeliveryLine]

    @property
    def ran_on(self) -> str:
        """The engine that answered."""
        return self.engine.partition(IN_PLACE)[0]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def in_place_of(self) -> str:
        """What it ran in place of, and why; "" where it ran on the engine that is configured."""
        return self.engine.partition(IN_PLACE)[2]


class DecisionLine(View):
    """What a route said about a series; without one, what it said about a study for a model of several series."""

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
    #: Of which study; "" where of none.
    study_instance_uid: str = ""
    #: Of which job; None where of none.
    job_id: int | None = None


class Why(View):
    """Everything that is known of a study: what was seen, which rules matched, what ran, what left."""

    study: StudyLine
    series: list[SeriesView]
    evidence: dict[str, Any] | None
    #: What must end before the study counts as complete; empty where it does.
    waiting_for: list[str]
    decisions: list[DecisionLine]
    jobs: list[JobDetail]
    events: list[EventLine]


class Snapshot(View):
    """Counts for the page's head and the metrics."""

    studies: dict[str, int]
    jobs: dict[str, int]
    deliveries: dict[str, int]
    #: Results per destination that it did not take yet, though they were sent.
    retrying: dict[str, int]
    #: Living processes per role.
    processes: dict[str, int]
    #: Age of the job that waits longest; 0 where none waits.
    oldest_job_seconds: float


class ProcessLine(View):
    """A living process of ours."""

    role: str
    #: host:pid:start time.
    id: str
    started_at: datetime
    seen_at: datetime


class Check(View):
    """One thing that must hold for the installation to work."""

    name: str
    ok: bool
    #: What was found.
    found: str
    #: What to do; "" where it holds, and there is nothing to be done.
    remedy: str


class Readiness(View):
    """Whether the installation works, check by check."""

    ready: bool
    checks: list[Check]


class Problem(View):
    """Why there is no other answer."""

    #: A sentence that says what is wrong, and where it can, what to do.
    detail: str


class Changed(View):
    """What a change asked for by a person came to."""

    id: int
    state: str
    #: False where it was in a state that cannot be changed so.
    changed: bool
    message: str
