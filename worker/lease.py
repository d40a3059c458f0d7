"""A job's lease: renewed beside the work, so that a silent worker's job can be given to another."""

from __future__ import annotations

import logging
import threading
from datetime import UTC, datetime, timedelta
from types import TracebackType

from db import leases
from db.base import Database

logger = logging.getLogger(__name__)


class Lease:
    """Renews a claimed job's lease at a third of its length while the block runs.

    `lost` says that somebody else has the job now (or a person cancelled it): the result must be
    dropped, and the compare-and-swap that would have stored it fails anyway.
    """

    def __init__(self, database: Database, job_id: int, *, owner: str, length: timedelta) -> None:
        self._database = database
        self._job_id = job_id
        self._owner = owner
        self._length = length
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name=f"lease-{job_id}", daemon=True)
        self.lost = False

    def _renew(self) -> None:
        while not self._ended.wait(self._length.total_seconds() / 3):
            try:
                with self._database.write() as session:
                    held = leases.renew(
                        session, self._job_id, owner=self._owner, until=datetime.now(UTC) + self._length
                    )
            except Exception:
                logger.warning(
                    "job %s: its lease could not be renewed; trying again", self._job_id, exc_info=True
                )
                continue
            if not held:
                self.lost = True
                return

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
