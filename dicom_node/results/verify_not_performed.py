"""The gate for a document that says that there is no answer: it says that, and of which series, and no more."""

from __future__ import annotations

from pydicom.dataset import Dataset

from dicom_node import elements
from dicom_node.errors import GateError
from dicom_node.results import codes, not_performed, reasons, references
from dicom_node.results.not_performed import Failure


def check(ds: Dataset, failure: Failure) -> None:
    """Compare a document, as read from disk, with the failure. GateError says what differs."""
    if (ds.get("VerificationFlag"), ds.get("CompletionFlag")) != ("UNVERIFIED", "COMPLETE"):
        raise GateError("it must be UNVERIFIED and COMPLETE")
    if codes.read(ds.ConceptNameCodeSequence[0]) != not_performed.TITLE:
        raise GateError("its title does not say that the AI was not performed")
    image = failure.headers[0]
    instance = elements.text(image, "SOPInstanceUID")
    expected = {
        "CODE": [not_performed.ENGLISH, reasons.of(failure.reason).code],
        "TEXT": list(not_performed.words(failure)),
        "UIDREF": [elements.text(image, "SeriesInstanceUID")],
        "IMAGE": [instance],
    }
    if _said(ds) != expected:
        raise GateError("its reason, its words, its series or its image are not those of the failure")
    listed = [uids[-1] for uids in references.read(ds, "CurrentRequestedProcedureEvidenceSequence")]
    if listed != [instance]:
        raise GateError("the evidence is not the image that it names")


def _said(ds: Dataset) -> dict[str, list[object]]:
    """What it says by itself, by value type; who observed is the equipment's."""
    found: dict[str, list[object]] = {"CODE": [], "TEXT": [], "UIDREF": [], "IMAGE": []}
    for item in ds.ContentSequence:
        if item.RelationshipType == "HAS OBS CONTEXT":
            continue
        if item.ValueType == "CODE":
            found["CODE"].append(codes.read(item.ConceptCodeSequence[0]))
        elif item.ValueType == "TEXT":
            found["TEXT"].append(str(item.TextValue))
        elif item.ValueType == "UIDREF":
            found["UIDREF"].append(str(item.UID))
        elif item.ValueType == "IMAGE":
            found["IMAGE"].append(str(item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID))
        else:
            raise GateError(f"a {item.ValueType} item has no place in it")
    return found
