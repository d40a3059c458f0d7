"""The DICOM conformance statement (PS3.2), made of what the code does and of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from pydicom.uid import UID

from dicom_node import contexts, echo, results
from dicom_node.file_meta import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicom_node.senders import contexts as sent
from dicom_node.senders import statuses
from dicom_node.senders.association import REJECTIONS
from dicom_node.statuses import NormalizedStatus, StoreStatus
from worker.listen import listener_config
from worker.settings import Settings

#: What each answer to C-STORE means (PS3.4 Table B.2-1).
STORE_ANSWERS = {
    StoreStatus.SUCCESS: "the file is on the disk under its final name, and the disk has confirmed it",
    StoreStatus.OUT_OF_RESOURCES: "there is less free space than the watermark, or the disk refused",
    StoreStatus.DOES_NOT_MATCH: "SOP class or instance of the data set are not those of the request",
    StoreStatus.NOT_A_DATA_SET: "the bytes cannot be read as a data set, or end before its UIDs",
    StoreStatus.BAD_UID: "a UID that must name the file is not a UID",
    StoreStatus.LOOPED: "it came back to where it was made, and the configuration has such refused",
}

#: What each answer to N-ACTION and to N-EVENT-REPORT means (PS3.4 J.3.2, J.3.3).
COMMITMENT_ANSWERS = {
    NormalizedStatus.SUCCESS: "it is recorded durably",
    NormalizedStatus.NO_SUCH_INSTANCE: "the instance is not the well-known one",
    NormalizedStatus.NO_SUCH_EVENT_TYPE: "the Event Type ID is neither 1 nor 2",
    NormalizedStatus.INVALID_ARGUMENT: "it is no request or no report, or not one that may be taken",
    NormalizedStatus.NO_SUCH_CLASS: "the SOP class is not the Storage Commitment Push Model",
    NormalizedStatus.NO_SUCH_ACTION: "the Action Type ID is not 1",
    NormalizedStatus.RESOURCE_LIMITATION: "it could not be recorded; worth another try",
}

#: Where the statement of a checkout has what its tests have found.
_NO_MATRIX = "What has been tried is in the statement that comes with the source code."


def statement(settings: Settings, *, source: str, matrix: str = _NO_MATRIX) -> str:
    """The whole statement, in Markdown. `source` says which configuration this is."""
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        undefined=StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,
    )
    return environment.get_template("conformance.md").render(
        source=source,
        node=settings.node,
        acceptor=_acceptor(settings),
        store_answers=_answers(STORE_ANSWERS),
        commitment_answers=_answers(COMMITMENT_ANSWERS),
        most_contexts=sent.MOST_PER_ASSOCIATION,
        peers_answers=[(_codes(row), row.verdict.value, row.words or "stored") for row in statuses.MEANINGS],
        rejections=[
            (
                f"{party}, {reason}",
                words.replace("{calling!r}", "of ours").replace("{called!r}", "as we call it"),
            )
            for (party, reason), words in REJECTIONS.items()
        ],
        made=_made(),
        storage=sorted((sent.class_name(uid), uid) for uid in contexts.named()),
        matrix=matrix,
    )


def _acceptor(settings: Settings) -> list[tuple[str, Any]]:
    """What holds for every association that others open."""
    config = listener_config(settings)
    callers = "configured peers, by AE title and address" if config.require_known_peers else "anyone"
    return [
        ("AE title", config.ae_title),
        ("port", config.port),
        ("callers", callers),
        ("associations at once, in each process", config.max_associations),
        ("maximum PDU length", f"{config.max_pdu} bytes"),
        ("asynchronous operations", "not negotiated: one at a time"),
        ("time to ask for an association", f"{config.association_timeout:g} s"),
        ("time without a byte until it is aborted", f"{config.network_timeout:g} s"),
        ("Implementation Class UID", IMPLEMENTATION_CLASS_UID),
        ("Implementation Version Name", IMPLEMENTATION_VERSION_NAME),
    ]


def _answers(meanings: dict[Any, str]) -> list[tuple[str, str]]:
    """Codes and what they mean."""
    return [(f"0x{int(status):04X}", words) for status, words in meanings.items()]


def _codes(row: statuses.Meaning) -> str:
    """A code, or the first and the last of several."""
    return f"0x{row.first:04X}" if row.first == row.last else f"0x{row.first:04X} to 0x{row.last:04X}"


def _made() -> list[tuple[str, str, str, str]]:
    """Every kind of result: its SOP classes, and the transfer syntax that they are written in."""
    return [
        (f"`{kind}`", sent.class_name(sop_class), sop_class, UID(syntax).name)
        for kind in (*results.KINDS, results.NOT_PERFORMED)
        for sop_class, syntax in echo.result_contexts((kind,))
    ]
