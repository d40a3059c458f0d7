"""pynetdicom's application entity, which keeps its wits on a busy machine, and leaves no socket behind."""

from __future__ import annotations

import socket
from typing import Any

from pynetdicom import AE, evt


class Entity(AE):  # type: ignore[misc]
    """pynetdicom's AE, which leaves some sockets to the garbage collector."""

    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> Any:
        made = super()._create_socket(assoc, address, tls_args)
        _close_at_the_end(assoc.dul, made.socket)
        return made

    def start_server(self, *args: Any, evt_handlers: Any = (), **options: Any) -> Any:
        opened = (evt.EVT_CONN_OPEN, _close_what_was_accepted)
        return super().start_server(*args, evt_handlers=[opened, *evt_handlers], **options)


def _close_what_was_accepted(event: Any) -> None:
    _close_at_the_end(event.assoc.dul, event.assoc.dul.socket.socket)


def _close_at_the_end(dul: Any, connection: socket.socket) -> None:
    """Have a connection closed when its state machine stops."""
    stop = dul.kill_dul

    def stop_and_close() -> None:
        stop()
        connection.close()

    dul.kill_dul = stop_and_close


def steady(assoc: Any) -> None:
    """Mend two races of an established association.

    Its own thread says that it pauses a moment before it does, and may then take the answer that a request
    waits for. And whoever serves an N-EVENT-REPORT says that this thread runs again, though it pauses for a
    request that then waits for ever.
    """
    take, serve = assoc.dimse.get_msg, assoc._serve_request

    def get_msg(block: bool = False) -> Any:
        return take(block=True) if block else (None, None)

    def serve_one(message: Any, context_id: int) -> None:
        serve(message, context_id)
        if not assoc._reactor_checkpoint.is_set():
            assoc._is_paused = True

    assoc.dimse.get_msg, assoc._serve_request = get_msg, serve_one
