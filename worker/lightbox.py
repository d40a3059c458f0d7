"""The series that were read last, kept for the next model that looks at them."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from dicom_node.series import SeriesImages
from engines.manifest_inputs import Frames, Input, Moments
from worker import inference
from worker.series_files import Files

logger = logging.getLogger(__name__)

#: Nobody comes back to a series after so long: its other models have had their turn. Seconds.
IDLE_SECONDS = 20.0
#: What a header without pixels takes, about.
HEADER_BYTES = 64 * 2**10

#: Exactly which bytes were read, and as what.
_Key = tuple[bool, str, Frames | None, Moments | None, tuple[tuple[Path, str], ...]]


class LightBox:
    """Reads series, and keeps what it read until others need the place, or nothing is read for a while.

    A series is known by the paths and digests of its files: one that was sent again with other bytes is
    another one. What is handed out is shared: its voxels cannot be written to.
    """

    def __init__(self, megabytes: float = 0, *, idle_seconds: float = IDLE_SECONDS) -> None:
        """Keep up to so many megabytes; 0 keeps nothing."""
        self._most = int(megabytes * 2**20)
        self._idle_seconds = idle_seconds
        self._kept: OrderedDict[_Key, SeriesImages] = OrderedDict()
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def read(self, files: Files, entry: Input) -> SeriesImages:
        """The files as a volume, as the input wants it. Raises SeriesError, and OSError where one cannot be read."""
        if len(files.digests) != len(files.paths):
            # Nobody knows which bytes these are.
            return inference.read_files(files, entry)
        bytes_read = tuple(zip(files.paths, files.digests, strict=True))
        key = (entry.planar, entry.values, entry.frames, entry.moments, bytes_read)
        with self._lock:
            found = self._kept.get(key)
            if found is not None:
                self._kept.move_to_end(key)
        if found is None:
            found = inference.read_files(files, entry)
            self._keep(key, found)
        self._wait_anew()
        return found

    @property
    def kept_bytes(self) -> int:
        """What is held just now, about."""
        with self._lock:
            return sum(map(_size, self._kept.values()))

    def _keep(self, key: _Key, found: SeriesImages) -> None:
        if _size(found) > self._most:
            return
        for array in _arrays(found):
            array.setflags(write=False)
        with self._lock:
            self._kept[key] = found
            while sum(map(_size, self._kept.values())) > self._most:
                self._kept.popitem(last=False)

    def _wait_anew(self) -> None:
        """Let go of everything when nothing is read for a while."""
        with self._lock:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = None
            if self._kept:
                self._timer = threading.Timer(self._idle_seconds, self.clear)
                self._timer.daemon = True
                self._timer.start()

    def clear(self) -> None:
        """Let go of everything; who works on a series keeps it to the end."""
        with self._lock:
            self._kept.clear()

    def close(self) -> None:
        """Let go of everything, for good."""
        with self._lock:
            self._kept.clear()
            if self._timer is not None:
                self._timer.cancel()


def _size(images: SeriesImages) -> int:
    """Bytes of a series in memory, about."""
    return sum(array.nbytes for array in _arrays(images)) + len(images.datasets) * HEADER_BYTES


def _arrays(images: SeriesImages) -> list[NDArray[Any]]:
    """The voxels, and those of a clip's frames or of further moments."""
    volume = images.volume
    return [volume.array, *([] if volume.frames is None else [volume.frames]), *volume.further]
