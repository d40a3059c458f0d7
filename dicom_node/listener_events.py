"""What the listener tells: associations and the instances that they carry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol

from dicom_node.instance import StoredInstance
from dicom_node.statuses import StoreStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class RefusedInstance:
    """A C-STORE request that was answered with a failure; nothing of it is in the spool."""

    association_id: str
    #: As the request gave it; "" where that is no UID.
    sop_instance_uid: str
    status: StoreStatus
    #: A sentence for people; no patient data.
    reason: str
    #: Whether it was refused for want of space, and nothing else.
    for_space: bool = False


class StoreEvents(Protocol):
    """Who is told about instances; called in the association's thread, so keep it short."""

    def instance(self, stored: StoredInstance) -> None:
        """The instance is durable, and its sender not yet told: raising makes it try again later."""

    def refused(self, refused: RefusedInstance) -> None:
        """The sender is about to be told that the instance was not stored."""


class AssociationEventKind(StrEnum):
    """What happened to an association; the last three are final."""

    OPENED = "opened"
    #: By the peer, which thereby says that it has sent all.
    RELEASED = "released"
    #: By the peer, by us, or by the loss of the connection; also where we released it because we stop.
    ABORTED = "aborted"
    #: It was never opened and stored nothing.
    REJECTED = "rejected"


@dataclass(frozen=True, kw_only=True, slots=True)
class AssociationEvent:
    """An association opened or ended; each one that opened ends exactly once."""

    association_id: str
    kind: AssociationEventKind
    calling_ae_title: str
    called_ae_title: str
    #: The peer's address, without its port.
    address: str
    #: Name of the known peer; "" where it is not known.
    peer: str
    #: Aware UTC.
    at: datetime
    #: A sentence for people; "" for an association that opened or was released.
    reason: str = ""


class ListenerEvents(StoreEvents, Protocol):
    """Who is told what arrives; called in the associations' threads."""

    def association(self, event: AssociationEvent) -> None:
        """An association opened, was rejected or ended; all its instances were told before its end."""
