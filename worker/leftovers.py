"""Result files that no row names: what workers left that died, or whose job was taken from them."""

from __future__ import annotations

import itertools
import logging
import time

from db import results
from dicom_node.results import files
from worker.station import Station

logger = logging.getLogger(__name__)

#: A file younger than this may be one of which a row is just being written.
FRESH_SECONDS = 5.0
#: Folders that are asked about at once.
_BATCH = 200


def remove(station: Station) -> int:
    """Delete unfinished files, and those of jobs that ended without results; how many that was.

    A folder that belongs to no job that we know is left alone: whose it is, nobody can say.
    """
    removed = 0
    folders = (folder for folder in station.settings.results.glob("*") if folder.is_dir())
    while batch := list(itertools.islice(folders, _BATCH)):
        with station.database.read() as session:
            barren = results.barren(session, [folder.name for folder in batch])
        for folder in batch:
            removed += files.remove_unfinished(folder)
            # Its job may have been revived since; what it makes now is fresh.
            stale = time.time() - FRESH_SECONDS
            for path in folder.rglob("*.dcm") if folder.name in barren else ():
                if path.stat().st_mtime < stale:
                    path.unlink()
                    removed += 1
    if removed:
        logger.info("%s files of results that never came to be were deleted", removed)
    return removed
