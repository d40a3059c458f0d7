"""The tables of the journey: who sent what, which study is where, which job ran, what must leave."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Base

#: A DICOM UID has at most 64 characters (PS3.5 9.1).
UID = String(64)
#: SHA-256, lower-case hex.
DIGEST = String(64)


class Process(Base):
    """A running process of ours, so that its death can be noticed."""

    __tablename__ = "processes"

    #: host:pid:start time.
    id: Mapped[str] = mapped_column(String(128), primary_key=True)
    role: Mapped[str] = mapped_column(String(16))
    started_at: Mapped[datetime]
    seen_at: Mapped[datetime]


class Association(Base):
    """One DICOM association that somebody opened, or tried to."""

    __tablename__ = "associations"

    id: Mapped[str] = mapped_column(String(64), primary_key=True)
    process_id: Mapped[str] = mapped_column(String(128))
    peer: Mapped[str] = mapped_column(String(64), default="")
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    called_ae_title: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(64))
    opened_at: Mapped[datetime]
    closed_at: Mapped[datetime | None]
    #: open, released, aborted, rejected, lost.
    outcome: Mapped[str] = mapped_column(String(16), default="open", index=True)
    reason: Mapped[str] = mapped_column(Text, default="")


class Study(Base):
    """One study, by its Study Instance UID."""

    __tablename__ = "studies"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    state: Mapped[str] = mapped_column(String(16), index=True)
    #: Grows with each batch of late images after it was READY.
    revision: Mapped[int] = mapped_column(default=1)
    patient_id: Mapped[str] = mapped_column(String(64), default="")
    accession_number: Mapped[str] = mapped_column(String(64), default="")
    study_date: Mapped[str] = mapped_column(String(16), default="")
    study_description: Mapped[str] = mapped_column(String(128), default="")
    received_at: Mapped[datetime] = mapped_column(index=True)
    last_instance_at: Mapped[datetime] = mapped_column(index=True)
    #: Grows with each new file, whatever its clock says: who closes the study compares it.
    arrivals: Mapped[int] = mapped_column(default=0)
    ready_at: Mapped[datetime | None]
    done_at: Mapped[datetime | None]
    #: Which signal said that it is complete, and the numbers behind it.
    evidence: Mapped[dict[str, Any] | None]
    #: A reason why no model may have it, e.g. two patients; "" where there is none.
    problem: Mapped[str] = mapped_column(Text, default="")

    series: Mapped[list[Series]] = relationship(back_populates="study", order_by="Series.id")
    jobs: Mapped[list[Job]] = relationship(back_populates="study", order_by="Job.id")


class Series(Base):
    """One series of a study."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    series_instance_uid: Mapped[str] = mapped_column(UID)
    modality: Mapped[str] = mapped_column(String(16), default="")
    series_description: Mapped[str] = mapped_column(String(128), default="")
    #: The first instance's attributes, as the routes see them; None while not read.
    attributes: Mapped[dict[str, Any] | None]

    study: Mapped[Study] = relationship(back_populates="series")


class Instance(Base):
    """One file in the spool."""

    __tablename__ = "instances"
    __table_args__ = (Index("ix_instances_series_id_sop", "series_id", "sop_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"), index=True)
    sop_instance_uid: Mapped[str] = mapped_column(UID)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    #: Relative to the spool's root.
    path: Mapped[str] = mapped_column(String(255), unique=True)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(DIGEST)
    patient_id: Mapped[str] = mapped_column(String(64), default="")
    association_id: Mapped[str | None] = mapped_column(String(64), index=True)
    received_at: Mapped[datetime]
    #: The study's revision that it belongs to.
    revision: Mapped[int]
    #: Same SOP Instance UID as an earlier file, other bytes: kept, never analysed.
    conflicting: Mapped[bool] = mapped_column(default=False)
    #: How often the very same bytes came again.
    duplicates: Mapped[int] = mapped_column(default=0)


class Decision(Base):
    """What one route said about one series: the whole trace, rule by rule, value by value."""

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


class Job(Base):
    """One model on one series of one revision."""

    __tablename__ = "jobs"

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"), index=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    revision: Mapped[int]
    route: Mapped[str] = mapped_column(String(64))
    model: Mapped[str] = mapped_column(String(64), index=True)
    model_version: Mapped[str] = mapped_column(String(32), default="")
    model_digest: Mapped[str] = mapped_column(DIGEST, default="")
    #: Digest of (model digest, sorted SOP Instance UIDs, parameters): one study, one answer.
    identity: Mapped[str] = mapped_column(DIGEST, unique=True)
    #: Names of the destinations, fixed when the job was made.
    destinations: Mapped[list[Any]]
    state: Mapped[str] = mapped_column(String(16), index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime] = mapped_column(index=True)
    #: When its message was last sent.
    nudged_at: Mapped[datetime | None]
    #: Not before this time.
    not_before: Mapped[datetime | None]
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    lease_owner: Mapped[str] = mapped_column(String(128), default="")
    lease_until: Mapped[datetime | None]
    #: A stable word for why it failed or was skipped.
    reason: Mapped[str] = mapped_column(String(64), default="")
    #: The sentence for people. No patient data.
    error: Mapped[str] = mapped_column(Text, default="")
    #: Which engine answered.
    engine: Mapped[str] = mapped_column(String(128), default="")
    #: Seconds per stage.
    seconds: Mapped[dict[str, Any] | None]
    #: What was odd about the series but did not stop it.
    notes: Mapped[list[Any] | None]

    study: Mapped[Study] = relationship(back_populates="jobs")
    results: Mapped[list[ResultObject]] = relationship(back_populates="job", order_by="ResultObject.id")


class Segment(Base):
    """A segment that a job found."""

    __tablename__ = "segments"
    __table_args__ = (UniqueConstraint("job_id", "number"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    number: Mapped[int]
    label: Mapped[str] = mapped_column(String(64))
    code_value: Mapped[str] = mapped_column(String(16))
    code_scheme: Mapped[str] = mapped_column(String(16))
    code_meaning: Mapped[str] = mapped_column(String(64))
    voxels: Mapped[int]


class Measurement(Base):
    """A number that a job measured."""

    __tablename__ = "measurements"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    key: Mapped[str] = mapped_column(String(64), index=True)
    #: None where it was measured over all segments together.
    segment_number: Mapped[int | None]
    segment_label: Mapped[str] = mapped_column(String(64), default="")
    code_value: Mapped[str] = mapped_column(String(16), index=True)
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

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    key: Mapped[str] = mapped_column(String(64), index=True)
    code_value: Mapped[str] = mapped_column(String(16), index=True)
    code_scheme: Mapped[str] = mapped_column(String(16))
    code_meaning: Mapped[str] = mapped_column(String(64))
    present: Mapped[bool]
    urgency: Mapped[str] = mapped_column(String(16))
    explanation: Mapped[str] = mapped_column(Text, default="")


class ResultObject(Base):
    """A DICOM object that a job made."""

    __tablename__ = "result_objects"

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
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

    job: Mapped[Job] = relationship(back_populates="results")
    deliveries: Mapped[list[Delivery]] = relationship(back_populates="result", order_by="Delivery.id")


class Delivery(Base):
    """One result object on its way to one destination."""

    __tablename__ = "deliveries"
    __table_args__ = (UniqueConstraint("result_id", "destination"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    result_id: Mapped[int] = mapped_column(ForeignKey("result_objects.id"), index=True)
    destination: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    created_at: Mapped[datetime]
    nudged_at: Mapped[datetime | None]
    first_attempt_at: Mapped[datetime | None]
    next_attempt_at: Mapped[datetime | None] = mapped_column(index=True)
    lease_owner: Mapped[str] = mapped_column(String(128), default="")
    lease_until: Mapped[datetime | None]
    sent_at: Mapped[datetime | None]
    #: The destination's last status: DIMSE or HTTP.
    status: Mapped[int | None]
    comment: Mapped[str] = mapped_column(Text, default="")

    result: Mapped[ResultObject] = relationship(back_populates="deliveries")


class Event(Base):
    """Something that happened, for the admin who asks afterwards. No patient data."""

    __tablename__ = "events"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id"), index=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"))
    association_id: Mapped[str | None] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(32), index=True)
    message: Mapped[str] = mapped_column(Text)
