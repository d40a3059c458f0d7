"""Files that the rows do not know get rows, or go: images are the spool's truth, results can be made again."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator
from types import TracebackType

from db import duplicates, intake, purging
from dicom_node import stored_files
from dicom_node.instance import StoredInstance
from worker import leftovers, pipeline
from worker.loop_guard import ConfiguredGuard
from worker.station import Station

logger = logging.getLogger(__name__)

#: A file younger than this may still be reported by the listener that took it.
FRESH_SECONDS = 5.0
#: How often one looks though nobody died: a listener that stops without a database leaves files, too.
LOOK_SECONDS = 3600.0
#: Files that get their rows in one transaction.
_BATCH = 200


class Repair:
    """Looks through the storage in a thread of its own: when it starts, when asked to, and every hour."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._asked = threading.Event()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="repair", daemon=True)

    def ask(self) -> None:
        """A process died: have a look as soon as its last files are old enough."""
        self._asked.set()

    def _run(self) -> None:
        self._look()
        while not self._ended.is_set():
            asked = self._asked.wait(LOOK_SECONDS)
            self._asked.clear()
            if asked and self._ended.wait(FRESH_SECONDS + 1):
                return
            self._look()

    def _look(self) -> None:
        try:
            look(self._station)
            leftovers.remove(self._station)
        except Exception:
            # The database may be away; the next look finds the same files.
            logger.exception("the storage could not be looked through; it is tried again")
            self._asked.set()

    def __enter__(self) -> Repair:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._asked.set()
        # A look through a large spool is not waited for; whatever it has written is whole.
        self._thread.join(5)


def look(station: Station) -> int:
    """Give rows to the images that have none, and let images take over that came again unseen; how many."""
    older_than = time.time() - FRESH_SECONDS

    def without_rows(names: list[str]) -> set[str]:
        with station.database.read() as session:
            missing = set(intake.paths_without_rows(session, names))
            # Asked after the rows, which a purge takes away in the same moment as it dooms the files.
            return missing - purging.doomed_among(session, sorted(missing))

    root = station.settings.spool
    found = _receive(station, stored_files.scan(root, older_than=older_than, wanted=without_rows))
    if found:
        logger.info("%s files had no rows, and have some now", found)
    if not _keeps_last(station):
        return found
    # After the others: a file that has just got its row may be the rival.
    with station.database.read() as session:
        images = duplicates.rivals(session)
    last = (stored_files.came_last(root, image, older_than=older_than) for image in images)
    again = _receive(station, (stored for stored in last if stored))
    if again:
        logger.info("%s files had come again, and their rows know it now", again)
    return found + again


def _receive(station: Station, files: Iterator[StoredInstance]) -> int:
    """Write rows for files as if the listener had reported them; how many."""
    root, count = station.settings.spool, 0
    guard, read_series = ConfiguredGuard.of(station.settings.guard), set[tuple[str, str]]()
    while batch := list(itertools.islice(files, _BATCH)):
        there = [stored for stored in batch if (root / stored.path).exists()]
        pipeline.receive(
            station.database,
            root,
            there,
            guard=guard,
            read_series=read_series,
            keep_last=_keeps_last(station),
        )
        count += len(there)
    return count


def _keeps_last(station: Station) -> bool:
    return station.settings.node.conflicts == "keep-last"
