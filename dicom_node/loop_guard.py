"""The loop guard: an object that came out of secondread, or went round too often, is not analysed again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from dicom_node import own_uids
from dicom_node.equipment import Equipment


class Identified(Protocol):
    """What is known of an object from its header."""

    @property
    def sop_instance_uid(self) -> str:
        """SOP Instance UID."""

    @property
    def series_instance_uid(self) -> str:
        """Series Instance UID."""

    @property
    def equipment(self) -> Equipment:
        """Who contributed to it."""


@dataclass(frozen=True, kw_only=True)
class LoopGuard:
    """Judges objects by what their own header says."""

    #: Processing devices that an image may have passed.
    max_hops: int

    def reason(self, found: Identified) -> str:
        """Why it must not be analysed, in words; "" where nothing speaks against it."""
        if own_uids.is_ours(found.sop_instance_uid) or own_uids.is_ours(found.series_instance_uid):
            return "it is a result of secondread, by its UID"
        if found.equipment.ours:
            return "it is a result of secondread, by its equipment"
        if found.equipment.processing > self.max_hops:
            return f"it passed {found.equipment.processing} processing devices, {self.max_hops} may be"
        return ""
