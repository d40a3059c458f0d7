"""A peer's count by C-FIND on the Study Root model (PS3.4 C.4.1, C.6.2)."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import _config
from pynetdicom.sop_class import StudyRootQueryRetrieveInformationModelFind

from dicom_node import errors
from dicom_node.query import Counted, combined
from dicom_node.senders import Destination
from dicom_node.senders.association import open_association

# What is asked for and answered names patients' studies.
_config.LOG_REQUEST_IDENTIFIERS = False
_config.LOG_RESPONSE_IDENTIFIERS = False

_MODEL = StudyRootQueryRetrieveInformationModelFind
_CONTEXTS = [
    (str(_MODEL), str(syntax)) for syntax in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
]  # fmt: skip
#: PS3.4 Table C.4-1.
_SUCCESS, _PENDING = 0x0000, (0xFF00, 0xFF01)

#: Matches that one question is answered with; more is no study.
_MOST_MATCHES = 50_000
#: All questions together may take this many time-outs: each answer alone may take one.
_TIMEOUTS = 2

_UID = re.compile(r"[0-9.]{1,64}")


class _Refused(errors.QueryError):
    """The peer answered with a failure; the association stands."""


def count(destination: Destination, study_instance_uid: str) -> Counted | None:
    """See `query.count`; one association, asked at the levels of study, series, and where needed image."""
    with open_association(destination, _CONTEXTS) as assoc:
        ask = _Asking(destination, assoc, study_instance_uid)
        studies = list(ask.find("STUDY", NumberOfStudyRelatedInstances=""))
        if not studies:
            return None
        total = _number(studies[0], "NumberOfStudyRelatedInstances")
        try:
            series = ask.series()
        except _Refused:
            if total is None:
                raise
            series = {}
        if not series and total is None:
            raise errors.QueryError(f"{destination.name}: knows the study and tells no number of images")
        return combined(series, total)


class _Asking:
    """Questions about one study on one association."""

    def __init__(self, destination: Destination, assoc: Any, study_instance_uid: str) -> None:
        self._name = destination.name
        self._timeout = destination.timeout_seconds
        self._assoc = assoc
        self._study = study_instance_uid
        self._ends = time.monotonic() + _TIMEOUTS * destination.timeout_seconds

    def series(self) -> dict[str, int]:
        """Images per series; counted one by one where the peer lacks the optional number (PS3.4 C.3.4)."""
        counts: dict[str, int | None] = {}
        for match in self.find("SERIES", SeriesInstanceUID="", NumberOfSeriesRelatedInstances=""):
            counts[self._uid(match, "SeriesInstanceUID")] = _number(match, "NumberOfSeriesRelatedInstances")
        return {uid: self._images(uid) if number is None else number for uid, number in counts.items()}

    def _images(self, series_instance_uid: str) -> int:
        keys = {"SeriesInstanceUID": series_instance_uid, "SOPInstanceUID": ""}
        return len({self._uid(match, "SOPInstanceUID") for match in self.find("IMAGE", **keys)})

    def find(self, level: str, **keys: str) -> Iterator[Dataset]:
        """The matches at a level. Raises QueryError."""
        identifier = Dataset()
        identifier.QueryRetrieveLevel = level
        identifier.StudyInstanceUID = self._study
        for keyword, value in keys.items():
            setattr(identifier, keyword, value)
        began = time.monotonic()
        try:
            for number, (status, match) in enumerate(self._assoc.send_c_find(identifier, _MODEL)):
                self._check(status, began, number)
                if status.Status == _SUCCESS:
                    return
                if match is None:
                    raise errors.QueryError(f"{self._name}: its answer cannot be read")
                # A peer that ignores the key answers with everything it has.
                if _text(match, "StudyInstanceUID") in ("", self._study):
                    yield match
        except RuntimeError as error:  # pynetdicom: the association ended since the last answer
            raise errors.QueryError(f"{self._name}: ended the association instead of answering") from error

    def _check(self, status: Dataset, began: float, number: int) -> None:
        """Raise where a response is neither a match nor the end."""
        if "Status" not in status:
            if time.monotonic() - began >= 0.95 * self._timeout:
                raise errors.QueryError(f"{self._name}: no answer within {self._timeout:.0f} s")
            raise errors.QueryError(f"{self._name}: ended the association instead of answering")
        if status.Status not in (_SUCCESS, *_PENDING):
            raise _Refused(f"{self._name}: answered the query with 0x{status.Status:04X}")
        if number >= _MOST_MATCHES:
            raise errors.QueryError(f"{self._name}: more than {_MOST_MATCHES} matches for one study")
        if time.monotonic() > self._ends:
            seconds = _TIMEOUTS * self._timeout
            raise errors.QueryError(f"{self._name}: not done with answering after {seconds:.0f} s")

    def _uid(self, match: Dataset, keyword: str) -> str:
        uid = _text(match, keyword)
        if not _UID.fullmatch(uid):
            raise errors.QueryError(f"{self._name}: its answer lacks a usable {keyword}")
        return uid


def _number(match: Dataset, keyword: str) -> int | None:
    """A count as the peer wrote it; None where it is missing or no number."""
    text = _text(match, keyword)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


def _text(match: Dataset, keyword: str) -> str:
    """A value as the peer wrote it, never interpreted: it may be neither a number nor a UID."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag not in match:
        return ""
    value = match.get_item(tag).value
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else str(value or "")
    return text.strip("\0 ")
