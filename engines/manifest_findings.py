"""What `model.yaml` may want measured, and what it concludes from it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engines.findings import Urgency
from engines.manifest_entries import CodeEntry, Strict


class MeasurementEntry(Strict):
    """One measurement to make of labels."""

    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    kind: Literal[
        "volume", "area", "longest_diameter",
        "mean", "std", "minimum", "maximum", "percent_below", "percent_above",
    ]  # fmt: skip
    #: Label keys: one measurement for each.
    of: Annotated[tuple[str, ...], Field(min_length=1)]
    #: Also measure the union of `of`, reported without a segment.
    combined: bool = False
    #: For percent_below and percent_above, in the source volume's unit.
    threshold: float | None = None
    name: CodeEntry
    unit: CodeEntry
    derivation: CodeEntry | None = None

    @model_validator(mode="after")
    def _threshold_goes_with_percent(self) -> MeasurementEntry:
        if (self.threshold is not None) != self.kind.startswith("percent"):
            raise ValueError("threshold is needed by percent_below and percent_above, and only there")
        return self


class FindingRule(Strict):
    """When a measurement makes a finding."""

    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    code: CodeEntry
    #: Key of the measurement; the combined value where there is one, else any segment's.
    measurement: str
    above: float | None = None
    below: float | None = None
    urgency: Urgency = Urgency.ROUTINE

    @model_validator(mode="after")
    def _one_bound(self) -> FindingRule:
        if self.above is None and self.below is None:
            raise ValueError("a finding needs above, below or both")
        return self
