"""What the listener tells about storage commitment, and the line that a report may go back on."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from dicom_node.commitment import CommitmentAsk, CommitmentReport
from dicom_node.statuses import NormalizedStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class Caller:
    """Who opened the association that a message came on: a known peer."""

    association_id: str
    calling_ae_title: str
    #: Without its port.
    address: str
    #: What people call it.
    peer: str


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitmentAsked:
    """A peer asks whether we will keep what it sent (PS3.4 J.3.2)."""

    caller: Caller
    ask: CommitmentAsk
    #: Aware UTC.
    at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitmentReported:
    """A peer that we asked reports, on an association that it opened (PS3.4 J.3.3)."""

    caller: Caller
    report: CommitmentReport


@dataclass(frozen=True, kw_only=True, slots=True)
class CommitmentTurnedAway:
    """A request or report that was answered with a failure."""

    caller: Caller
    status: NormalizedStatus
    #: A sentence for people; no patient data.
    reason: str


class OpenLine(Protocol):
    """The association on which somebody asked; the answer may go back on it while it lasts."""

    @property
    def is_open(self) -> bool:
        """Whether the association still stands."""

    @property
    def is_quiet(self) -> bool:
        """Whether its other end seems to wait: a report must not come between its own requests."""

    def send(self, report: CommitmentReport) -> int:
        """Report, and wait for the answer's status. Raises SendError where none comes."""


class CommitmentEvents(Protocol):
    """Who is told about storage commitment; called in the association's thread."""

    def asked(self, asked: CommitmentAsked, line: OpenLine) -> None:
        """Record a request durably: its sender hears success when this returns, and asks again otherwise.

        Raises CommitmentError where it must not be asked like this again.
        """

    def reported(self, reported: CommitmentReported) -> None:
        """Record a report durably, as `asked`. Raises CommitmentError where nobody waits for it."""

    def turned_away(self, refused: CommitmentTurnedAway) -> None:
        """The sender is about to be told that its message was not taken."""
