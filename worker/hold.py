"""A sender's hold on the deliveries in its hands: renewed beside the sending, so that a dead one's are soon free."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType

from db import deliveries
from db.base import Database

logger = logging.getLogger(__name__)

#: How long a sender may be silent before another may take its deliveries.
LEASE = timedelta(seconds=60)
#: Nothing takes so long that is not stuck: every wait for a peer has an end of its own.
LONGEST = timedelta(hours=2)


class Hold:
    """Renews the leases of claimed deliveries while the block runs; those that are settled are left alone."""

    def __init__(self, database: Database, delivery_ids: Sequence[int], *, owner: str) -> None:
        self._database = database
        self._ids = list(delivery_ids)
        self._owner = owner
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="hold", daemon=True)

    def _renew(self) -> None:
        until = time.monotonic() + LONGEST.total_seconds()
        while not self._ended.wait(LEASE.total_seconds() / 3) and time.monotonic() < until:
            try:
                with self._database.write() as session:
                    deliveries.renew(session, self._ids, owner=self._owner, until=datetime.now(UTC) + LEASE)
            except Exception:
                # The database may be away for a while; what another took meanwhile stays the other's.
                logger.warning("deliveries could not be held on to; trying again", exc_info=True)

    def __enter__(self) -> Hold:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
