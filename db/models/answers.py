"""What was answered: which route decided, which job ran, what it found, what must leave."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, ForeignKey, Index, SmallInteger, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Base
from db.models.lengths import DIGEST, UID

if TYPE_CHECKING:
    from db.models.arrivals import Study
    from db.models.commitments import Commitment


class Decision(Base):
    """What one route said about one series: the whole trace, rule by rule, value by value.

    Without a series: whether a model that looks at several has one for each of its roles.
    """

    __tablename__ = "decisions"
    __table_args__ = (Index("ix_decisions_study_revision", "study_id", "revision"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    revision: Mapped[int]
    series_id: Mapped[int | None] = mapped_column(ForeignKey("series.id"))
    route: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(64), default="")
    matched: Mapped[bool]
    reason: Mapped[str] = mapped_column(Text)
    trace: Mapped[dict[str, Any]]
    decided_at: Mapped[datetime]


#: Of result objects: the kind that says that there is no answer.
ANNOUNCEMENT = "not-performed"
#: Failed jobs that are to be announced still, just as the index of those few has it.
UNANNOUNCED = "jobs.state = 'failed' AND jobs.unannounced"
_UNANNOUNCED = text(UNANNOUNCED.replace("jobs.", ""))
_QUEUED = text("state = 'queued'")
#: Jobs whose results leave before all others', just as the index of those few has it.
URGENT = "jobs.state = 'delivering' AND jobs.priority = 0"
_URGENT = text(URGENT.replace("jobs.", ""))


class Job(Base):
    """One model on one series of one revision, or on several in its roles (`JobSeries`)."""

    __tablename__ = "jobs"
    __table_args__ = (
        # With the id, which orders the lists: of many rows in one state a few are wanted, not all sorted.
        Index("ix_jobs_state_id", "state", "id"),
        Index("ix_jobs_model_id", "model", "id"),
        Index("ix_jobs_created_at_id", "created_at", "id"),
        Index("ix_jobs_unannounced", "id", sqlite_where=_UNANNOUNCED, postgresql_where=_UNANNOUNCED),
        # Those that wait, in the order of their turn.
        Index("ix_jobs_queued", "state", "priority", "id", sqlite_where=_QUEUED, postgresql_where=_QUEUED),
        Index("ix_jobs_urgent", "id", sqlite_where=_URGENT, postgresql_where=_URGENT),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    #: That of the model's first input: results lie on it.
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    revision: Mapped[int]
    route: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(64))
    model_version: Mapped[str] = mapped_column(String(32), default="")
    model_digest: Mapped[str] = mapped_column(DIGEST, default="")
    #: Digest of (model digest, sorted SOP Instance UIDs, parameters): one study, one answer.
    identity: Mapped[str] = mapped_column(DIGEST, unique=True)
    #: The job whose results this one's take the place of; fixed when it is first claimed.
    supersedes_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"))
    #: Names of the destinations, fixed when the job was made.
    destinations: Mapped[list[Any]]
    #: What goes to each of them: profile, kinds, largest size; fixed too.
    sends: Mapped[dict[str, Any]] = mapped_column(default=dict)
    #: Those of them that are told where there is no answer.
    announce_to: Mapped[list[Any]] = mapped_column(default=list)
    #: Whether they are to be told still, should it fail.
    unannounced: Mapped[bool] = mapped_column(default=False)
    #: What the model is given instead of its manifest's own values, as canonical JSON; "" where nothing is.
    parameters: Mapped[str] = mapped_column(Text, default="", server_default="")
    state: Mapped[str] = mapped_column(String(16))
    #: Whose turn it is: `db.priorities.Priority`; 1 is routine.
    priority: Mapped[int] = mapped_column(SmallInteger, default=1, server_default="1")
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    #: When its message was last sent.
    nudged_at: Mapped[datetime | None]
    #: Not before this time.
    not_before: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    lease_owner: Mapped[str] = mapped_column(String(128), default="")
    lease_until: Mapped[datetime | None]
    #: When its attempt is stopped, whatever it does.
    deadline_at: Mapped[datetime | None]
    #: A stable word for why it failed or was skipped.
    reason: Mapped[str] = mapped_column(String(64), default="")
    #: The sentence for people. No patient data.
    error: Mapped[str] = mapped_column(Text, default="")
    #: Which engine answered.
    engine: Mapped[str] = mapped_column(String(128), default="")
    #: The rest of that sentence where it took the GPU's place, or one did that a model needs: which, and why.
    fallback: Mapped[str] = mapped_column(Text, default="", server_default="")
    #: Seconds per stage.
    seconds: Mapped[dict[str, Any] | None]
    #: What was odd about the series but did not stop it.
    notes: Mapped[list[Any] | None]
    #: The numbers of an earlier study that its own are compared with; fixed when it is first claimed.
    compared: Mapped[dict[str, Any] | None]
    #: Its report in words, as its results have it.
    report: Mapped[dict[str, Any] | None]

    study: Mapped[Study] = relationship(back_populates="jobs")
    results: Mapped[list[ResultObject]] = relationship(back_populates="job", order_by="ResultObject.id")


class JobSeries(Base):
    """One of the several series of a job: all of them have a row, that of the first input too."""

    __tablename__ = "job_series"
    __table_args__ = (UniqueConstraint("job_id", "role"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    #: What the model's manifest calls it.
    role: Mapped[str] = mapped_column(String(32))
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))


class Segment(Base):
    """A segment that a job found."""

    __tablename__ = "segments"
    __table_args__ = (UniqueConstraint("job_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"))
    number: Mapped[int]
    label: Mapped[str] = mapped_column(String(64))
    code_value: Mapped[str] = mapped_column(String(16))
    code_scheme: Mapped[str] = mapped_column(String(16))
    code_meaning: Mapped[str] = mapped_column(String(64))
    voxels: Mapped[int]


class Measurement(Base):
    """A number that a job measured."""

    __tablename__ = "measurements"
    __table_args__ = (
        # Newest first, as they are asked for; the value says which are worth a look.
        Index("ix_measurements_key_job_id_value", "key", "job_id", "value"),
        Index("ix_measurements_code_value_job_id_value", "code_value", "job_id", "value"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    key: Mapped[str] = mapped_column(String(64))
    #: None where it was measured over all segments together.
    segment_number: Mapped[int | None]
    segment_label: Mapped[str] = mapped_column(String(64), default="")
    code_value: Mapped[str] = mapped_column(String(16))
    code_scheme: Mapped[str] = mapped_column(String(16))
    code_meaning: Mapped[str] = mapped_column(String(64))
    value: Mapped[float]
    #: How it was derived, e.g. "Mean"; "" where the name says it all.
    derivation: Mapped[str] = mapped_column(String(64), default="")
    #: UCUM.
    unit: Mapped[str] = mapped_column(String(16))


class Finding(Base):
    """A statement that a job made, present or absent."""

    __tablename__ = "findings"
    __table_args__ = (
        Index("ix_findings_key_job_id", "key", "job_id"),
        Index("ix_findings_code_value_job_id", "code_value", "job_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    key: Mapped[str] = mapped_column(String(64))
    code_value: Mapped[str] = mapped_column(String(16))
    code_scheme: Mapped[str] = mapped_column(String(16))
    code_meaning: Mapped[str] = mapped_column(String(64))
    present: Mapped[bool]
    urgency: Mapped[str] = mapped_column(String(16))
    explanation: Mapped[str] = mapped_column(Text, default="")


class Box(Base):
    """One thing that a job's detector found."""

    __tablename__ = "boxes"
    __table_args__ = (
        # As those of measurements.
        Index("ix_boxes_key_job_id_score", "key", "job_id", "score"),
        Index("ix_boxes_code_value_job_id_score", "code_value", "job_id", "score"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    #: Of its class.
    key: Mapped[str] = mapped_column(String(64))
    label: Mapped[str] = mapped_column(String(64))
    #: Among those of its class, the most certain being 1: as reports and pictures name it.
    number: Mapped[int]
    code_value: Mapped[str] = mapped_column(String(16))
    code_scheme: Mapped[str] = mapped_column(String(16))
    code_meaning: Mapped[str] = mapped_column(String(64))
    #: 0 to 1.
    score: Mapped[float]
    #: The slice through its middle, from 1.
    slice: Mapped[int]
    #: Its faces as (slice, row, column) indices of the source's voxels: voxel i reaches from i - 1/2 to i + 1/2.
    low: Mapped[list[Any]]
    high: Mapped[list[Any]]
    #: Width, height and depth, as far as the source knows millimetres.
    size_mm: Mapped[list[Any]]


class ResultObject(Base):
    """A DICOM object that a job made."""

    __tablename__ = "result_objects"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    kind: Mapped[str] = mapped_column(String(32))
    #: Relative to the storage folder.
    path: Mapped[str] = mapped_column(String(255))
    sop_class_uid: Mapped[str] = mapped_column(UID)
    sop_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    series_instance_uid: Mapped[str] = mapped_column(UID)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(DIGEST)
    #: Whether it read back as what it was made of; one that did not is kept and never sent.
    verified: Mapped[bool]
    problem: Mapped[str] = mapped_column(Text, default="")
    #: When its file was deleted, after its retention time.
    purged_at: Mapped[datetime | None]

    job: Mapped[Job] = relationship(back_populates="results")
    deliveries: Mapped[list[Delivery]] = relationship(back_populates="result", order_by="Delivery.id")


_HELD = text("lease_until IS NOT NULL")
#: What was sent and is not committed to yet, just as the index of those has it.
UNCOMMITTED = "deliveries.state = 'sent' AND deliveries.awaits_commitment"
_UNCOMMITTED = text(UNCOMMITTED.replace("deliveries.", ""))


class Delivery(Base):
    """One result object on its way to one destination."""

    __tablename__ = "deliveries"
    __table_args__ = (
        UniqueConstraint("result_id", "destination"),
        Index("ix_deliveries_state_id", "state", "id"),
        # Nearly all have been sent, and of those nearly none is due.
        Index("ix_deliveries_state_next_attempt_at", "state", "next_attempt_at"),
        # Those that somebody holds: a handful at any time.
        Index("ix_deliveries_lease_until", "lease_until", sqlite_where=_HELD, postgresql_where=_HELD),
        Index("ix_deliveries_uncommitted", "state", sqlite_where=_UNCOMMITTED, postgresql_where=_UNCOMMITTED),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    result_id: Mapped[int] = mapped_column(ForeignKey("result_objects.id"))
    destination: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16))
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    nudged_at: Mapped[datetime | None]
    first_attempt_at: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None]
    lease_owner: Mapped[str] = mapped_column(String(128), default="")
    lease_until: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    #: Whether the destination must commit to it: SENT is then not the end.
    awaits_commitment: Mapped[bool] = mapped_column(default=False)
    #: The request that it is part of just now.
    commitment_id: Mapped[int | None] = mapped_column(ForeignKey("commitments.id"), index=True)
    #: How often commitment was asked for since it was sent.
    commitment_attempts: Mapped[int] = mapped_column(default=0)
    committed_at: Mapped[datetime | None]
    #: The destination's last status: DIMSE or HTTP.
    status: Mapped[int | None]
    comment: Mapped[str] = mapped_column(Text, default="")

    result: Mapped[ResultObject] = relationship(back_populates="deliveries")
    commitment: Mapped[Commitment | None] = relationship()
