"""Everything that `dicom_node` raises on purpose.

DicomNodeError
├── DataSetError            bytes that cannot be a data set, or lack what names them
├── SpoolFull               the disk is below its watermark
├── SeriesError             files of a series do not make a volume; `reason` is a stable word for it
├── GateError               a result object failed its read-back; it is kept and never sent
├── CommitmentError         a storage commitment message that must not be taken, though it is well formed
├── QueryError              a peer did not answer a query, or not in words that can be used
└── SendError               a destination could not be reached or refused the association
    ├── Unreachable         nothing answers there: host, port or network
    ├── ContextRefused      the destination does not take this kind of object
    └── CommitmentRefused   the destination will not commit to what it stored
"""

from __future__ import annotations

import errno

#: What a disk says that is full, or whose quota is used up.
NO_SPACE = frozenset({errno.ENOSPC, errno.EDQUOT})


class DicomNodeError(Exception):
    """Something about DICOM went wrong."""


class DataSetError(DicomNodeError):
    """The bytes are not a usable data set."""


class SpoolFull(DicomNodeError):
    """The spool's disk is below its watermark."""


class SeriesError(DicomNodeError):
    """The files of a series do not make a volume."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        #: A stable word, e.g. "missing-slice": rows and tests rely on it; the message is for people.
        self.reason = reason


class GateError(DicomNodeError):
    """A result object does not read back as what it was made of."""


class CommitmentError(DicomNodeError):
    """A storage commitment message is not to be taken."""


class QueryError(DicomNodeError):
    """A peer's answer to a query cannot be had or used."""


class SendError(DicomNodeError):
    """The destination could not be reached or refused us."""


class Unreachable(SendError):
    """No connection to the destination came about."""


class ContextRefused(SendError):
    """The destination accepted no presentation context for this object."""


class CommitmentRefused(SendError):
    """The destination will not commit to what it stored."""
