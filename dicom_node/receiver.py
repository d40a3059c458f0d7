"""One association's C-STORE requests: fragments in, durable instances and answers out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass

from dicom_node.errors import NO_SPACE, DataSetError, SpoolFull
from dicom_node.file_meta import FileMetaTemplate
from dicom_node.header import BadUid, checked_uid
from dicom_node.incoming import BUFFER_BYTES, Incoming, Looped, WrongInstance
from dicom_node.instance import StoredInstance
from dicom_node.listener_events import RefusedInstance, StoreEvents
from dicom_node.loop_guard import LoopGuard
from dicom_node.spool import Spool
from dicom_node.statuses import StoreStatus
from dicom_node.store_message import ProtocolError, StoreRequest, encode_response, parse_request

LOGGER = logging.getLogger(__name__)

#: A C-STORE command set is some 250 bytes.
_LONGEST_COMMAND = 16 * 1024


@dataclass(frozen=True, kw_only=True, slots=True)
class StorageContext:
    """An accepted presentation context for storage."""

    sop_class_uid: str
    transfer_syntax_uid: str


class StoreReceiver:
    """Receives what one association stores, one instance at a time (no asynchronous operations)."""

    def __init__(
        self,
        *,
        association_id: str,
        source_ae_title: str,
        contexts: Mapping[int, StorageContext],
        spool: Spool,
        events: StoreEvents,
        guard: LoopGuard | None = None,
    ) -> None:
        self._association_id = association_id
        self._source_ae_title = source_ae_title
        self._contexts = contexts
        self._spool = spool
        self._events = events
        self._guard = guard
        self._templates: dict[tuple[int, str], FileMetaTemplate] = {}
        # One buffer for the life of the association: its memory stays flat whatever is sent.
        self._buffer = bytearray(BUFFER_BYTES)
        self._command = bytearray()
        self._context_id = 0
        self._request: StoreRequest | None = None
        self._sop_instance_uid = ""
        self._sop_class_uid = ""
        self._incoming: Incoming | None = None
        self._refusal: tuple[StoreStatus, str] | None = None
        self._for_space = False

    @property
    def in_hand(self) -> bool:
        """Whether part of an instance has arrived and its answer has not been given."""
        return self._request is not None or bool(self._command)

    def takes(self, context_id: int) -> bool:
        """Whether this presentation context is for storage."""
        return context_id in self._contexts

    def command(self, context_id: int, fragment: bytes | bytearray, *, last: bool) -> bytes | None:
        """Take a fragment of a command set; an answer where there is one already. Raises `ProtocolError`."""
        if self._request is not None:
            raise ProtocolError("a command came before the end of the data set of the one before")
        self._command += fragment
        if len(self._command) > _LONGEST_COMMAND:
            raise ProtocolError("a command set is too long")
        if not last:
            return None
        command, self._command = self._command, bytearray()
        self._request = parse_request(command)
        self._context_id = context_id
        self._begin(self._request)
        return None if self._request.has_data_set else self._finish()

    def room(self) -> memoryview:
        """Where the next bytes of the data set go; never empty."""
        return memoryview(self._buffer) if self._incoming is None else self._incoming.room()

    def filled(self, context_id: int, count: int, *, last: bool) -> bytes | None:
        """Say that `count` bytes are in `room()`; the answer after the last. Raises `ProtocolError`."""
        if self._request is None or context_id != self._context_id:
            raise ProtocolError("a data set came without its command")
        if self._incoming is not None:
            try:
                self._incoming.filled(count)
            except (SpoolFull, OSError) as error:
                self._refuse_for_disk(error)
        return self._finish() if last else None

    def close(self) -> None:
        """The association ended: what of an instance has arrived was never acknowledged."""
        self._let_go()
        self._request = None
        # pynetdicom's objects refer to each other: they, and this, wait for the garbage collector.
        self._buffer = bytearray()

    def _begin(self, request: StoreRequest) -> None:
        """Make ready for the data set, or settle why it will be refused; it is read to its end either way."""
        self._refusal = None
        self._for_space = False
        self._sop_instance_uid = ""
        try:
            self._sop_instance_uid = checked_uid(request.sop_instance_uid, "Affected SOP Instance UID")
            self._sop_class_uid = checked_uid(request.sop_class_uid, "Affected SOP Class UID")
            self._incoming = self._spool.begin(
                template=self._template(self._context_id, self._sop_class_uid),
                sop_instance_uid=self._sop_instance_uid,
                buffer=self._buffer,
            )
        except BadUid as error:
            self._refuse(StoreStatus.BAD_UID, str(error))
        except (SpoolFull, OSError) as error:
            self._refuse_for_disk(error)

    def _template(self, context_id: int, sop_class_uid: str) -> FileMetaTemplate:
        key = (context_id, sop_class_uid)
        if key not in self._templates:
            if len(self._templates) > 2 * len(self._contexts):
                self._templates.clear()
            self._templates[key] = FileMetaTemplate(
                sop_class_uid=sop_class_uid,
                transfer_syntax_uid=self._contexts[context_id].transfer_syntax_uid,
                source_ae_title=self._source_ae_title,
            )
        return self._templates[key]

    def _finish(self) -> bytes:
        """All bytes are here: make them durable, tell, and answer."""
        request = self._request
        assert request is not None
        stored = None if self._refusal else self._commit()
        if stored is not None:
            self._tell_stored(stored)
        status, comment = self._refusal or (StoreStatus.SUCCESS, "")
        self._let_go()
        self._request = None
        if status is not StoreStatus.SUCCESS:
            self._tell_refused(status, comment)
        return encode_response(request=request, context_id=self._context_id, status=status, comment=comment)

    def _commit(self) -> StoredInstance | None:
        """The durable instance; None, with the refusal settled, where it cannot become one."""
        if self._incoming is None:
            return None
        try:
            return self._incoming.commit(
                sop_class_uid=self._sop_class_uid,
                transfer_syntax_uid=self._contexts[self._context_id].transfer_syntax_uid,
                association_id=self._association_id,
                guard=self._guard,
            )
        except WrongInstance as error:
            self._refuse(StoreStatus.DOES_NOT_MATCH, str(error))
        except Looped as error:
            self._refuse(StoreStatus.LOOPED, str(error))
        except BadUid as error:
            self._refuse(StoreStatus.BAD_UID, str(error))
        except DataSetError as error:
            self._refuse(StoreStatus.NOT_A_DATA_SET, str(error))
        except (SpoolFull, OSError) as error:
            self._refuse_for_disk(error)
        return None

    def _refuse(self, status: StoreStatus, reason: str) -> None:
        self._refusal = (status, reason)
        self._let_go()

    def _refuse_for_disk(self, error: SpoolFull | OSError) -> None:
        """Refuse for want of space, or because the disk failed."""
        self._for_space = isinstance(error, SpoolFull) or error.errno in NO_SPACE
        reason = str(error) if isinstance(error, SpoolFull) else _disk(error)
        self._refusal = (StoreStatus.OUT_OF_RESOURCES, reason)
        # What came of it would only take the space that is short.
        self._let_go(keep=not self._for_space)

    def _let_go(self, *, keep: bool = True) -> None:
        incoming, self._incoming = self._incoming, None
        if incoming is None:
            return
        try:
            incoming.set_aside(keep=keep)
        except OSError as error:
            # Where it lies it is still recognised as unfinished at the next start.
            LOGGER.warning("could not move an unfinished transfer to partial/: %s", error.strerror)

    def _tell_stored(self, stored: StoredInstance) -> None:
        """Tell of a durable instance; where that fails, ask the sender to send it again."""
        try:
            self._events.instance(stored)
        except Exception as error:  # noqa: BLE001 - whatever it was, the association goes on and the sender knows
            LOGGER.error(
                "instance %s is stored but not recorded: %s", stored.sop_instance_uid, type(error).__name__
            )
            self._refusal = (StoreStatus.OUT_OF_RESOURCES, "stored but not recorded; send it again")

    def _tell_refused(self, status: StoreStatus, reason: str) -> None:
        LOGGER.warning("refused an instance with 0x%04X: %s", status, reason)
        refused = RefusedInstance(
            association_id=self._association_id,
            sop_instance_uid=self._sop_instance_uid,
            status=status,
            reason=reason,
            for_space=self._for_space,
        )
        try:
            self._events.refused(refused)
        except Exception as error:  # noqa: BLE001 - the sender still gets its answer
            LOGGER.error("a refused instance is not recorded: %s", type(error).__name__)


def _disk(error: OSError) -> str:
    return f"the disk did not take it: {error.strerror}"
