"""An in-process storage SCP that answers what it is told to, and keeps what it was sent."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification

from dicom_node.senders import Destination
from tests.support.entity import Entity

#: Answers a C-STORE: a status, or a data set with Status and Error Comment.
Answer = Callable[[Any], int | Dataset]


@dataclass
class Pacs:
    """A running SCP and what happened to it."""

    port: int = 0
    ae_title: str = "PACS"
    #: (SOP class, SOP instance UID, transfer syntax, data set's bytes), in order.
    stored: list[tuple[str, str, str, bytes]] = field(default_factory=list)
    #: Number of presentation contexts proposed in each association, in order.
    associations: list[int] = field(default_factory=list)
    released: int = 0
    aborted: int = 0

    def destination(self, **changes: Any) -> Destination:
        """This SCP as a C-STORE destination."""
        known = {"name": "pacs", "ae_title": self.ae_title, "host": "127.0.0.1", "port": self.port}
        return Destination(**{**known, "timeout_seconds": 30.0, **changes})


@contextmanager
def running(
    answer: Answer = lambda event: 0x0000,
    *,
    contexts: Sequence[tuple[str, Sequence[str]]] | None = None,
    echo: Callable[[Any], int] = lambda event: 0x0000,
    maximum_associations: int = 10,
    also: Sequence[tuple[Any, Any]] = (),
) -> Iterator[Pacs]:
    """Start an SCP on a free port; `contexts` None is every storage class in every syntax, and Verification."""
    pacs = Pacs()
    ae = Entity(ae_title=pacs.ae_title)
    ae.require_called_aet = True
    ae.maximum_associations = maximum_associations
    for sop_class, syntaxes in everything() if contexts is None else contexts:
        ae.add_supported_context(sop_class, list(syntaxes))

    def store(event: Any) -> int | Dataset:
        said = answer(event)
        request = event.request
        found = (str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
        pacs.stored.append(
            (*found, str(event.context.transfer_syntax), event.encoded_dataset(include_meta=False))
        )
        return said

    def count(name: str) -> Callable[[Any], None]:
        return lambda event: setattr(pacs, name, getattr(pacs, name) + 1)

    def requested(event: Any) -> None:
        pacs.associations.append(len(event.assoc.requestor.primitive.presentation_context_definition_list))

    handlers = [
        (evt.EVT_C_STORE, store),
        (evt.EVT_C_ECHO, echo),
        (evt.EVT_REQUESTED, requested),
        (evt.EVT_RELEASED, count("released")),
        (evt.EVT_ABORTED, count("aborted")),
        *also,
    ]
    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
    pacs.port = server.server_address[1]
    try:
        yield pacs
    finally:
        for association in server.active_associations:
            association.abort()
        server.shutdown()
        server.server_close()


def everything() -> list[tuple[str, Sequence[str]]]:
    """Every storage class in every transfer syntax, and Verification."""
    classes = [str(each.abstract_syntax) for each in AllStoragePresentationContexts]
    return [(uid, ALL_TRANSFER_SYNTAXES) for uid in (str(Verification), *classes)]


def wait_until(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Wait for what another thread or process brings about."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
    return condition()


def network_threads() -> list[str]:
    """Names of pynetdicom's threads for associations that we requested; none may be left after a send."""
    return [each.name for each in threading.enumerate() if each.name.startswith("RequestorThread")]
