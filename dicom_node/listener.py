"""The storage SCP: who may call, what is accepted, and what is told to whom."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from pynetdicom import evt
from pynetdicom.pdu_primitives import A_ASSOCIATE

from dicom_node import application_entity, commitment_scp
from dicom_node.access import KnownPeer, PeerBook
from dicom_node.commitment_events import Caller, CommitmentEvents
from dicom_node.commitment_scp import CommitmentScp
from dicom_node.contexts import storage_contexts
from dicom_node.door import Door
from dicom_node.listener_config import ListenerConfig
from dicom_node.listener_events import (
    AssociationEvent,
    AssociationEventKind,
    ListenerEvents,
    RefusedInstance,
)
from dicom_node.receiver import StoreReceiver
from dicom_node.spool import Spool
from dicom_node.storage_server import STOPPED, StorageAssociation, StorageServer
from dicom_node.turned_away import TurnedAway

__all__ = [
    "AssociationEvent",
    "AssociationEventKind",
    "KnownPeer",
    "Listener",
    "ListenerConfig",
    "ListenerEvents",
    "RefusedInstance",
]

LOGGER = logging.getLogger(__name__)

#: (result, source, diagnostic) of PS3.8 table 9-21: permanent, service user, and which title it was.
_CALLED_AE_UNKNOWN = (0x01, 0x01, 0x07)
_CALLING_AE_UNKNOWN = (0x01, 0x01, 0x03)
#: Seconds that a rejected caller has to close its connection.
_FAREWELL_SECONDS = 2.0


@dataclass(kw_only=True)
class _Caller:
    """What the listener keeps on an association."""

    association_id: str
    calling_ae_title: str
    called_ae_title: str
    address: str
    peer: str = ""
    opened: bool = False
    ended: bool = False


class Listener:
    """Listens from construction (`with Listener(...)`) until `stop`."""

    def __init__(
        self,
        config: ListenerConfig,
        spool: Spool,
        events: ListenerEvents,
        commitments: CommitmentEvents | None = None,
    ) -> None:
        """`commitments` None takes no storage commitment messages; only known peers may send any."""
        self._config = config
        self._spool = spool
        self._events = events
        self._book = PeerBook(config.peers)
        self._callers: dict[StorageAssociation, _Caller] = {}
        self._commitments = CommitmentScp(commitments, self._who) if commitments is not None else None
        application_entity.quieten_pynetdicom()
        ae = application_entity.configured(config)
        self._server: StorageServer = ae.make_server(
            (config.host, config.port),
            evt_handlers=[
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_ACSE_SENT, self._on_acse_sent),
                (evt.EVT_RELEASED, self._on_released),
                (evt.EVT_ABORTED, self._on_aborted),
                *(self._commitments.handlers if self._commitments is not None else ()),
            ],
            server_class=StorageServer,
            on_end=self._on_end,
            door=Door(
                self._on_turned_away,
                max_associations=config.max_associations,
                max_waiting=config.max_waiting,
                patience=config.association_timeout,
            ),
        )
        ae._servers.append(self._server)
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.1}, name="listener", daemon=True
        )
        self._stopped = False
        self._thread.start()

    @property
    def port(self) -> int:
        """The TCP port that is bound."""
        return int(self._server.server_address[1])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self) -> None:
        """Take no more connections, finish and answer each instance in hand, then release.

        Returns when every association has ended; one whose instance takes longer than `stop_seconds`
        is cut, unacknowledged.
        """
        if self._stopped:
            return
        self._stopped = True
        associations = self._server.active_associations
        for association in associations:
            association.dul.draining = True
        self._server.shutdown()
        self._thread.join()
        deadline = time.monotonic() + self._config.stop_seconds
        threads = [
            threading.Thread(target=association.wind_up, args=(deadline,), name="release", daemon=True)
            for association in {*associations, *self._server.active_associations}
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _on_requested(self, event: evt.Event) -> None:
        """A-ASSOCIATE-RQ: reject whom we do not know, otherwise choose the presentation contexts."""
        association = event.assoc
        request = association.requestor.primitive
        caller = _Caller(
            association_id=str(uuid.uuid4()),
            calling_ae_title=request.calling_ae_title,
            called_ae_title=request.called_ae_title,
            address=association.requestor.address_info.address,
        )
        self._callers[association] = caller
        rejection = self._rejection(caller)
        if rejection is not None:
            diagnosis, reason = rejection
            association.dul.artim_timer.timeout = _FAREWELL_SECONDS
            association.acse.send_reject(*diagnosis)
            self._tell(caller, AssociationEventKind.REJECTED, reason)
            association.kill()
            return
        proposed = request.presentation_context_definition_list
        supported = [*self._server.contexts, *storage_contexts(proposed)]
        if self._commitments is not None and caller.peer:
            supported.append(commitment_scp.context())
        association.acceptor.supported_contexts = supported

    def _rejection(self, caller: _Caller) -> tuple[tuple[int, int, int], str] | None:
        """Why this caller may not come in: what it is told, and what our people are told."""
        if caller.called_ae_title != self._config.ae_title.strip():
            ours = self._config.ae_title.strip()
            return _CALLED_AE_UNKNOWN, f"it called {caller.called_ae_title!r}, and we are {ours!r}"
        if not self._config.require_known_peers:
            found = self._book.find(caller.calling_ae_title, caller.address)
            caller.peer = found.name if found else ""
            return None
        peer = self._book.find(caller.calling_ae_title, caller.address)
        if peer is not None:
            caller.peer = peer.name
            return None
        if self._book.knows_title(caller.calling_ae_title):
            return _CALLING_AE_UNKNOWN, "its AE title is known, but not at this address"
        return _CALLING_AE_UNKNOWN, "its AE title is not that of a known peer"

    def _on_acse_sent(self, event: evt.Event) -> None:
        """Just before A-ASSOCIATE-AC goes out: from then on instances may arrive."""
        primitive = event.primitive
        if not isinstance(primitive, A_ASSOCIATE) or primitive.result != 0x00:
            return
        association = event.assoc
        caller = self._callers[association]
        caller.opened = True
        self._tell(caller, AssociationEventKind.OPENED)
        commitment_scp.allow(association)
        association.dul.sink = StoreReceiver(
            association_id=caller.association_id,
            source_ae_title=caller.calling_ae_title,
            contexts=application_entity.accepted(association.accepted_contexts),
            spool=self._spool,
            events=self._events,
            guard=self._config.guard,
        )

    def _who(self, association: StorageAssociation) -> Caller:
        known = self._callers[association]
        return Caller(
            association_id=known.association_id,
            calling_ae_title=known.calling_ae_title,
            address=known.address,
            peer=known.peer,
        )

    def _on_released(self, event: evt.Event) -> None:
        # Our own release, when we stop, does not say that the peer had sent all it had.
        reason = event.assoc.dul.end_reason
        kind = AssociationEventKind.ABORTED if reason else AssociationEventKind.RELEASED
        self._tell(self._callers[event.assoc], kind, reason)

    def _on_aborted(self, event: evt.Event) -> None:
        caller = self._callers.get(event.assoc)
        if caller is not None and caller.opened:
            self._tell(caller, AssociationEventKind.ABORTED, self._why_aborted(event.assoc))

    def _why_aborted(self, association: StorageAssociation) -> str:
        """A sentence on who ended the association."""
        if association.dul.end_reason:
            return str(association.dul.end_reason)
        if association.dul.idle_timer_expired():
            return f"the peer was silent for {self._config.network_timeout:g} s"
        return STOPPED if self._stopped else "the peer aborted it"

    def _on_turned_away(self, away: TurnedAway) -> None:
        """A connection did not get as far as an association."""
        caller = _Caller(
            association_id=str(uuid.uuid4()),
            calling_ae_title=away.calling,
            called_ae_title=away.called,
            address=away.address,
        )
        self._tell(caller, AssociationEventKind.REJECTED, away.reason)

    def _on_end(self, association: StorageAssociation) -> None:
        """The association's thread ends; some ways out tell nobody."""
        caller = self._callers.pop(association, None)
        if caller is not None and caller.opened:
            self._tell(caller, AssociationEventKind.ABORTED, "the connection was lost")

    def _tell(self, caller: _Caller, kind: AssociationEventKind, reason: str = "") -> None:
        """Tell of an association, of its end only once."""
        if caller.ended:
            return
        caller.ended = kind is not AssociationEventKind.OPENED
        LOGGER.info(
            "association %s %s: %r at %s%s",
            caller.association_id,
            kind,
            caller.calling_ae_title,
            caller.address,
            f": {reason}" if reason else "",
        )
        happened = AssociationEvent(
            association_id=caller.association_id,
            kind=kind,
            calling_ae_title=caller.calling_ae_title,
            called_ae_title=caller.called_ae_title,
            address=caller.address,
            peer=caller.peer,
            at=datetime.now(UTC),
            reason=reason,
        )
        try:
            self._events.association(happened)
        except Exception as error:  # noqa: BLE001 - instances are still to be received
            LOGGER.error("an association event is not recorded: %s", type(error).__name__)
