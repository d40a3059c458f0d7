"""Which presentation contexts the listener takes: all that store, in any transfer syntax."""

from __future__ import annotations

from collections.abc import Iterable

from pydicom.uid import UID, ImplicitVRLittleEndian
from pynetdicom import ALL_TRANSFER_SYNTAXES, AllStoragePresentationContexts
from pynetdicom.presentation import PresentationContext

_STORAGE = frozenset(str(context.abstract_syntax) for context in AllStoragePresentationContexts)
_KNOWN_SYNTAXES = frozenset(str(uid) for uid in ALL_TRANSFER_SYNTAXES)


def named() -> frozenset[str]:
    """The Storage SOP classes that this version knows by name."""
    return _STORAGE


def is_storage(sop_class: UID) -> bool:
    """Whether a SOP class stores composite objects.

    Private classes and ones newer than this software count as such: their data sets can be kept as they
    come. What DICOM names otherwise (queries, worklists, commitment) does not.
    """
    if sop_class in _STORAGE:
        return True
    return sop_class.is_private or sop_class.name == str(sop_class)


def storage_contexts(proposed: Iterable[PresentationContext]) -> list[PresentationContext]:
    """Supported contexts that accept every proposed storage class, one for each class.

    Transfer syntaxes are preferred in the order of the proposal, which puts the file's own first, but for
    two: Implicit VR yields to explicit ones (private elements keep their VR), and a syntax that no
    library here knows is taken only where nothing else is offered.
    """
    offered: dict[UID, dict[str, None]] = {}
    for context in proposed:
        if is_storage(UID(context.abstract_syntax)):
            syntaxes = offered.setdefault(UID(context.abstract_syntax), {})
            syntaxes.update(dict.fromkeys(str(uid) for uid in context.transfer_syntax))
    return [_supported(sop_class, sorted(syntaxes, key=_rank)) for sop_class, syntaxes in offered.items()]


def _rank(transfer_syntax: str) -> int:
    if transfer_syntax not in _KNOWN_SYNTAXES:
        return 2
    return 1 if transfer_syntax == ImplicitVRLittleEndian else 0


def _supported(sop_class: UID, transfer_syntaxes: list[str]) -> PresentationContext:
    context = PresentationContext()
    context.abstract_syntax = sop_class
    context.transfer_syntax = transfer_syntaxes
    return context
