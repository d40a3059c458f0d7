"""What is known of a received instance once its bytes are durable."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from dicom_node.equipment import NOBODY, Equipment


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredInstance:
    """One file in the spool, under its final name."""

    sop_instance_uid: str
    sop_class_uid: str
    study_instance_uid: str
    series_instance_uid: str
    transfer_syntax_uid: str
    #: Patient ID (0010,0020) as sent, stripped; "" where the data set has none. Never log it.
    patient_id: str
    #: Modality (0008,0060); "" where the data set has none.
    modality: str
    #: Relative to the spool's root, so that the spool can move.
    path: Path
    #: Bytes on disk.
    size: int
    #: SHA-256 of the data set's bytes as received (without the file meta), lower-case hex.
    sha256: str
    #: Aware UTC.
    received_at: datetime
    #: The association that carried it; None where a start-up scan found the file.
    association_id: str | None = None
    #: True where this SOP Instance UID was already in the spool with the very same bytes.
    duplicate: bool = False
    #: True where this SOP Instance UID was already in the spool with other bytes; `path` is then a side file.
    conflicting: bool = False
    #: Who contributed to it, as its header says.
    equipment: Equipment = NOBODY
