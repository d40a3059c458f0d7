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
#: A process that was silent for so long is taken for dead.
SILENT = timedelta(seconds=30)


class Heartbeat:
    """Beats while the block runs; says goodbye at its end."""

    def __init__(self, station: Station, role: str) -> None:
        self._station = station
        self._role = role
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="heartbeat", daemon=True)

    def _beat(self) -> None:
        while True:
            try:
                self._write()
            except Exception:
                # The database may be away; the process works on, and beats again when it is back.
                logger.warning("no heartbeat could be written; trying again", exc_info=True)
            if self._ended.wait(BEAT_SECONDS):
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
        self._write()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        with self._station.database.write() as session:
            associations.goodbye(session, self._station.process_id, datetime.now(UTC))
