"""pynetdicom's application entity, which keeps its wits on a busy machine, and leaves no socket behind."""

from __future__ import annotations

from typing import Any

from pynetdicom import evt

from dicom_node.senders.requestor import Requestor, close_at_the_end


class Entity(Requestor):
    """An AE that also accepts associations, and closes their connections."""

    def associate(self, *args: Any, **options: Any) -> Any:
        assoc = super().associate(*args, **options)
        _pause_again(assoc)
        return assoc

    def start_server(self, *args: Any, evt_handlers: Any = (), **options: Any) -> Any:
        opened = (evt.EVT_CONN_OPEN, _opened)
        return super().start_server(*args, evt_handlers=[opened, *evt_handlers], **options)


def _opened(event: Any) -> None:
    close_at_the_end(event.assoc.dul, event.assoc.dul.socket.socket)


def _pause_again(assoc: Any) -> None:
    """Mend a race: whoever serves an N-EVENT-REPORT says that the association's own thread runs again, though
    it pauses for a request, which then waits for ever.
    """
    serve = assoc._serve_request

    def serve_one(message: Any, context_id: int) -> None:
        serve(message, context_id)
        if not assoc._reactor_checkpoint.is_set():
            assoc._is_paused = True

    assoc._serve_request = serve_one
