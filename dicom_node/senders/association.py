"""One outgoing association, opened and closed in one place, with its failures put into words."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from pynetdicom import _config, build_context, evt

from dicom_node import errors
from dicom_node.senders import Destination
from dicom_node.senders.contexts import Context
from dicom_node.senders.requestor import Requestor

# pynetdicom's own log handlers print UIDs and AE titles at every message, and cost time doing so.
_config.LOG_HANDLER_LEVEL = "none"
# Files go out as they lie on disk: no decoding, no second copy. It concerns requests with a path only.
_config.STORE_SEND_CHUNKED_DATASET = True

#: A-ASSOCIATE-RJ (source, diagnostic) -> what to change; PS3.8 Table 9-21.
REJECTIONS = {
    (1, 1): "no reason given; check that the peer knows our AE title and address",
    (1, 2): "it does not speak the DICOM application context; is this a DICOM port?",
    (1, 3): "it does not know our AE title {calling!r}: add it at the peer",
    (1, 7): "it is not called {called!r}: correct `ae_title` of this peer",
    (2, 1): "no reason given by its protocol layer",
    (2, 2): "its protocol version differs",
    (3, 1): "it is congested; it is tried again",
    (3, 2): "it has as many associations as it allows; it is tried again",
}

#: Linux only.
_QUICKACK: int | None = getattr(socket, "TCP_QUICKACK", None)

#: A peer that does not answer A-RELEASE must not hold up a delivery that is already answered.
_RELEASE_SECONDS = 5.0


@contextmanager
def open_association(
    destination: Destination,
    contexts: Sequence[Context],
    handlers: Sequence[tuple[Any, Any]] = (),
    roles: Sequence[Any] = (),
) -> Iterator[Any]:
    """An established pynetdicom Association, released at the end, aborted where the body raised.

    `handlers` are pynetdicom's, for what the peer says of its own accord; `roles` are its role selections.
    Raises ContextRefused where the peer accepted the association but none of the contexts, Unreachable
    where there was no connection, and SendError where it rejected or aborted the association.
    """
    began = time.monotonic()
    ae = _application_entity(destination)
    try:
        assoc = ae.associate(
            destination.host,
            destination.port,
            contexts=[build_context(abstract, transfer) for abstract, transfer in contexts],
            ae_title=destination.ae_title,
            ext_neg=list(roles),
            evt_handlers=[
                (evt.EVT_CONN_OPEN, _on_connected, [destination.timeout_seconds]),
                (evt.EVT_DATA_SENT, _answer_at_once),
                (evt.EVT_CONN_CLOSE, _wake_whoever_waits),
                *handlers,
            ],
        )
    except socket.gaierror as error:
        raise errors.Unreachable(
            f"{_where(destination)}: no such host; correct `host` of this peer"
        ) from error
    if not assoc.is_established:
        raise _failure(destination, assoc, time.monotonic() - began)
    try:
        yield assoc
    except BaseException:
        assoc.abort()
        raise
    assoc.acse_timeout = min(destination.timeout_seconds, _RELEASE_SECONDS)
    assoc.release()


def _application_entity(destination: Destination) -> Any:
    """Our side of the association, with the destination's patience for every kind of wait."""
    ae = Requestor(ae_title=destination.calling_ae_title)
    ae.connection_timeout = destination.timeout_seconds
    ae.acse_timeout = destination.timeout_seconds
    ae.dimse_timeout = destination.timeout_seconds
    ae.network_timeout = destination.timeout_seconds
    return ae


def _on_connected(event: Any, timeout_seconds: float) -> None:
    """Set up the fresh TCP connection."""
    connection = event.assoc.dul.socket.socket
    # A C-STORE ends with a short PDU; Nagle's algorithm would hold it back for the peer's delayed ACK.
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    # pynetdicom lets it wait for ever: a peer that stops reading would hang this thread, abort included.
    connection.settimeout(timeout_seconds)


def _answer_at_once(event: Any) -> None:
    """After each PDU out, have the kernel acknowledge what comes in without delay.

    DCMTK, and so Orthanc, writes a PDU's header and body apart with Nagle's algorithm on: the body waits for
    our ACK of the header, which the kernel delays by 40 ms. It forgets the option, hence at every PDU.
    """
    connection = event.assoc.dul.socket.socket
    if _QUICKACK is not None and connection is not None:
        with suppress(OSError):  # the peer may be gone by now; the next read says so
            connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def _wake_whoever_waits(event: Any) -> None:
    """A request on a connection that has closed is over now, not when its time-out passes.

    pynetdicom puts one wake-up into the queue of answers, and its own thread, which looks there between
    requests, may be the one that takes it; in its one or two looks until it ends it takes no more than these.
    """
    for _ in range(3):
        event.assoc.dimse.msg_queue.put((None, None))


def _where(destination: Destination) -> str:
    return f"{destination.name} ({destination.ae_title} at {destination.host}:{destination.port})"


def _failure(destination: Destination, assoc: Any, seconds: float) -> errors.SendError:
    """Why there is no association, in words that say what to change."""
    where = _where(destination)
    answer = assoc.acceptor.primitive
    if answer is not None and answer.result == 0x00:
        return errors.ContextRefused(f"{where}: accepts none of the proposed presentation contexts")
    if assoc.is_rejected:
        words = REJECTIONS.get(
            (answer.result_source, answer.diagnostic), "for a reason the standard does not know"
        )
        said = words.format(calling=destination.calling_ae_title, called=destination.ae_title)
        return errors.SendError(f"{where}: rejected the association: {said}")
    connected = assoc.requestor.port != 0  # set from the socket once it is connected
    waited = f"within {seconds:.0f} s"
    if seconds >= 0.95 * destination.timeout_seconds:
        if not connected:
            return errors.Unreachable(f"{where}: no connection {waited}; check `host` and firewalls")
        return errors.SendError(f"{where}: connected, but no answer {waited}; is this a DICOM port?")
    if not connected:
        words = "nothing accepts connections there; is it running, is `port` right?"
        return errors.Unreachable(f"{where}: {words}")
    return errors.SendError(f"{where}: closed the connection without an answer; is this a DICOM port?")
