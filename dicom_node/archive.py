"""A small receiving PACS: stores what it is sent and remembers it, for the demo and for tests."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Self

from dicom_node.instance import StoredInstance
from dicom_node.listener import AssociationEvent, Listener, ListenerConfig, RefusedInstance
from dicom_node.spool import Spool


@dataclass(frozen=True, kw_only=True, slots=True)
class Received:
    """One instance that arrived."""

    sop_class_uid: str
    sop_instance_uid: str
    #: A Part 10 file; the data set in it is the sender's bytes.
    path: Path
    #: Aware UTC.
    at: datetime


class Archive:
    """A storage SCP that runs while the context is open: the listener and the spool, open to any caller.

    `folder` is made; files lie in it as `<study>/<series>/<sop instance>.dcm`. `port` 0 takes a free one,
    read it from `.port` once the context is open. `on_received` is called on the association's thread.
    """

    def __init__(
        self,
        folder: Path,
        *,
        ae_title: str,
        port: int = 0,
        host: str = "127.0.0.1",
        on_received: Callable[[Received], None] | None = None,
    ) -> None:
        self.folder = folder
        self.ae_title = ae_title
        self.host = host
        self.port = port
        self._on_received = on_received
        self._received: list[Received] = []
        self._changed = threading.Condition()
        self._open = ExitStack()

    @property
    def received(self) -> tuple[Received, ...]:
        """What has arrived so far, in order; an instance sent twice is there twice."""
        with self._changed:
            return tuple(self._received)

    def wait_for(self, count: int, timeout: float) -> bool:
        """Wait until `count` instances have arrived; False where `timeout` seconds pass before."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._received) >= count, timeout)

    def __enter__(self) -> Self:
        config = ListenerConfig(
            ae_title=self.ae_title,
            port=self.port,
            host=self.host,
            require_known_peers=False,
            stop_seconds=5.0,
        )
        with ExitStack() as opened:  # where the port is taken, the spool is closed again
            spool = opened.enter_context(Spool(self.folder, watermark_bytes=0))
            self.port = opened.enter_context(Listener(config, spool, self)).port
            self._open = opened.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def instance(self, stored: StoredInstance) -> None:
        """The listener tells of a durable instance."""
        received = Received(
            sop_class_uid=stored.sop_class_uid,
            sop_instance_uid=stored.sop_instance_uid,
            path=self.folder / stored.path,
            at=stored.received_at,
        )
        with self._changed:
            self._received.append(received)
            self._changed.notify_all()
        if self._on_received is not None:
            self._on_received(received)

    def refused(self, refused: RefusedInstance) -> None:
        """The listener tells of an instance that it did not store; its sender knows."""

    def association(self, event: AssociationEvent) -> None:
        """The listener tells of an association; an archive does not care."""
