"""A node that can be asked to commit: a real listener with its rows behind it, and peers that ask."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import generate_uid
from pynetdicom import build_role, evt
from pynetdicom.pdu import P_DATA_TF
from sqlalchemy import select

from db import commitment_requests, migrate
from db.models import CommitmentRequest, Event
from dicom_node import commitment
from dicom_node.commitment import CommitmentAsk, CommitmentReport, Reference
from dicom_node.listener import Listener
from dicom_node.spool import Spool
from tests.support.entity import Entity
from tests.support.listening import until
from worker import commitment_answers, listen, sections, settings, station
from worker.commitment_desk import CommitmentDesk
from worker.indexer import Indexer
from worker.station import Station

PUSH = commitment.SOP_CLASS_UID


@dataclass(frozen=True)
class Node:
    """A listener whose rows are written, and no other process."""

    station: Station
    listener: Listener

    @property
    def port(self) -> int:
        return self.listener.port

    def requests(self) -> list[CommitmentRequest]:
        with self.station.database.read() as session:
            return list(session.scalars(select(CommitmentRequest).order_by(CommitmentRequest.id)))

    def events(self, kind: str) -> list[str]:
        with self.station.database.read() as session:
            return list(session.scalars(select(Event.message).where(Event.kind == kind).order_by(Event.id)))

    def due(self) -> list[int]:
        now = datetime.now(UTC)
        with self.station.database.read() as session:
            return commitment_requests.due(session, now=now, nudged_before=now)

    def answer_due(self) -> None:
        """What a sender does, until no request waits any more."""

        def settled() -> bool:
            for request_id in self.due():
                commitment_answers.answer(commitment_answers.clerk(self.station), request_id)
            return all(row.state != "pending" for row in self.requests())

        until(settled, "every request to be answered", seconds=30)


@contextmanager
def node(folder: Path, *peers: dict[str, Any]) -> Iterator[Node]:
    """A node on SQLite that knows these peers."""
    opened = station.open_station(
        settings.Settings(
            storage=folder,
            node=sections.Node(host="127.0.0.1", port=0, min_free_mb=0),
            peers=tuple(sections.Peer(**{"host": "127.0.0.1", **peer}) for peer in peers),
        )
    )
    migrate.upgrade(opened.database)
    with (
        Spool(opened.settings.spool, watermark_bytes=0) as spool,
        Indexer(opened) as indexer,
        CommitmentDesk(opened) as desk,
        Listener(listen.listener_config(opened.settings), spool, indexer, desk) as listener,
    ):
        yield Node(opened, listener)
    opened.close()


@dataclass
class Asker:
    """A peer on an association of its own, which it keeps until it is told."""

    assoc: Any
    told: list[CommitmentReport] = field(default_factory=list)
    #: Answers to reports that went out.
    answers: int = 0

    def store(self, made: Sequence[Dataset]) -> None:
        for ds in made:
            assert self.assoc.send_c_store(ds).Status == 0x0000

    def ask(self, references: Sequence[Reference], *, transaction_uid: str = "") -> int:
        wanted = CommitmentAsk(
            transaction_uid=transaction_uid or generate_uid(), references=tuple(references)
        )
        answer, _ = self.assoc.send_n_action(
            commitment.encode_ask(wanted), 1, PUSH, commitment.SOP_INSTANCE_UID
        )
        return int(answer.Status)

    def hear(self, event: Any) -> tuple[int, None]:
        self.told.append(commitment.decode_report(event.event_type, event.event_information))
        return 0x0000, None

    def sent(self, event: Any) -> None:
        """An answer is one PDU; pynetdicom breaks where a release overtakes it."""
        self.answers += isinstance(event.pdu, P_DATA_TF) and len(self.told) > self.answers


@contextmanager
def asker(port: int, *, title: str = "PACS", storing: Sequence[str] = ()) -> Iterator[Asker]:
    """An association that asks, and stores objects of these classes."""
    ae = Entity(ae_title=title)
    ae.add_requested_context(PUSH)
    for sop_class in storing:
        ae.add_requested_context(sop_class)
    ae.dimse_timeout = ae.network_timeout = ae.acse_timeout = 60
    made = Asker(None)
    made.assoc = ae.associate(
        "127.0.0.1",
        port,
        ae_title="SECONDREAD",
        ext_neg=[build_role(PUSH, scu_role=True, scp_role=True)],
        evt_handlers=[(evt.EVT_N_EVENT_REPORT, made.hear), (evt.EVT_PDU_SENT, made.sent)],
    )
    assert made.assoc.is_established
    connection = made.assoc.dul.socket.socket
    try:
        yield made
    finally:
        until(
            lambda: made.answers >= len(made.told) or not made.assoc.is_established, "its answers to go out"
        )
        if made.assoc.is_established:
            made.assoc.release()
        # pynetdicom leaves one open whose other end was first.
        connection.close()


def references(made: Sequence[Dataset]) -> list[Reference]:
    """What names these images."""
    return [
        Reference(sop_class_uid=str(ds.SOPClassUID), sop_instance_uid=str(ds.SOPInstanceUID)) for ds in made
    ]


@dataclass
class Ear:
    """A peer that listens at its own address."""

    port: int
    told: list[CommitmentReport] = field(default_factory=list)
    #: Who called, and the role that it wanted.
    callers: list[str] = field(default_factory=list)


@contextmanager
def ear(title: str = "PACS") -> Iterator[Ear]:
    """A peer that takes reports at its own address."""
    ae = Entity(ae_title=title)
    ae.add_supported_context(PUSH, scu_role=False, scp_role=True)
    heard = Ear(0)

    def hear(event: Any) -> tuple[int, None]:
        heard.told.append(commitment.decode_report(event.event_type, event.event_information))
        heard.callers.append(str(event.assoc.requestor.ae_title))
        return 0x0000, None

    server = ae.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_N_EVENT_REPORT, hear)])
    heard.port = server.server_address[1]
    try:
        yield heard
    finally:
        server.shutdown()
