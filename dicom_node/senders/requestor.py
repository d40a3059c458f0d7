"""pynetdicom's application entity where it asks for associations, with what it forgets on a busy machine."""

from __future__ import annotations

import queue
import socket
from typing import Any

from pynetdicom import AE
from pynetdicom.pdu_primitives import A_ASSOCIATE


class Requestor(AE):  # type: ignore[misc]
    """An AE whose connections are closed when they have ended, and that hears every rejection and every answer."""

    def associate(self, *args: Any, **options: Any) -> Any:
        """Ask for an association.

        pynetdicom takes a peer that rejects at once for one that could not be reached: the connection is
        closed again before its own thread looks whether it was opened. The answer lies where nobody took it.
        """
        assoc = super().associate(*args, **options)
        if not assoc.is_established and assoc.acceptor.primitive is None:
            answer = _untaken(assoc.dul.to_user_queue)
            if isinstance(answer, A_ASSOCIATE) and answer.result != 0x00:
                assoc.acceptor.primitive = answer
                assoc.is_rejected, assoc.is_aborted = True, False
        return assoc

    def _create_socket(self, assoc: Any, address: Any, tls_args: Any) -> Any:
        made = super()._create_socket(assoc, address, tls_args)
        close_at_the_end(assoc.dul, made.socket)
        _keep_answers(assoc.dimse)
        return made


def _keep_answers(dimse: Any) -> None:
    """Have pynetdicom's own thread leave the queue of answers alone.

    Between requests it looks there for requests of the peer, without waiting, and pauses while we wait for
    an answer. It says that it pauses a moment before it does: on a busy machine it then still takes the
    answer, and the request times out. No request of a peer that we ask comes this way: an N-EVENT-REPORT
    has a thread of its own.
    """
    take = dimse.get_msg

    def get_msg(block: bool = False) -> Any:
        return take(block=True) if block else (None, None)

    dimse.get_msg = get_msg


def close_at_the_end(dul: Any, connection: socket.socket) -> None:
    """Have a connection closed when its state machine stops.

    pynetdicom leaves some to the garbage collector: those that were refused, or reset by the peer, and those on
    which it gives up on an answer that is no PDU, since it then stops its thread before that has closed it.
    """
    stop = dul.kill_dul

    def stop_and_close() -> None:
        stop()
        connection.close()

    dul.kill_dul = stop_and_close


def _untaken(answers: queue.Queue[Any]) -> Any:
    """What lies in the queue; None where nothing does."""
    try:
        return answers.get(block=False)
    except queue.Empty:
        return None
