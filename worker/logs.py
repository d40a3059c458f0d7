"""Log lines: one format for every process, on standard error, without patient data by construction."""

from __future__ import annotations

import logging
import sys

#: Libraries that log attributes, addresses or whole data sets when they are in the mood.
_QUIET = (
    "pynetdicom",
    "pydicom",
    "highdicom",
    "celery.app.trace",
    "celery.worker.strategy",
    "kombu",
    "httpx",
)


def set_up(role: str, *, level: int = logging.INFO) -> None:
    """Send this process' log to standard error, each line with its role."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        logging.Formatter(f"%(asctime)s %(levelname)-7s {role:<8} %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger("celery").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
