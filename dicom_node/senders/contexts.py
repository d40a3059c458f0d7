"""Which presentation contexts to propose for a set of files, and in how many associations."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)
from pynetdicom.sop_class import LabelMapSegmentationStorage

from dicom_node.senders.files import FileToSend

#: (SOP class UID, transfer syntax UID). Each pair is proposed as a presentation context of its own, so
#: that the peer answers each by itself: of several syntaxes in one context it would pick only one.
Context = tuple[str, str]

#: PS3.8 9.3.2.2: context IDs are the odd numbers of one byte.
MOST_PER_ASSOCIATION = 128

#: What an uncompressed object may be re-encoded to, best first. Every DICOM peer takes Implicit VR Little
#: Endian (PS3.5 10.1).
FALLBACKS: tuple[str, ...] = (str(ExplicitVRLittleEndian), str(ImplicitVRLittleEndian))
#: Syntaxes whose data sets can be re-encoded without touching a pixel.
_CONVERTIBLE = frozenset({*FALLBACKS, str(DeflatedExplicitVRLittleEndian)})


#: Classes that pydicom's dictionary does not know yet.
_NAMES = {str(LabelMapSegmentationStorage): "Label Map Segmentation Storage"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What one association carries."""

    contexts: tuple[Context, ...]
    files: tuple[FileToSend, ...]


def class_name(sop_class_uid: str) -> str:
    """The SOP class's name for people; its UID where nobody knows one."""
    return _NAMES.get(sop_class_uid) or UID(sop_class_uid).name


def ways(own: Context) -> tuple[Context, ...]:
    """The contexts that could carry an object of this class and syntax: its own first, then re-encoded."""
    sop_class, syntax = own
    others = FALLBACKS if syntax in _CONVERTIBLE else ()
    return tuple(dict.fromkeys([own, *((sop_class, other) for other in others)]))


def wanted(file: FileToSend) -> tuple[Context, ...]:
    """The contexts that could carry the file, its own syntax first."""
    return ways((file.sop_class_uid, file.transfer_syntax_uid))


def choose(file: FileToSend, accepted: Iterable[Context]) -> Context | None:
    """The accepted context that carries the file, its own syntax first; None where there is none."""
    known = set(accepted)
    return next((context for context in wanted(file) if context in known), None)


def accepted(negotiated: Iterable[Any]) -> set[Context]:
    """pynetdicom's accepted contexts as plain pairs; an answer names one syntax (PS3.8 9.3.3.2)."""
    return {(str(cx.abstract_syntax), str(cx.transfer_syntax[0])) for cx in negotiated}


def packed(groups: Iterable[Sequence[Context]]) -> list[tuple[Context, ...]]:
    """Put groups of contexts into few associations of at most 128 each; no group is split."""
    made: list[dict[Context, None]] = []
    for group in groups:
        fits = (each for each in made if len(each.keys() | set(group)) <= MOST_PER_ASSOCIATION)
        if (place := next(fits, None)) is None:
            made.append(place := {})
        place.update(dict.fromkeys(group))
    return [tuple(each) for each in made]


def batches(files: Sequence[FileToSend]) -> list[Batch]:
    """Split the files so that no association proposes too many contexts; order is kept within each."""
    made = []
    left = list(files)
    for proposed in packed(dict.fromkeys(wanted(file) for file in files)):
        known = set(proposed)
        carried = tuple(file for file in left if known >= set(wanted(file)))
        left = [file for file in left if not known >= set(wanted(file))]
        made.append(Batch(contexts=proposed, files=carried))
    return made
