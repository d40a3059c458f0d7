"""A process' sign of life in the database, so that its death can be noticed by others."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING

from db import associations

if TYPE_CHECKING:
    from worker.station import Station

logger = logging.getLogger(__name__)

BEAT_SECONDS = 5.0
#: How long a start waits for the first beat; where the database is away, the process works without.
_FIRST_SECONDS = 5.0
#: Wait after a beat that failed: an association of a process without a row counts as lost.
_AGAIN_SECONDS = 1.0
#: A process that was silent for so long is taken for dead.
SILENT = timedelta(seconds=30)


class Heartbeat:
    """Beats while the block runs; says goodbye at its end. A database that is away keeps nobody from his work."""

    def __init__(self, station: Station, role: str) -> None:
        self._station = station
        self._role = role
        self._ended = threading.Event()
        self._tried = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def _beat(self) -> None:
        failures = 0
        while True:
            wait = BEAT_SECONDS
            try:
                self._write()
                failures = 0
            except Exception:
                # The database may be away; the process works on, and beats again when it is back.
                failures += 1
                if failures == 1:
                    # The others would say the same, each second and from each process.
                    logger.warning("no heartbeat could be written; trying again", exc_info=True)
                wait = _AGAIN_SECONDS
            self._tried.set()
            if self._ended.wait(wait):
                return

    def _write(self) -> None:
        with self._station.database.write() as session:
            associations.heartbeat(
                session,
                process_id=self._station.process_id,
                role=self._role,
                started_at=self._station.started_at,
                at=datetime.now(UTC),
            )

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        self._tried.wait(_FIRST_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        try:
            with self._station.database.write() as session:
                associations.goodbye(session, self._station.process_id, datetime.now(UTC))
        except Exception:
            # The sweep sees that the process is gone.
            logger.warning("no goodbye could be written", exc_info=True)
