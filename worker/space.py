"""Space on the storage's disk: how much there is, and since when images are refused for want of it."""

from __future__ import annotations

import logging
import os
from datetime import datetime, timedelta
from pathlib import Path

from db import space as episodes
from db.base import Database
from worker.settings import Settings

logger = logging.getLogger(__name__)

#: Want of space is over where nobody was refused for so long, and there is a little more than must be.
CALM = timedelta(seconds=10)
_MORE = 1.05
#: Refused images of no study are forgotten after this, so many at once.
_FORGET_AFTER = timedelta(hours=1)
_FORGET_AT_ONCE = 5000


def free_bytes(storage: Path) -> int:
    """Free space on the storage's disk, as the listener sees it."""
    disk = os.statvfs(storage)
    return disk.f_bavail * disk.f_frsize


def needed_bytes(settings: Settings) -> int:
    """Free space below which no image is taken: the reserve of results and database."""
    return settings.node.min_free_mb * 1024 * 1024


def watch(database: Database, settings: Settings, now: datetime) -> None:
    """Note when want of space begins, and when it ends: once each, however many images are refused."""
    free, needed = free_bytes(settings.storage), needed_bytes(settings)
    with database.read() as session:
        since = episodes.short_since(session)
        lately = episodes.refused(session, since=now - CALM)
    if since is None and (free < needed or lately):
        message = f"images are refused with 0xA700: {megabytes(free)} free, {megabytes(needed)} are kept"
        with database.write() as session:
            began = episodes.begin(session, message)
        if began:
            logger.error("%s", message)
    elif since is not None and free > needed * _MORE and not lately:
        _end(database, since, now, free)


def _end(database: Database, since: datetime, now: datetime, free: int) -> None:
    """Say that it is over, and how many images its senders must send again."""
    with database.write() as session:
        count = episodes.refused(session, since=since - CALM)
        minutes = (now - since).total_seconds() / 60
        message = (
            f"images are taken again, {megabytes(free)} are free: {count} were refused in {minutes:.0f} min; "
            "their senders must send them again"
        )
        ended = episodes.end(session, message)
    if ended:
        logger.warning("%s", message)


def forget(database: Database, now: datetime) -> None:
    """Forget refused images that no study asks for."""
    with database.write() as session:
        episodes.forget_refused(session, before=now - _FORGET_AFTER, limit=_FORGET_AT_ONCE)


def shortage(database: Database) -> tuple[datetime, int] | None:
    """Since when images are refused for want of space, and how many; None where they are taken."""
    with database.read() as session:
        since = episodes.short_since(session)
        return None if since is None else (since, episodes.refused(session, since=since - CALM))


def megabytes(size: int) -> str:
    """A size as people read it."""
    return f"{size / 1e9:.1f} GB" if size >= 1e10 else f"{size / 1e6:.0f} MB"
