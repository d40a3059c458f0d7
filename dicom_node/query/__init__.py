"""How many images a peer has of a study, by its own count: one question, one file per protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from dicom_node.senders import Destination

Protocol = Literal["cfind", "qido"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Counted:
    """A peer's own count of a study's images."""

    #: Series Instance UID -> images; empty where the peer counts whole studies only.
    series: Mapping[str, int]
    #: Of the study: the greater of what the peer says of it and of its series together.
    total: int


def count(destination: Destination, study_instance_uid: str, *, by: Protocol) -> Counted | None:
    """Ask a peer how many images it has of a study; None where it does not know the study.

    Bounded in time, about twice the destination's time-out, and in what it reads. Raises SendError where
    the peer cannot be reached, and QueryError where it refuses, falls silent, or cannot be understood.
    """
    # Imported here: each of these imports this module's types, and brings its own protocol library.
    if by == "qido":
        from dicom_node.query import qido

        return qido.count(destination, study_instance_uid)
    from dicom_node.query import find

    return find.count(destination, study_instance_uid)


def combined(series: Mapping[str, int], total: int | None) -> Counted:
    """What is said of a study and of its series as one count; a list that was cut short counts for less."""
    return Counted(series=series, total=max(total or 0, sum(series.values())))
