"""A peer's count by QIDO-RS (PS3.18 10.6)."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import httpx

from dicom_node import errors
from dicom_node.query import Counted, combined
from dicom_node.senders import Destination, stow

_STUDY_UID, _SERIES_UID = "0020000D", "0020000E"
_STUDY_IMAGES, _SERIES_IMAGES = "00201208", "00201209"

#: Larger is no list of one study's series.
_MOST_BYTES = 16 * 1024 * 1024
#: All questions together may take this many time-outs: each answer alone may take one.
_TIMEOUTS = 2

_UID = re.compile(r"[0-9.]{1,64}")
#: PS3.18 Table 10.6.3-1, and what servers say of a study that they do not have.
_OK, _NOTHING, _UNKNOWN = 200, 204, 404


def count(destination: Destination, study_instance_uid: str) -> Counted | None:
    """See `query.count`; one connection, asked for the study and then for its series.

    Images are not counted one by one where series have no number: servers cut long lists short.
    """
    ends = time.monotonic() + _TIMEOUTS * destination.timeout_seconds
    root = destination.url.rstrip("/")
    wanted = {"StudyInstanceUID": study_instance_uid, "includefield": _STUDY_IMAGES}
    with stow.StowSender(destination).client() as client:
        ask = _Asking(destination, client, ends)
        found = ask.get(f"{root}/studies", wanted)
        # A server that ignores the key answers with everything it has.
        studies = [entry for entry in found if _value(entry, _STUDY_UID) in ("", study_instance_uid)]
        if not studies:
            return None
        total = _number(studies[0], _STUDY_IMAGES)
        url = f"{root}/studies/{study_instance_uid}/series"
        series = ask.series(url)
    if not series and total is None:
        raise errors.QueryError(f"{destination.name}: knows the study and tells no number of images")
    return combined(series, total)


class _Asking:
    """Questions on one connection."""

    def __init__(self, destination: Destination, client: httpx.Client, ends: float) -> None:
        self._destination = destination
        self._client = client
        self._ends = ends

    def series(self, url: str) -> dict[str, int]:
        """Images per series; empty where the server does not tell them of every series."""
        counts: dict[str, int] = {}
        for entry in self.get(url, {"includefield": _SERIES_IMAGES}):
            uid, number = _value(entry, _SERIES_UID), _number(entry, _SERIES_IMAGES)
            if not _UID.fullmatch(uid):
                raise errors.QueryError(f"{self._destination.name}: its answer lacks a Series Instance UID")
            if number is None:
                return {}
            counts[uid] = number
        return counts

    def get(self, url: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
        """The matches. Raises SendError and QueryError."""
        name = self._destination.name
        try:
            with self._client.stream("GET", url, params=parameters) as response:
                if response.status_code == _NOTHING:
                    return []
                if response.status_code != _OK:
                    raise errors.QueryError(f"{name}: {_said(response.status_code)}")
                content = self._read(response)
        except stow.UNREACHED as error:
            raise stow.unreachable(self._destination, error) from error
        except httpx.HTTPError as error:
            raise errors.QueryError(f"{name}: no answer: {type(error).__name__}") from error
        try:
            matches = json.loads(content)
        except (ValueError, RecursionError) as error:
            raise errors.QueryError(f"{name}: its answer is not JSON") from error
        if not isinstance(matches, list) or not all(isinstance(match, dict) for match in matches):
            raise errors.QueryError(f"{name}: its answer is not DICOM JSON")
        return matches

    def _read(self, response: httpx.Response) -> bytes:
        """The body, no longer and for no longer than is sensible."""
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if len(content) > _MOST_BYTES:
                raise errors.QueryError(f"{self._destination.name}: its answer is too long for one study")
            if time.monotonic() > self._ends:
                raise errors.QueryError(f"{self._destination.name}: not done with answering in time")
        return bytes(content)


def _said(http_status: int) -> str:
    """A failure in words that say what to change."""
    if http_status == _UNKNOWN:
        return f"HTTP {http_status}: no QIDO-RS service there: correct `qido_url` of this peer"
    return stow.by_http_status(http_status, answered=False)[1]


def _number(entry: dict[str, Any], tag: str) -> int | None:
    """A count; None where it is missing or no number. IS is a number in JSON, and text with some servers."""
    text = _value(entry, tag)
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 12 else None


def _value(entry: dict[str, Any], tag: str) -> str:
    """An attribute's first value as text (PS3.18 F.2.2); "" where there is none."""
    attribute = entry.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    first = values[0] if isinstance(values, list) and values else None
    return str(first) if isinstance(first, str | int) else ""
