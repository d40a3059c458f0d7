"""Log lines: one format for every process, on standard error, without patient data by construction."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Iterator
from types import TracebackType
from typing import TypeAlias

from db.errors import DatabaseError
from dicom_node.errors import DicomNodeError
from engines.errors import EngineError
from worker.errors import WorkerError

logger = logging.getLogger(__name__)

#: The environment variable that says which role a process plays.
ROLE_VARIABLE = "SECONDREAD_ROLE"

#: Libraries that log attributes, addresses or whole data sets when they are in the mood.
_QUIET = (
    "pynetdicom",
    "pydicom",
    "highdicom",
    "celery.worker.strategy",
    "kombu",
    "httpx",
)

#: Errors whose words we chose ourselves, or that quote nothing but names of the program.
_OWN = (WorkerError, DatabaseError, DicomNodeError, EngineError, AttributeError, ImportError, NameError)

_ExcInfo: TypeAlias = (
    tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]
)


class DiscreetFormatter(logging.Formatter):
    """Formats a stack trace without the words of foreign errors.

    A library quotes the value that it stumbles over, and that value may name a patient. What kind of
    error it was and where it came from is left, and enough to find it.
    """

    def formatException(self, ei: _ExcInfo) -> str:
        """The traceback of an error and of those that led to it, oldest first."""
        return "".join(_chain(ei[1])).rstrip() if ei[1] is not None else ""


def _chain(error: BaseException) -> Iterator[str]:
    """Each error of a chain as lines."""
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None:
        yield from _chain(before)
        yield "\nwhich led to:\n\n"
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    words = error.strerror if isinstance(error, OSError) else str(error) if isinstance(error, _OWN) else ""
    yield f"{type(error).__module__}.{type(error).__qualname__}" + (f": {words}\n" if words else "\n")


def _log_uncaught(
    kind: type[BaseException], error: BaseException | None, trace: TracebackType | None
) -> None:
    """The end of a thread or process by an error nobody foresaw, as discreet as the rest of the log."""
    logger.critical("ended by an error that nobody foresaw", exc_info=error)


def set_up(role: str, *, level: int = logging.INFO) -> None:
    """Send this process' log to standard error, each line with its role."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        DiscreetFormatter(f"%(asctime)s %(levelname)-7s {role:<8} %(message)s", datefmt="%Y-%m-%d %H:%M:%S")
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    sys.excepthook = _log_uncaught
    threading.excepthook = lambda ended: _log_uncaught(ended.exc_type, ended.exc_value, ended.exc_traceback)
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.CRITICAL if name == "pynetdicom" else logging.ERROR)
    logging.getLogger("celery").setLevel(logging.WARNING)
    # It puts an error's words into its own message; worker.app says the same without them.
    logging.getLogger("celery.app.trace").setLevel(logging.CRITICAL)
    # Of a child that was killed the pool and the sweep tell; this one adds a traceback without a trace.
    logging.getLogger("celery.worker.request").setLevel(logging.CRITICAL)
    logging.getLogger("alembic").setLevel(logging.WARNING)
