"""Events of the supervisor, written beside it: it must not wait for a database that is away."""

from __future__ import annotations

import logging
import queue
import threading
from types import TracebackType

from db import events
from db.base import Database

logger = logging.getLogger(__name__)

#: Wait before an event is written again that the database did not take.
_RETRY_SECONDS = 2.0


class Chronicle:
    """Takes sentences at once, and writes each as an event when the database takes it."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chronicle", daemon=True)

    def tell(self, text: str) -> None:
        """A role ended by itself and is started again; `text` says which, how, and when."""
        self._queue.put(text)

    def _run(self) -> None:
        while (text := self._queue.get()) is not None:
            while not self._written(text) and not self._stopping.wait(_RETRY_SECONDS):
                pass

    def _written(self, text: str) -> bool:
        """Write one event; False where the database did not take it, and the log has it alone."""
        try:
            with self._database.write() as session:
                events.note(session, "role-restarted", text)
        except Exception:
            logger.warning("an event could not be written; trying again", exc_info=True)
            return False
        return True

    def __enter__(self) -> Chronicle:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._queue.put(None)
        self._thread.join()
