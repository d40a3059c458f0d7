"""What the senders know: which instance, byte for byte, was acknowledged with 0x0000."""

from __future__ import annotations

import json
import threading
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Acknowledged:
    """One instance that was answered with success."""

    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    #: SHA-256 of the data set as it went over the wire.
    sha256: str
    #: Whether these are other bytes under a SOP Instance UID that was sent before.
    other_bytes: bool


class Ledger:
    """Counts and remembers; several senders write at once."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._known: dict[tuple[str, str], Acknowledged] = {}
        #: How often each thing happened to the senders: sent, acknowledged, refused, broken, ...
        self.counts: Counter[str] = Counter()

    def acknowledged(self, entry: Acknowledged) -> None:
        """An instance was answered with 0x0000."""
        with self._lock:
            self.counts["acknowledged"] += 1
            self._known[entry.sop_instance_uid, entry.sha256] = entry

    def count(self, what: str) -> None:
        """Something happened."""
        with self._lock:
            self.counts[what] += 1

    def has(self, sop_instance_uid: str, sha256: str) -> bool:
        """Whether these very bytes were acknowledged."""
        with self._lock:
            return (sop_instance_uid, sha256) in self._known

    def entries(self) -> list[Acknowledged]:
        """Everything that was acknowledged, each instance once."""
        with self._lock:
            return list(self._known.values())

    def write(self, path: Path) -> None:
        """One JSON object per line, for whoever looks afterwards."""
        path.write_text("".join(json.dumps(asdict(entry)) + "\n" for entry in self.entries()))
