"""A small receiving PACS: stores what it is sent and remembers it, for the demo and for tests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pynetdicom import AE, ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, _config, evt
from pynetdicom.sop_class import Verification

from dicom_node.senders.files import is_uid

logger = logging.getLogger(__name__)

# pynetdicom's own log handlers print UIDs and AE titles at every message, and cost time doing so.
_config.LOG_HANDLER_LEVEL = "none"

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
CANNOT_UNDERSTAND = 0xC000

#: Bytes of a PDU that we take at once; fewer, larger PDUs are less work for both sides.
_MAXIMUM_PDU = 128 * 1024


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
    """A storage SCP that runs while the context is open.

    `folder` is made; files are named by SOP Instance UID, a second copy replaces the first. `port` 0 takes
    a free one, read it from `.port`. `on_received` is called on the association's thread.
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
        self._server: Any = None

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
        self.folder.mkdir(parents=True, exist_ok=True)
        ae = AE(ae_title=self.ae_title)
        ae.require_called_aet = True
        ae.maximum_pdu_size = _MAXIMUM_PDU
        ae.add_supported_context(Verification)
        for context in AllStoragePresentationContexts:
            ae.add_supported_context(context.abstract_syntax, ALL_TRANSFER_SYNTAXES)
        self._server = ae.start_server(
            (self.host, self.port), block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)]
        )
        self.port = self._server.server_address[1]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for association in self._server.active_associations:
            association.abort()
        self._server.shutdown()
        self._server.server_close()

    def _store(self, event: Any) -> int:
        """Write the bytes as they came (never decoded), under their final name, before answering."""
        request = event.request
        uid = str(request.AffectedSOPInstanceUID)
        if not is_uid(uid):  # it names a file
            return CANNOT_UNDERSTAND
        path = self.folder / f"{uid}.dcm"
        partial = self.folder / f".{uid}.{threading.get_ident()}"
        try:
            partial.write_bytes(event.encoded_dataset())
            partial.replace(path)
        except OSError:
            logger.exception("an instance could not be written; the sender is told to try again")
            return OUT_OF_RESOURCES
        self._remember(
            Received(
                sop_class_uid=str(request.AffectedSOPClassUID),
                sop_instance_uid=uid,
                path=path,
                at=datetime.now(UTC),
            )
        )
        return SUCCESS

    def _remember(self, received: Received) -> None:
        with self._changed:
            self._received.append(received)
            self._changed.notify_all()
        if self._on_received is not None:
            self._on_received(received)
