"""Accepts connections and makes storage associations of them.

Replaced of pynetdicom, and why:

Association.__init__, run_reactor   use StreamingUpperLayer; report the end of every association.
Association._serve_request          takes answers to our own requests; serves N-EVENT-REPORT like all others.
AssociationSocket._shutdown_socket  leaves a connection open that its peer closed first.
RequestHandler._create_association  copied: it names the classes Association and AssociationSocket.
_bind_defaults (both)               without the handlers that log what is exchanged.
AssociationServer.server_bind, get_request, process_request, server_close
                                    several processes on one port, time-outs on sockets, a door.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import struct
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from pynetdicom import evt
from pynetdicom._globals import MODE_ACCEPTOR
from pynetdicom.association import Association
from pynetdicom.dimse_primitives import DIMSEPrimitive
from pynetdicom.transport import AssociationServer, AssociationSocket, RequestHandler

from dicom_node.door import Door
from dicom_node.fast_upper_layer import StreamingUpperLayer

LOGGER = logging.getLogger(__name__)

#: Seconds that a peer has to answer our release while we stop.
_RELEASE_SECONDS = 3.0
#: Why an association ended whose peer was not asked, for people.
STOPPED = "the listener stopped"


class StorageAssociation(Association):  # type: ignore[misc]
    """An accepted association whose instances are streamed."""

    def __init__(self, server: StorageServer) -> None:
        super().__init__(server.ae, MODE_ACCEPTOR)
        self._server = server
        timeout = server.ae.network_timeout or 60.0
        self.dul = StreamingUpperLayer(self, max_pdu=server.ae.maximum_pdu_size, timeout=timeout)
        # These setters reach into the upper layer's timers: again, for the new one.
        self.acse_timeout = self.ae.acse_timeout
        self.network_timeout = self.ae.network_timeout
        #: The peer's answers to requests that we make on its association.
        self.answers: queue.SimpleQueue[DIMSEPrimitive] = queue.SimpleQueue()
        #: Whether a request of the peer is being served.
        self.is_serving = False

    def _serve_request(self, msg: DIMSEPrimitive, context_id: int) -> None:
        """Serve a request in this association's own thread, or keep the answer to one of ours.

        pynetdicom's way to send a request from an accepted association (`send_n_event_report`) takes whatever
        message comes next for the answer, aborts where it is a request, and waits for this very thread to
        pause, which never happens within it. Here every message comes this way instead, and each is told
        from the other. pynetdicom starts a thread for each N-EVENT-REPORT request: a peer could start any
        number, so they wait in the queue like the others.
        """
        if threading.current_thread() is not self:
            self.dimse.msg_queue.put((context_id, msg))
            return
        if msg.MessageIDBeingRespondedTo is not None:
            self.answers.put(msg)
            return
        self.is_serving = True
        try:
            super()._serve_request(msg, context_id)
        finally:
            self.is_serving = False

    def run_reactor(self) -> None:
        """Run until the association has ended, and say so."""
        try:
            super().run_reactor()
        finally:
            self._server.door.left(self.requestor.address_info.address)
            self._server.on_end(self)

    def wind_up(self, deadline: float) -> None:
        """End it: after its instance in hand, with a release, or at the deadline without."""
        if self.dul.quiet.wait(max(0.0, deadline - time.monotonic())) and self.is_established:
            self.acse_timeout = _RELEASE_SECONDS
            self.dul.end_reason = STOPPED
            self.release()
        self.dul.cut()
        self.join(_RELEASE_SECONDS)

    def _bind_defaults(self) -> None:
        """Bind pynetdicom's default handlers but not its logging ones: they print what is exchanged."""
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))


class StorageSocket(AssociationSocket):  # type: ignore[misc]
    """An association's connection."""

    def _shutdown_socket(self) -> None:
        """Close the connection, also where the peer was first and it cannot be shut down any more."""
        connection = self.socket
        if connection is None:
            return
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


class StorageRequestHandler(RequestHandler):  # type: ignore[misc]
    """Makes a `StorageAssociation` of a connection."""

    def _create_association(self) -> StorageAssociation:
        server = self.server
        assoc = StorageAssociation(server)
        # pynetdicom finds its associations by this part of the thread's name.
        assoc.name = f"AcceptorThread@{datetime.now(UTC):%Y%m%d%H%M%S}"
        assoc.set_socket(StorageSocket(assoc, client_socket=self.request))
        assoc.acceptor.maximum_length = server.ae.maximum_pdu_size
        assoc.acceptor.ae_title = server.ae_title
        assoc.acceptor.address_info = self.local
        assoc.acceptor.implementation_class_uid = server.ae.implementation_class_uid
        assoc.acceptor.implementation_version_name = server.ae.implementation_version_name
        # No deep copy, which took milliseconds: whoever adds contexts gives the association a new list.
        assoc.acceptor.supported_contexts = server.contexts
        assoc.requestor.address_info = self.remote
        for event, bound in server._handlers.items():
            if event.is_intervention:
                assoc.bind(event, *bound)
            else:
                for handler, args in bound:
                    assoc.bind(event, handler, args)
        return assoc


class StorageServer(AssociationServer):  # type: ignore[misc]
    """Accepts connections on a port that other processes may share."""

    request_queue_size = 128

    def __init__(
        self, *args: Any, on_end: Callable[[StorageAssociation], None], door: Door, **kwargs: Any
    ) -> None:
        self.on_end = on_end
        self.door = door
        super().__init__(*args, request_handler=StorageRequestHandler, **kwargs)
        door.open(self.finish_request)
        # pynetdicom collects garbage every 60th poll, that is each 30 s at its default interval.
        self._gc = [0, 299]

    def server_bind(self) -> None:
        """Bind; the kernel spreads connections over all processes that listen."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        super().server_bind()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept a connection and give it its time-outs."""
        connection, address = super().get_request()
        seconds = self.ae.network_timeout or 60.0
        interval = struct.pack("@ll", int(seconds), int(seconds % 1 * 1_000_000))
        connection.settimeout(None)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, address

    def process_request(self, request: Any, client_address: Any) -> None:
        """Have a connection wait at the door: what it asks for is not here yet."""
        self.door.knock(request, client_address)

    def server_close(self) -> None:
        """Close the port, and the door."""
        super().server_close()
        self.door.close()

    def _bind_defaults(self) -> None:
        for event in evt._INTERVENTION_EVENTS:
            self.bind(event, evt.get_default_handler(event))
