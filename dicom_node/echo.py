"""Is a peer there, does it know us, and which objects would it take: asked before the first delivery."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import httpx
from pydicom.uid import (
    BasicTextSRStorage,
    Comprehensive3DSRStorage,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EncapsulatedPDFStorage,
    ExplicitVRLittleEndian,
    GrayscaleSoftcopyPresentationStateStorage,
    ImplicitVRLittleEndian,
    KeyObjectSelectionDocumentStorage,
    MRImageStorage,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    ParametricMapStorage,
    PositronEmissionTomographyImageStorage,
    RLELossless,
    RTStructureSetStorage,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
)
from pynetdicom.sop_class import LabelMapSegmentationStorage, Verification

from dicom_node import errors
from dicom_node.senders import Destination, contexts, stow
from dicom_node.senders.association import open_association
from dicom_node.senders.contexts import Context

#: What secondread makes, by kind: SOP classes, in the syntax that they are written in.
_BY_KIND: dict[str, tuple[Context, ...]] = {
    kind: tuple((str(sop_class), str(syntax)) for sop_class in sop_classes)
    for kind, syntax, *sop_classes in (
        ("seg", ExplicitVRLittleEndian, SegmentationStorage),
        ("sr", ExplicitVRLittleEndian, Comprehensive3DSRStorage),
        (
            "key-images",
            ExplicitVRLittleEndian,
            MultiFrameTrueColorSecondaryCaptureImageStorage,
            SecondaryCaptureImageStorage,
        ),
        ("key-objects", ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage),
        ("sr-display", ExplicitVRLittleEndian, Comprehensive3DSRStorage),
        ("labelmap", RLELossless, LabelMapSegmentationStorage),
        ("rtstruct", ImplicitVRLittleEndian, RTStructureSetStorage),
        ("presentation-state", ExplicitVRLittleEndian, GrayscaleSoftcopyPresentationStateStorage),
        ("parametric-map", ExplicitVRLittleEndian, ParametricMapStorage),
        ("fractional", RLELossless, SegmentationStorage),
        ("pdf", ExplicitVRLittleEndian, EncapsulatedPDFStorage),
        (
            "image-series",
            ExplicitVRLittleEndian,
            CTImageStorage,
            MRImageStorage,
            PositronEmissionTomographyImageStorage,
            ComputedRadiographyImageStorage,
            DigitalXRayImageStorageForPresentation,
            SecondaryCaptureImageStorage,
        ),
        ("not-performed", ExplicitVRLittleEndian, BasicTextSRStorage),
    )
}


def result_contexts(kinds: Collection[str]) -> tuple[Context, ...]:
    """What a peer must take that gets results of these kinds."""
    asked = (context for kind, of_kind in _BY_KIND.items() if kind in kinds for context in of_kind)
    return tuple(dict.fromkeys(asked))


def kinds_taken(kinds: Collection[str], accepted: Collection[Context]) -> tuple[str, ...]:
    """Those of the kinds of which a peer takes whatever they may be written as."""
    return tuple(kind for kind in kinds if set(_BY_KIND[kind]) <= set(accepted))


#: What a model makes unless its manifest says otherwise.
USUAL_KINDS = ("seg", "sr")
RESULT_CONTEXTS: tuple[Context, ...] = result_contexts(USUAL_KINDS)

#: Stands for a C-ECHO that was sent and not answered.
_NO_ANSWER = -1


@dataclass(frozen=True, kw_only=True, slots=True)
class EchoReport:
    """What a peer answered when asked."""

    #: A TCP connection came about.
    reachable: bool = False
    #: The peer accepted an association with our AE title (STOW-RS: the service answered and let us in).
    associated: bool = False
    #: Status of the C-ECHO; None where there was none (STOW-RS has none).
    echo_status: int | None = None
    #: Of the contexts asked for, those that the peer accepts, and those that it does not.
    accepted: tuple[Context, ...] = ()
    refused: tuple[Context, ...] = ()
    #: From the start to the answer.
    milliseconds: float = 0.0
    #: What is wrong and what to change; "" where all is well.
    problem: str = ""

    @property
    def healthy(self) -> bool:
        """Whether every object asked about could be delivered now."""
        return self.associated and not self.problem


def verify(destination: Destination, wanted: Sequence[Context] = RESULT_CONTEXTS) -> EchoReport:
    """Ask the peer: C-ECHO and presentation contexts, or for STOW-RS a query that stores nothing.

    An object counts as accepted where its own syntax is, or one that a sender would re-encode it to.
    Nothing is raised: every failure is a report.
    """
    began = time.monotonic()
    if destination.kind == "memory":
        return EchoReport(reachable=True, associated=True, accepted=tuple(wanted))
    try:
        probe = _ask_web if destination.kind == "stow" else _ask_dicom
        return probe(destination, tuple(wanted), began)
    except errors.ContextRefused as error:
        return EchoReport(
            reachable=True,
            associated=True,
            refused=tuple(wanted),
            milliseconds=_since(began),
            problem=str(error),
        )
    except errors.SendError as error:
        reachable = not isinstance(error, errors.Unreachable)
        return EchoReport(reachable=reachable, milliseconds=_since(began), problem=str(error))


def _ask_dicom(destination: Destination, wanted: tuple[Context, ...], began: float) -> EchoReport:
    """Associate with Verification and everything wanted, and echo."""
    echo = contexts.ways((str(Verification), str(ExplicitVRLittleEndian)))
    known: set[Context] = set()
    status: int | None = None
    for proposed in contexts.packed([echo, *(contexts.ways(each) for each in wanted)]):
        with open_association(destination, proposed) as assoc:
            known |= contexts.accepted(assoc.accepted_contexts)
            if known & set(echo) & set(proposed):
                status = assoc.send_c_echo().get("Status", _NO_ANSWER)
    refused = tuple(each for each in wanted if not known & set(contexts.ways(each)))
    return EchoReport(
        reachable=True,
        associated=True,
        echo_status=None if status == _NO_ANSWER else status,
        accepted=tuple(each for each in wanted if each not in refused),
        refused=refused,
        milliseconds=_since(began),
        problem=_problem(status, refused),
    )


def _problem(status: int | None, refused: tuple[Context, ...]) -> str:
    """What is wrong with an association that came about; "" where nothing is."""
    found = []
    if refused:
        names = ", ".join(sorted({contexts.class_name(sop_class) for sop_class, _ in refused}))
        found.append(f"the peer does not take {names}; enable it there, or do not send it there")
    if status == _NO_ANSWER:
        found.append("the peer accepted the association but did not answer C-ECHO")
    elif status:
        found.append(f"C-ECHO answered 0x{status:04X}")
    return "; ".join(found)


def _ask_web(destination: Destination, wanted: tuple[Context, ...], began: float) -> EchoReport:
    """Query for at most one study (QIDO-RS, PS3.18 10.6): same service, same credentials, stores nothing."""
    sender = stow.StowSender(destination)
    with sender.client() as client:
        try:
            response = client.get(sender.url, params={"limit": "1"})
        except stow.UNREACHED as error:
            raise stow.unreachable(destination, error) from error
        except httpx.HTTPError as error:
            raise errors.SendError(f"{destination.name}: no answer: {type(error).__name__}") from error
    took = _since(began)
    if response.is_success:
        return EchoReport(reachable=True, associated=True, accepted=wanted, milliseconds=took)
    _, problem = stow.by_http_status(response.status_code, answered=False)
    return EchoReport(reachable=True, refused=wanted, milliseconds=took, problem=problem)


def _since(began: float) -> float:
    return (time.monotonic() - began) * 1000
