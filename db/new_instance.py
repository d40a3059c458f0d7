"""What is known of a file of the spool that needs a row."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class NewInstance:
    """A file of the spool that needs a row."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    path: str
    size: int
    sha256: str
    patient_id: str
    modality: str
    association_id: str | None
    received_at: datetime
    conflicting: bool
    duplicate: bool
    #: The routing attributes of the file, where this is the first of its series that we read.
    attributes: dict[str, Any] | None = None
    #: Why the loop guard lets no model have its series; "" where nothing speaks against it.
    guarded: str = ""
