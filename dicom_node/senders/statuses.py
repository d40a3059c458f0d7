"""What a status code of a storing peer means for a delivery; C-STORE and STOW-RS share the codes."""

from __future__ import annotations

from dataclasses import dataclass

from dicom_node.senders import Outcome, Verdict
from dicom_node.senders.files import FileToSend

_LONGEST_COMMENT = 64  # Error Comment (0000,0902) is LO: 64 characters, PS3.5 6.2.


@dataclass(frozen=True, kw_only=True, slots=True)
class Meaning:
    """One row of the table."""

    #: First and last code of the row, both included.
    first: int
    last: int
    verdict: Verdict
    #: What the code says, and what helps where something does.
    words: str


def _row(first: int, last: int, verdict: Verdict, words: str) -> Meaning:
    return Meaning(first=first, last=last, verdict=verdict, words=words)


#: PS3.4 Table B.2-1 (storage), PS3.7 Annex C (any DIMSE service), PS3.18 Table I.2-1 and I.2-2 (STOW-RS).
#: The first row that holds the code wins.
MEANINGS = (
    _row(0x0000, 0x0000, Verdict.DELIVERED, ""),
    _row(0x0001, 0x0001, Verdict.WARNING, "stored; requested optional attributes are not supported"),
    _row(0x0107, 0x0107, Verdict.WARNING, "stored; attribute list error"),
    _row(0x0116, 0x0116, Verdict.WARNING, "stored; attribute value out of range"),
    # Results are the same bytes under the same UID at every try: being there already is being delivered.
    _row(0x0111, 0x0111, Verdict.WARNING, "the peer already has this instance"),
    _row(0xB000, 0xB000, Verdict.WARNING, "stored; the peer coerced data elements"),
    _row(0xB006, 0xB006, Verdict.WARNING, "stored; the peer discarded elements"),
    _row(0xB007, 0xB007, Verdict.WARNING, "stored; the data set does not match the SOP class"),
    _row(0xB000, 0xBFFF, Verdict.WARNING, "stored with a warning"),
    _row(0x0110, 0x0110, Verdict.RETRY, "processing failure at the peer"),
    _row(0x0210, 0x0210, Verdict.RETRY, "duplicate invocation"),
    _row(0x0213, 0x0213, Verdict.RETRY, "resource limitation at the peer"),
    _row(0xA700, 0xA7FF, Verdict.RETRY, "the peer is out of resources"),
    _row(0xFE00, 0xFE00, Verdict.RETRY, "cancelled by the peer"),
    _row(0x0117, 0x0117, Verdict.REFUSED, "invalid SOP instance"),
    _row(0x0118, 0x0119, Verdict.REFUSED, "the peer does not know this SOP class or has conflicting ones"),
    _row(0x0122, 0x0122, Verdict.REFUSED, "the peer does not support this SOP class; enable it there"),
    _row(0x0124, 0x0124, Verdict.REFUSED, "not authorised; allow our AE title to store at the peer"),
    _row(0x0211, 0x0211, Verdict.REFUSED, "the peer does not know the operation"),
    _row(0x0212, 0x0212, Verdict.REFUSED, "mistyped argument"),
    _row(0x0105, 0x0106, Verdict.REFUSED, "invalid attribute value"),
    _row(0x0120, 0x0121, Verdict.REFUSED, "missing attribute or attribute value"),
    _row(0xA900, 0xA9FF, Verdict.REFUSED, "the data set does not match its SOP class, says the peer"),
    _row(0xC000, 0xCFFF, Verdict.REFUSED, "the peer cannot understand the data set"),
)
#: Another try costs little, and a code nobody defined says nothing final.
_UNKNOWN = _row(0x0000, 0xFFFF, Verdict.RETRY, "a status the standard does not define for storage")


def meaning(status: int) -> Meaning:
    """The table's row for a status code."""
    return next((row for row in MEANINGS if row.first <= status <= row.last), _UNKNOWN)


def outcome(file: FileToSend, status: int, peers_words: object = None) -> Outcome:
    """The outcome that a status code comes to for a file."""
    return Outcome(
        sop_instance_uid=file.sop_instance_uid,
        verdict=meaning(status).verdict,
        status=status,
        comment=comment(status, peers_words),
        path=file.path,
    )


def comment(status: int, peers_words: object = None) -> str:
    """Code, meaning and the peer's own words: `0xA700 the peer is out of resources: disk full`."""
    said = printable(peers_words)
    words = meaning(status).words
    if status == 0x0000:
        return said
    return f"0x{status:04X} {words}: {said}" if said else f"0x{status:04X} {words}"


def printable(text: object) -> str:
    """A peer's free text, cut to what Error Comment may hold and to what can be printed on one line."""
    if text is None:
        return ""
    return "".join(char if char.isprintable() else " " for char in str(text)[:_LONGEST_COMMENT]).strip()
