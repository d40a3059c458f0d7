"""A pynetdicom requestor that keeps its wits on a busy machine, while its peer makes requests too."""

from __future__ import annotations

from typing import Any

from pynetdicom import AE


class Requestor(AE):  # type: ignore[misc]
    """pynetdicom's AE, which leaves the socket of a refused connection to the garbage collector."""

    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> Any:
        made = super()._create_socket(assoc, address, tls_args)
        connection, shut_down = made.socket, made._shutdown_socket

        def shut_down_and_close() -> None:
            shut_down()
            connection.close()

        made._shutdown_socket = shut_down_and_close
        return made


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
