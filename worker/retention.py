"""Retention: files of finished and delivered studies are deleted, oldest first, in small steps.

First the rows, then the files: what is doomed is remembered until it is gone, so that a purge that died
goes on. What came again in between is kept, whoever was told that we have it (see `stored_files`).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from db import commitment_requests, events, purging
from db import space as episodes
from db.base import Database
from db.models import DoomedFile, Study
from dicom_node import stored_files
from dicom_node.errors import DataSetError
from worker import pipeline, space
from worker.loop_guard import ConfiguredGuard
from worker.settings import Settings

logger = logging.getLogger(__name__)

#: Nothing is deleted by itself so soon after a study's last image or the end of its last job.
REST = timedelta(hours=1)
#: A person may delete sooner, but not what is perhaps being sent again just now.
SETTLED = timedelta(minutes=2)
#: A doomed file that came again is given a row after this, where the listener that took it did not.
REPORTED = timedelta(seconds=5)
#: Files that one step deletes, and studies that it looks at.
STEP_FILES, STEP_STUDIES = 200, 20
#: How often one looks whether there is something to do.
LOOK = timedelta(seconds=2)
#: How long it waits after an error that nobody foresaw.
TROUBLE = timedelta(seconds=30)
#: How often `partial/` is looked through.
PRUNE = timedelta(hours=1)
#: What an answered storage commitment request named is known for so long: as many rows as images.
NAMED = timedelta(days=30)


@dataclass(frozen=True, kw_only=True)
class Store:
    """What a purge needs at hand."""

    database: Database
    #: The storage folder, which the paths of doomed files are relative to.
    storage: Path
    #: Judges a file that came again, where its listener could not.
    guard: ConfiguredGuard
    #: Of two files with one SOP Instance UID, whether the last one is analysed.
    keep_last: bool = False


def open_store(database: Database, settings: Settings) -> Store:
    """The store that the configuration describes."""
    return Store(
        database=database,
        storage=settings.storage,
        guard=ConfiguredGuard.of(settings.guard),
        keep_last=settings.node.conflicts == "keep-last",
    )


@dataclass(frozen=True, kw_only=True)
class Look:
    """What one would delete of a study, and whether one may."""

    holding: purging.Holding
    #: The newest change of its images' files.
    newest: datetime
    #: Why not; "" where it may go.
    reason: str


def look(store: Store, study: Study, *, now: datetime, untouched_for: timedelta) -> Look:
    """Look at a study's rows and files, and change nothing.

    Files that came, or came again, within `untouched_for` hold it back.
    """
    with store.database.read() as session:
        holding = purging.holding(session, study.id)
        reason = purging.held_back(session, session.get_one(Study, study.id))
        paths = [] if reason else purging.image_paths(session, study.id)
    spool = store.storage / purging.SPOOL
    newest = stored_files.newest_change(spool / path for path in paths) or study.last_instance_at
    if not reason and newest > now - untouched_for:
        reason = f"an image of it came, or came again, at {newest.astimezone():%Y-%m-%d %H:%M:%S}"
    return Look(holding=holding, newest=newest, reason=reason)


def purge(store: Store, study: Study, seen: Look, *, now: datetime) -> str:
    """Take a study's files from its rows, so that `delete_doomed` deletes them; "" or why it may not be."""
    if seen.reason:
        return seen.reason
    with store.database.write() as session:
        if not purging.doom(session, study.id, known=seen.holding, unchanged_since=seen.newest, at=now):
            reason = purging.held_back(session, session.get_one(Study, study.id))
            return reason or "images came in this very moment"
        size = seen.holding.size / 1e6
        message = (
            f"its files were deleted: {seen.holding.images} received ones, {size:.1f} MB with its results"
        )
        events.note(session, "purged", message, study_id=study.id)
    logger.info("study %s is purged: %s images", study.study_instance_uid, seen.holding.images)
    return ""


def delete_doomed(store: Store, *, after: int, now: datetime) -> int | None:
    """Delete some doomed files; the id of the last one that was looked at, None where there is none.

    Safe to repeat after a crash at any point, and safe beside another that does the same.
    """
    if not (store.storage / purging.SPOOL).is_dir():
        # A storage that is not mounted: what is not seen there is not gone.
        return None
    with store.database.read() as session:
        rows = purging.doomed(session, after=after, limit=STEP_FILES)
        again = purging.recorded_among(session, rows)
    if not rows:
        return None
    images = [row for row in rows if row.path.startswith(f"{purging.SPOOL}/")]
    gone = [row.id for row in images if row.id in again or _delete(store, row, now)]
    stored_files.tidy(store.storage / purging.SPOOL, {(store.storage / row.path).parent for row in images})
    with store.database.write() as session:
        purging.forget(session, gone)
    for row in rows:
        if row.path.startswith(f"{purging.RESULTS}/"):
            _delete_results(store, row)
    return rows[-1].id


def _delete(store: Store, row: DoomedFile, now: datetime) -> bool:
    """Delete one image's file; whether its row has had its day."""
    path = store.storage / row.path
    try:
        if stored_files.remove(path, unchanged_since=row.unchanged_since):
            return True
        return _keep(store, path, now)
    except OSError as error:
        logger.warning("a purged file cannot be deleted and is tried again: %s", error.strerror)
        return False


def _keep(store: Store, path: Path, now: datetime) -> bool:
    """Give a row to a file that came again where its listener died before it could; whether it has one."""
    spool = store.storage / purging.SPOOL
    try:
        stored = stored_files.describe(spool, path)
    except FileNotFoundError:
        return True
    except DataSetError as error:
        logger.warning("spool file %s is not an instance: %s", path.relative_to(spool), error)
        return True
    if stored.received_at > now - REPORTED:
        return False
    pipeline.receive(
        store.database, spool, [stored], guard=store.guard, read_series=set(), keep_last=store.keep_last
    )
    return True


def _delete_results(store: Store, row: DoomedFile) -> None:
    """Delete a job's folder, unless the job was begun again: it spares its folder then."""
    with store.database.write() as session:
        if purging.lock_doomed(session, row.id):
            try:
                stored_files.remove_folder(store.storage / row.path)
            except OSError as error:
                logger.warning("results cannot be deleted and are tried again: %s", error.strerror)
                return
            purging.forget(session, [row.id])


@dataclass(frozen=True, kw_only=True, slots=True)
class Figures:
    """What the metrics say."""

    #: For how long images are refused for want of space; 0 where they are taken.
    short_seconds: float
    #: Files that are still to be deleted.
    doomed: int
    #: Age of the last image of the oldest study that may be purged; 0 where there is none.
    oldest_seconds: float


def figures(session: Session, now: datetime) -> Figures:
    """The figures as they are now."""
    since = episodes.short_since(session)
    oldest = purging.oldest(session, quiet_before=now - REST, limit=1)
    return Figures(
        short_seconds=(now - since).total_seconds() if since else 0.0,
        doomed=purging.count_doomed(session),
        oldest_seconds=(now - oldest[0].last_instance_at).total_seconds() if oldest else 0.0,
    )


def in_words(database: Database, settings: Settings) -> str:
    """What is kept, what is deleted when, and what may go now, for people."""
    rules = settings.retention
    whens = [f"{rules.days:g} days after their last image"] if rules.days else []
    whens += [f"below {rules.free_mb} MB free"] if rules.free_mb else []
    with database.read() as session:
        now = figures(session, datetime.now(UTC))
        size = space.megabytes(purging.total_size(session))
    deleted = f"studies go {' and '.join(whens)}" if whens else "nothing is deleted by itself"
    oldest = (
        f"; the oldest that may go is {now.oldest_seconds / 86400:.1f} days old" if now.oldest_seconds else ""
    )
    going = f"; {now.doomed} files are being deleted" if now.doomed else ""
    return f"{size} of images and results; {deleted}{oldest}{going}"


class Keeper:
    """Deletes by the configuration: `tick` does one small step where there is something to do."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self._store = store
        self._settings = settings.retention
        self._min_free_bytes = space.needed_bytes(settings)
        self._after = 0
        self._look_at = self._prune_at = datetime.min.replace(tzinfo=UTC)

    def tick(self, now: datetime) -> bool:
        """Do the next step where one is due; whether there was one."""
        if now < self._look_at:
            return False
        # Where this raises, studies are closed before it is tried again.
        self._look_at = now + TROUBLE
        busy = self._delete_some(now) or self._purge_one(now)
        if not busy:
            self._prune(now)
        self._look_at = now if busy else now + LOOK
        return busy

    def _delete_some(self, now: datetime) -> bool:
        last = delete_doomed(self._store, after=self._after, now=now)
        # Those that could not be deleted are tried again from the first.
        self._after = last or 0
        return last is not None

    def _purge_one(self, now: datetime) -> bool:
        """Purge the oldest study that is past its time, or whose space is wanted."""
        for study in self._candidates(now):
            seen = look(self._store, study, now=now, untouched_for=REST)
            reason = purge(self._store, study, seen, now=now)
            if not reason:
                return True
            logger.debug("study %s is not purged: %s", study.study_instance_uid, reason)
        return False

    def _candidates(self, now: datetime) -> list[Study]:
        """Studies that may go and should, oldest first."""
        days = self._settings.days
        quiet_before = now - REST
        wanted = self._settings.free_mb
        if wanted is None or space.free_bytes(self._store.storage) >= wanted * 1024 * 1024:
            if days is None:
                return []
            quiet_before = min(quiet_before, now - timedelta(days=days))
        with self._store.database.read() as session:
            return purging.oldest(session, quiet_before=quiet_before, limit=STEP_STUDIES)

    def _prune(self, now: datetime) -> None:
        """Delete what broke off on its way in and was never acknowledged: in time, or where space is short."""
        spool = self._store.storage / purging.SPOOL
        pruned = 0
        if space.free_bytes(self._store.storage) < self._min_free_bytes:
            pruned += stored_files.prune_partial(spool, before=now, pattern="*.part")
        if now >= self._prune_at:
            pruned += stored_files.prune_partial(
                spool, before=now - timedelta(days=self._settings.partial_days)
            )
            space.forget(self._store.database, now)
            with self._store.database.write() as session:
                commitment_requests.forget(session, before=now - NAMED)
            self._prune_at = now + PRUNE
        if pruned:
            logger.info("%s files that broke off on their way in were deleted", pruned)
