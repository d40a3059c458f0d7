"""How result objects leave: one protocol, one file per way out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Destination:
    """A peer that takes results."""

    name: str
    kind: Literal["cstore", "stow", "memory"] = "cstore"
    #: C-STORE: the peer's AE title, host, port, and the AE title that we call from.
    ae_title: str = ""
    host: str = ""
    port: int = 104
    calling_ae_title: str = "SECONDREAD"
    #: STOW-RS: the service root, e.g. http://pacs:8042/dicom-web.
    url: str = ""
    #: STOW-RS: value of the Authorization header; never printed.
    authorization: str | None = None
    timeout_seconds: float = 30.0
    #: Whether it is asked to commit to what it stored (PS3.4 J); C-STORE only.
    commitment: bool = False

    def __repr__(self) -> str:
        return f"Destination({self.name!r}, {self.kind!r})"


class Verdict(StrEnum):
    """What a destination's answer means for a delivery."""

    #: 0x0000, or HTTP 200.
    DELIVERED = "delivered"
    #: 0xB000-range: stored, with a remark (PS3.4 B.2.3).
    WARNING = "warning"
    #: Worth another try: out of resources (0xA7xx), time-out, aborted, HTTP 5xx/429.
    RETRY = "retry"
    #: Refused for good: 0xA9xx, 0xCxxx, no presentation context, HTTP 4xx.
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """The destination's answer for one instance."""

    sop_instance_uid: str
    verdict: Verdict
    #: DIMSE status or HTTP status; None where none came.
    status: int | None
    #: The peer's comment, or our sentence on what happened and what to change. No patient data.
    comment: str = ""
    #: The file it is about; a file that is not DICOM has no SOP Instance UID ("") to be known by.
    path: Path | None = None


class Sender(Protocol):
    """Sends files to one destination."""

    def send(self, paths: Sequence[Path], on_outcome: Callable[[Outcome], None]) -> None:
        """Send every file; call `on_outcome` once for each as its answer arrives.

        One association (or connection) carries all files. Raises SendError where the destination
        could not be reached at all; once reached, each file gets its own outcome. A file that cannot
        be read or is not DICOM is REFUSED with its `path`, before anything is sent.
        """


def open_sender(destination: Destination) -> Sender:
    """The sender for the destination's kind.

    A plain factory: a sender opens its association or connection in `send` and closes it there, so
    there is nothing to close, and one sender may be kept, and used from several threads.
    """
    # Imported here: each of these imports this module's types, and brings its own protocol library.
    if destination.kind == "stow":
        from dicom_node.senders.stow import StowSender

        return StowSender(destination)
    if destination.kind == "memory":
        from dicom_node.senders.memory import sender

        return sender(destination)
    from dicom_node.senders.cstore import CStoreSender

    return CStoreSender(destination)
