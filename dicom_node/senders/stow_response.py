"""What a Store Instances response (PS3.18 10.5.3, Table 10.5.3-2) says of each instance."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

REFERENCED_SOP_SEQUENCE = "00081199"
FAILED_SOP_SEQUENCE = "00081198"
REFERENCED_SOP_INSTANCE_UID = "00081155"
WARNING_REASON = "00081196"
FAILURE_REASON = "00081197"

#: A failed instance without a reason: PS3.7 C.4.2, processing failure.
_NO_REASON = 0x0110


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """A response that could be read."""

    #: SOP Instance UID -> status code: 0x0000, a warning reason or a failure reason.
    reasons: Mapping[str, int]


def parse(body: bytes) -> Answer | None:
    """Read a DICOM JSON response (PS3.18 Annex F); None where the body is something else."""
    try:
        content = json.loads(body)
    except ValueError:
        return None
    # The standard returns one object; several servers return it in a list.
    found = [item for item in (content if isinstance(content, list) else [content]) if isinstance(item, dict)]
    if not any(key in item for item in found for key in (REFERENCED_SOP_SEQUENCE, FAILED_SOP_SEQUENCE)):
        return None
    reasons: dict[str, int] = {}
    for item in found:
        reasons |= dict(_entries(item, REFERENCED_SOP_SEQUENCE, WARNING_REASON, 0x0000))
        # Named in both, it failed.
        reasons |= dict(_entries(item, FAILED_SOP_SEQUENCE, FAILURE_REASON, _NO_REASON))
    return Answer(reasons=reasons)


def _entries(ds: dict[str, Any], sequence: str, reason: str, default: int) -> Iterator[tuple[str, int]]:
    """(SOP Instance UID, status) for each item of a sequence that names one."""
    for item in _values(ds, sequence):
        if isinstance(item, dict) and (uids := _values(item, REFERENCED_SOP_INSTANCE_UID)):
            codes = [code for code in _values(item, reason) if isinstance(code, int)]
            yield str(uids[0]), codes[0] if codes else default


def _values(ds: dict[str, Any], tag: str) -> list[Any]:
    """The attribute's Value, [] where it is absent or malformed."""
    attribute = ds.get(tag)
    values = attribute.get("Value") if isinstance(attribute, dict) else None
    return values if isinstance(values, list) else []
