"""Whose jobs go first: as the route says, or where it says nothing, as the images' own header does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from db.priorities import Priority

#: As the configuration has them.
Word = Literal["stat", "routine", "background"]

#: Requested Procedure Priority (0040,1003) is one of STAT, HIGH, ROUTINE, MEDIUM, LOW (PS3.3 C.4.11).
_REQUESTED = {"STAT": Priority.STAT, "HIGH": Priority.STAT, "LOW": Priority.BACKGROUND}


def of(wanted: Word | None, attributes: Mapping[str, Any]) -> Priority:
    """The priority of a job by a route that has `wanted` it, about a series with these attributes."""
    if wanted is not None:
        return Priority[wanted.upper()]
    said = str(attributes.get("RequestedProcedurePriority") or "").strip().upper()
    return _REQUESTED.get(said, Priority.ROUTINE)
