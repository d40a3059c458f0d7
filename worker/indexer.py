"""Rows behind the listener: what it reports is queued, and written in batches by one thread."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from db import associations, events, refusals
from dicom_node.instance import StoredInstance
from dicom_node.listener import AssociationEvent, RefusedInstance
from dicom_node.statuses import StoreStatus
from worker import pipeline
from worker.loop_guard import ConfiguredGuard
from worker.station import Station

logger = logging.getLogger(__name__)

#: Longest wait for a batch to fill, and its size: the delay of a row behind its file.
BATCH_SECONDS = 0.1
BATCH_SIZE = 200
#: Series whose attributes are known to be read; forgotten all at once when there are more.
MOST_SERIES = 50_000
#: Wait before a batch that the database refused is tried again.
RETRY_SECONDS = 2.0

Report = StoredInstance | AssociationEvent | RefusedInstance


class Indexer:
    """Implements the listener's events. Use as a context manager: its end writes what is queued.

    The order of an association's reports is kept: its instances have rows before it is closed.
    A database that is away delays rows; files are safe in the spool, and the sweep finds those whose
    rows were never written.
    """

    def __init__(self, station: Station) -> None:
        self._station = station
        self._queue: queue.SimpleQueue[Report | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="indexer")
        self._read_series: set[tuple[str, str]] = set()
        self._guard = ConfiguredGuard.of(station.settings.guard)
        self._stopping = False

    def association(self, event: AssociationEvent) -> None:
        """An association was opened, released, aborted or rejected."""
        self._queue.put(event)

    def instance(self, stored: StoredInstance) -> None:
        """A file is durable."""
        self._queue.put(stored)

    def refused(self, refusal: RefusedInstance) -> None:
        """An instance was answered with a failure."""
        self._queue.put(refusal)

    def _run(self) -> None:
        while True:
            batch, ended = self._next_batch()
            for attempt in _forever():
                try:
                    self._write(batch)
                    break
                except Exception:
                    # Rows must come in the end; nothing that was acknowledged may be forgotten.
                    logger.exception("%s reports could not be written (attempt %s)", len(batch), attempt)
                    if self._stopping and attempt >= 3:
                        logger.error("giving up at shutdown; the sweep will find the files")
                        return
                    time.sleep(RETRY_SECONDS)
            if ended:
                return

    def _next_batch(self) -> tuple[list[Report], bool]:
        """The next reports, and whether they are the last."""
        batch: list[Report] = []
        first = self._queue.get()
        deadline = time.monotonic() + BATCH_SECONDS
        while first is not None:
            batch.append(first)
            remaining = deadline - time.monotonic()
            if len(batch) >= BATCH_SIZE or remaining <= 0:
                return batch, False
            try:
                first = self._queue.get(timeout=remaining)
            except queue.Empty:
                return batch, False
        return batch, True

    def _write(self, batch: list[Report]) -> None:
        """Write a batch in order: openings, then instances, refusals and endings.

        What is committed leaves the batch: where a later part fails, it is not written again with that.
        """
        for belongs, write in (
            (_is_opening, self._write_openings),
            (_is_stored, self._write_instances),
            (_is_refusal, self._write_refusals),
            (_is_ending, self._write_endings),
        ):
            part: list[Any] = [report for report in batch if belongs(report)]
            if part:
                write(part)
                batch[:] = [report for report in batch if not belongs(report)]

    def _write_openings(self, opened: list[AssociationEvent]) -> None:
        """Rows of associations that opened, or were rejected."""
        with self._station.database.write() as session:
            for event in opened:
                associations.record(session, _association_row(event, self._station.process_id))
                if event.kind == "rejected":
                    who = event.calling_ae_title or "a caller"
                    message = f"{who} at {event.address} was rejected: {event.reason}"
                    events.note(session, "rejected", message, association_id=event.association_id)

    def _write_instances(self, stored: list[StoredInstance]) -> None:
        """Rows of files."""
        if len(self._read_series) > MOST_SERIES:
            self._read_series.clear()
        pipeline.receive(
            self._station.database,
            self._station.settings.spool,
            stored,
            guard=self._guard,
            read_series=self._read_series,
            keep_last=self._station.settings.node.conflicts == "keep-last",
        )

    def _write_refusals(self, refused: list[RefusedInstance]) -> None:
        """Events for instances that were answered with a failure."""
        with self._station.database.write() as session:
            for refusal in refused:
                refusals.note(
                    session,
                    refusal.association_id,
                    status=refusal.status,
                    sop_instance_uid=refusal.sop_instance_uid,
                    reason=refusal.reason,
                    looped=refusal.status is StoreStatus.LOOPED,
                    for_space=refusal.for_space,
                )

    def _write_endings(self, ended: list[AssociationEvent]) -> None:
        """How associations ended."""
        with self._station.database.write() as session:
            for event in ended:
                associations.close(
                    session, event.association_id, outcome=event.kind, at=event.at, reason=event.reason
                )

    def __enter__(self) -> Indexer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._queue.put(None)
        self._thread.join()


def _is_opening(report: Report) -> bool:
    return isinstance(report, AssociationEvent) and report.kind in ("opened", "rejected")


def _is_stored(report: Report) -> bool:
    return isinstance(report, StoredInstance)


def _is_refusal(report: Report) -> bool:
    return isinstance(report, RefusedInstance)


def _is_ending(report: Report) -> bool:
    return isinstance(report, AssociationEvent) and not _is_opening(report)


def _association_row(event: AssociationEvent, process_id: str) -> dict[str, object]:
    """Column values of an association."""
    rejected = event.kind == "rejected"
    return {
        "id": event.association_id,
        "process_id": process_id,
        "peer": event.peer or "",
        "calling_ae_title": event.calling_ae_title[:16],
        "called_ae_title": event.called_ae_title[:16],
        "address": event.address[:64],
        "opened_at": event.at,
        "closed_at": event.at if rejected else None,
        "outcome": "rejected" if rejected else "open",
        "reason": event.reason,
    }


def _forever() -> Iterator[int]:
    """1, 2, 3, ..."""
    attempt = 0
    while True:
        attempt += 1
        yield attempt
