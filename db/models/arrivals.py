"""What arrived: who sent it, which study it belongs to, where its file is."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.base import Base
from db.models.lengths import DIGEST, UID

if TYPE_CHECKING:
    from db.models.answers import Job


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


#: What marks a study for a person, just as the index of those few has it.
STUDY_IN_TROUBLE = "problem <> '' OR missing > 0"


class Study(Base):
    """One study, by its Study Instance UID."""

    __tablename__ = "studies"
    __table_args__ = (
        Index("ix_studies_state_last_instance_at", "state", "last_instance_at"),
        Index("ix_studies_state_received_at", "state", "received_at"),
        # A patient's studies by date, to find an earlier result.
        Index("ix_studies_patient_id_study_date", "patient_id", "issuer_of_patient_id", "study_date"),
        Index(
            "ix_studies_in_trouble",
            "id",
            sqlite_where=text(STUDY_IN_TROUBLE),
            postgresql_where=text(STUDY_IN_TROUBLE),
        ),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    study_instance_uid: Mapped[str] = mapped_column(UID, unique=True)
    state: Mapped[str] = mapped_column(String(16))
    #: Grows with each batch of late images after it was READY.
    revision: Mapped[int] = mapped_column(default=1)
    patient_id: Mapped[str] = mapped_column(String(64), default="")
    #: Who gave that number: two hospitals give one number to two patients.
    issuer_of_patient_id: Mapped[str] = mapped_column(String(64), default="")
    accession_number: Mapped[str] = mapped_column(String(64), default="")
    study_date: Mapped[str] = mapped_column(String(16), default="")
    study_description: Mapped[str] = mapped_column(String(128), default="")
    received_at: Mapped[datetime] = mapped_column(index=True)
    last_instance_at: Mapped[datetime] = mapped_column(index=True)
    #: Grows with each new file, whatever its clock says: who closes the study compares it.
    arrivals: Mapped[int] = mapped_column(default=0)
    ready_at: Mapped[datetime | None]
    done_at: Mapped[datetime | None]
    #: When its files were deleted; its rows tell on. Stays where images come again.
    purged_at: Mapped[datetime | None]
    #: How many of its images were deleted then.
    purged_instances: Mapped[int] = mapped_column(default=0)
    #: When its sender was last asked how many images it has, and what it said.
    counted_at: Mapped[datetime | None]
    counted: Mapped[dict[str, Any] | None]
    #: Which signal said that it is complete, and the numbers behind it.
    evidence: Mapped[dict[str, Any] | None]
    #: How many images never came, as the evidence says: lists must not read that of every study.
    missing: Mapped[int] = mapped_column(default=0)
    #: A reason why no model may have it, e.g. two patients; "" where there is none.
    problem: Mapped[str] = mapped_column(Text, default="")

    series: Mapped[list[Series]] = relationship(back_populates="study", order_by="Series.id")
    jobs: Mapped[list[Job]] = relationship(back_populates="study", order_by="Job.id")


class Series(Base):
    """One series of a study."""

    __tablename__ = "series"
    __table_args__ = (UniqueConstraint("study_id", "series_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("studies.id"))
    series_instance_uid: Mapped[str] = mapped_column(UID)
    modality: Mapped[str] = mapped_column(String(16), default="")
    series_description: Mapped[str] = mapped_column(String(128), default="")
    #: The first instance's attributes, as the routes see them; None while not read.
    attributes: Mapped[dict[str, Any] | None]
    #: Why no model may have it (another AI's result, or our own); "" where it is an image of the patient.
    guarded: Mapped[str] = mapped_column(Text, default="")
    #: When it was complete by itself, before its study, and by which evidence.
    complete_at: Mapped[datetime | None]
    evidence: Mapped[dict[str, Any] | None]

    study: Mapped[Study] = relationship(back_populates="series")


class Instance(Base):
    """One file in the spool."""

    __tablename__ = "instances"
    __table_args__ = (Index("ix_instances_series_id_sop", "series_id", "sop_instance_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    series_id: Mapped[int] = mapped_column(ForeignKey("series.id"))
    #: Indexed by itself too: a storage commitment request names images and not their studies.
    sop_instance_uid: Mapped[str] = mapped_column(UID, index=True)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    transfer_syntax_uid: Mapped[str] = mapped_column(UID)
    #: Relative to the spool's root.
    path: Mapped[str] = mapped_column(String(255), unique=True)
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(DIGEST)
    patient_id: Mapped[str] = mapped_column(String(64), default="")
    association_id: Mapped[str | None] = mapped_column(String(64), index=True)
    #: When it came last.
    received_at: Mapped[datetime]
    #: The study's revision that it belongs to.
    revision: Mapped[int]
    #: Same SOP Instance UID as the file that is analysed, other bytes: kept, not analysed itself.
    conflicting: Mapped[bool] = mapped_column(default=False)
    #: How often other bytes took the place of those analysed under its SOP Instance UID, until these did.
    changes: Mapped[int] = mapped_column(default=0)
    #: How often the very same bytes came again.
    duplicates: Mapped[int] = mapped_column(default=0)


class DoomedFile(Base):
    """A file, or a job's folder, that is to be deleted and that no other row names: a purge goes on here."""

    __tablename__ = "doomed_files"

    id: Mapped[int] = mapped_column(primary_key=True)
    #: Relative to the storage folder.
    path: Mapped[str] = mapped_column(String(255), unique=True)
    #: The newest change of the study's files when they were doomed: one that is newer came anew, and stays.
    unchanged_since: Mapped[datetime]


class Event(Base):
    """Something that happened, for the admin who asks afterwards. No patient data."""

    __tablename__ = "events"
    __table_args__ = (Index("ix_events_association_id_kind", "association_id", "kind"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime] = mapped_column(index=True)
    study_id: Mapped[int | None] = mapped_column(ForeignKey("studies.id"), index=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("jobs.id"))
    association_id: Mapped[str | None] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(32), index=True)
    message: Mapped[str] = mapped_column(Text)
