"""A job's lease and its time: looked after beside the work, which native code may not let be interrupted."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime
from types import TracebackType

from db import events, leases
from db.models import Job
from worker import attempts
from worker.bench import Bench
from worker.limits import Limits

logger = logging.getLogger(__name__)

#: How often it is asked whether the job is still ours, and what time it is (seconds).
_LOOK = 2.0


class Lease:
    """Renews a claimed job's lease while the block runs, and ends the process where that must not go on.

    It must not where the job took too long, or is somebody else's now, or nobody's: a person cancelled
    it. `lost` says so to a bench that does not end its process; the compare-and-swap that would have
    stored the result fails then anyway.
    """

    def __init__(self, bench: Bench, job: Job, limits: Limits) -> None:
        self._bench = bench
        self._job = job
        self._limits = limits
        length = bench.lease.total_seconds()
        self._look = min(_LOOK, length / 3)
        self._renew_every = length / 3
        now = time.monotonic()
        self._renew_at = now + self._renew_every
        self._stop_at = now + limits.hard.total_seconds()
        self._note_at = now + limits.soft.total_seconds()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"lease-{job.id}", daemon=True)
        self.lost = False

    def _watch(self) -> None:
        while not self.lost and not self._ended.wait(self._until_next()):
            now = time.monotonic()
            try:
                if now >= self._stop_at:
                    self._give_back()
                elif not self._tend(now):
                    self._end("it is no longer this worker's")
            except Exception:
                # The database may be away for a while; nothing else may end a lease that can be kept.
                logger.warning("job %s: its lease could not be looked after", self._job.id, exc_info=True)

    def _until_next(self) -> float:
        return max(0.0, min(self._look, self._stop_at - time.monotonic()))

    def _tend(self, now: float) -> bool:
        """Renew where it is time to, note where it is slow; False where the job is no longer ours."""
        if now >= self._note_at:
            self._note_at = float("inf")
            self._note_slow()
        if now < self._renew_at:
            with self._bench.database.read() as session:
                return leases.is_held(session, self._job.id, owner=self._bench.owner)
        until = leases.within(datetime.now(UTC) + self._bench.lease, self._job.deadline_at)
        with self._bench.database.write() as session:
            held = leases.renew(session, self._job.id, owner=self._bench.owner, until=until)
        self._renew_at = now + self._renew_every
        return held

    def _note_slow(self) -> None:
        message = (
            f"attempt {self._job.attempts} takes longer than {self._limits.soft.total_seconds():g} s; "
            f"it is stopped after {self._limits.hard.total_seconds():g} s"
        )
        logger.warning("job %s: %s", self._job.id, message)
        with self._bench.database.write() as session:
            events.note(session, "slow-job", message, study_id=self._job.study_id, job_id=self._job.id)

    def _give_back(self) -> None:
        """End an attempt that took too long; where its row cannot be written, the sweep writes it."""
        try:
            with self._bench.database.write() as session:
                attempts.failed(
                    session,
                    self._job,
                    attempts.out_of_time(self._limits.hard),
                    owner=self._bench.owner,
                    max_attempts=self._bench.work.max_attempts,
                    now=datetime.now(UTC),
                )
        finally:
            self._end(f"it took longer than {self._limits.hard.total_seconds():g} s")

    def _end(self, why: str) -> None:
        self.lost = True
        logger.warning("job %s is stopped: %s", self._job.id, why)
        self._bench.end_process()

    def __enter__(self) -> Lease:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
