"""A sender that keeps what it was given: for tests, and for trying routes without a PACS."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from dicom_node import errors
from dicom_node.senders import Destination, Outcome, statuses
from dicom_node.senders.files import FileToSend, identify_all

#: What to answer to a file: a DIMSE status code (statuses.MEANINGS says what it comes to).
Answer = Callable[[FileToSend], int]


class MemorySender:
    """Records every file it is sent and answers 0x0000, or what `answer` says."""

    def __init__(self, answer: Answer | None = None, unreachable: str = "") -> None:
        self.answer: Answer = answer or (lambda file: 0x0000)
        #: Not empty: every send raises Unreachable with these words.
        self.unreachable = unreachable
        #: What came, in order; a file sent twice is here twice.
        self.sent: list[FileToSend] = []

    def send(self, paths: Sequence[Path], on_outcome: Callable[[Outcome], None]) -> None:
        """Record every file and answer for it, see `Sender.send`."""
        if self.unreachable:
            raise errors.Unreachable(self.unreachable)
        for file in identify_all(paths, on_outcome):
            self.sent.append(file)
            on_outcome(statuses.outcome(file, self.answer(file)))


_SENDERS: dict[str, MemorySender] = {}


def sender(destination: Destination) -> MemorySender:
    """This process's one memory sender for the destination's name: a test finds there what was sent."""
    return _SENDERS.setdefault(destination.name, MemorySender())
