"""Everything that `worker` raises on purpose.

WorkerError
├── ConfigurationError      a setting is wrong: the message names it and what to write
│   └── CriteriaError       a `when` that cannot be understood
├── DiskFull                nothing more can be written; the message names the folder whose disk it is
├── BrokerError             the embedded Redis did not start, or a broker cannot be reached
└── JobError                a job ends without a result; `reason` is a stable word for it
"""

from __future__ import annotations

from pathlib import Path


class WorkerError(Exception):
    """Something about conducting the work went wrong."""


class ConfigurationError(WorkerError):
    """The configuration is wrong."""


class CriteriaError(ConfigurationError):
    """A `when` cannot be understood."""


class DiskFull(WorkerError):
    """A disk has no room left."""

    def __init__(self, folder: Path | str) -> None:
        super().__init__(f"the disk of {folder} is full: make room")


class BrokerError(WorkerError):
    """The message broker is not there."""


class JobError(WorkerError):
    """A job ends without a result."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        #: A stable word, e.g. "missing-slice".
        self.reason = reason
