"""The loop guard as configured: which received objects are results, ours or another AI's, and not images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from dicom_node import file_meta, header
from dicom_node.errors import DataSetError
from dicom_node.loop_guard import Identified, LoopGuard
from worker import criteria
from worker.sections import Guard


@dataclass(frozen=True, kw_only=True)
class ConfiguredGuard:
    """Judges what was received by its header, and by the criteria in `guard.also`."""

    #: None where the guard is switched off.
    header: LoopGuard | None
    #: Other AIs' results, on the attributes that routes see.
    also: tuple[criteria.Group, ...]

    @classmethod
    def of(cls, settings: Guard) -> Self:
        """The guard that the configuration describes."""
        also = enumerate(settings.also, start=1)
        return cls(
            header=LoopGuard(max_hops=settings.max_hops) if settings.enabled else None,
            also=tuple(criteria.parse(each, f"guard.also {number}") for number, each in also),
        )

    def reason(self, found: Identified, attributes: Mapping[str, Any] | None) -> str:
        """Why an object's series must not be analysed, in words without patient data; "" where it may.

        `attributes` is None where they were read of another object of its series already.
        """
        if self.header is None:
            return ""
        reason = self.header.reason(found)
        if reason or not attributes:
            return reason
        for number, group in enumerate(self.also, start=1):
            trace = group.evaluate(attributes)
            if trace.verdict:
                # The tests as configured, not the values that were found: they may name the patient.
                tests = ", ".join(f"{leaf.subject} {leaf.test}" for leaf in trace.decisive())
                return f"it is another AI's result, by guard.also {number}: {tests}"
        return ""

    def reason_of_file(self, path: Path, attributes: Mapping[str, Any]) -> str:
        """The same of a file that was not received."""
        try:
            whole = path.read_bytes()
            meta = file_meta.decode(whole)
            return self.reason(header.peek(whole[meta.data_offset :], meta.transfer_syntax_uid), attributes)
        except DataSetError:
            return ""


def at_the_door(settings: Guard) -> LoopGuard | None:
    """What the listener refuses; None where what is guarded against is stored."""
    return LoopGuard(max_hops=settings.max_hops) if settings.enabled and not settings.store else None
