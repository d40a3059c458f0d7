"""Everything that `worker` raises on purpose.

WorkerError
├── ConfigurationError      a setting is wrong: the message names it and what to write
│   └── CriteriaError       a `when` that cannot be understood
├── BrokerError             the embedded Redis did not start, or a broker cannot be reached
└── JobError                a job ends without a result; `reason` is a stable word for it
"""

from __future__ import annotations


class WorkerError(Exception):
    """Something about conducting the work went wrong."""


class ConfigurationError(WorkerError):
    """The configuration is wrong."""


class CriteriaError(ConfigurationError):
    """A `when` cannot be understood."""


class BrokerError(WorkerError):
    """The message broker is not there."""


class JobError(WorkerError):
    """A job ends without a result."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        #: A stable word, e.g. "missing-slice".
        self.reason = reason
