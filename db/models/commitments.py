"""Storage commitment both ways: what we asked of others, and what others ask of us (PS3.4 J)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.models.lengths import UID


class Commitment(Base):
    """A storage commitment request of ours: will the destination keep what we sent? (PS3.4 J.3)"""

    __tablename__ = "commitments"

    id: Mapped[int] = mapped_column(primary_key=True)
    #: Stored before the request leaves: an answer to a request that we forgot would be a stranger's.
    transaction_uid: Mapped[str] = mapped_column(UID, unique=True)
    destination: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(16), index=True)
    requested_at: Mapped[datetime] = mapped_column(index=True)
    reported_at: Mapped[datetime | None]
    comment: Mapped[str] = mapped_column(Text, default="")


class CommitmentRequest(Base):
    """A peer's storage commitment request: may it delete its own copies? (PS3.4 J.3)"""

    __tablename__ = "commitment_requests"
    __table_args__ = (UniqueConstraint("calling_ae_title", "transaction_uid"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    transaction_uid: Mapped[str] = mapped_column(UID)
    association_id: Mapped[str] = mapped_column(String(64))
    peer: Mapped[str] = mapped_column(String(64), default="")
    calling_ae_title: Mapped[str] = mapped_column(String(16))
    address: Mapped[str] = mapped_column(String(64))
    received_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(16), index=True)
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime | None]
    nudged_at: Mapped[datetime | None]
    lease_owner: Mapped[str] = mapped_column(String(128), default="")
    lease_until: Mapped[datetime | None]
    answered_at: Mapped[datetime | None]
    comment: Mapped[str] = mapped_column(Text, default="")


class CommitmentReference(Base):
    """One instance that a peer's commitment request names."""

    __tablename__ = "commitment_references"

    id: Mapped[int] = mapped_column(primary_key=True)
    request_id: Mapped[int] = mapped_column(ForeignKey("commitment_requests.id"), index=True)
    sop_class_uid: Mapped[str] = mapped_column(UID)
    sop_instance_uid: Mapped[str] = mapped_column(UID, index=True)
    #: The Failure Reason that was answered (PS3.3 C.14.1.1); None where it is held, or not answered yet.
    failure: Mapped[int | None]
