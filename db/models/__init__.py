"""The tables of the journey: who sent what, which study is where, which job ran, what must leave."""

from __future__ import annotations

from db.models.answers import Decision, Delivery, Finding, Job, JobSeries, Measurement, ResultObject, Segment
from db.models.arrivals import Association, DoomedFile, Event, Instance, Process, Series, Study
from db.models.commitments import Commitment, CommitmentReference, CommitmentRequest

__all__ = [
    "Association",
    "Commitment",
    "CommitmentReference",
    "CommitmentRequest",
    "Decision",
    "Delivery",
    "DoomedFile",
    "Event",
    "Finding",
    "Instance",
    "Job",
    "JobSeries",
    "Measurement",
    "Process",
    "ResultObject",
    "Segment",
    "Series",
    "Study",
]
