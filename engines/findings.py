"""What a model found, in terms that every result object and every table can be made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import OutputError
from engines.volume import Geometry, Point, Volume


@dataclass(frozen=True, kw_only=True, slots=True)
class Code:
    """A coded concept: value, coding scheme designator and meaning (PS3.3 section 8)."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """A model's words in another language; what is missing stays as the model says it."""

    intended_use: str = ""
    #: By segment number.
    segments: Mapping[int, str] = field(default_factory=dict)
    #: By the measurement's key; a derivation ("Mean") is part of it.
    measurements: Mapping[str, str] = field(default_factory=dict)
    #: By the finding's key.
    findings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelIdentity:
    """Which model, exactly."""

    name: str
    version: str
    manufacturer: str
    #: SHA-256 over manifest and weights, lower-case hex; the manifest names the digests of `parts`.
    digest: str
    #: Whether the model is for research only (not a medical device).
    research_only: bool = True
    #: What it is made for, in its maker's words.
    intended_use: str = ""
    #: The other models that its answers are made with, in words with their digests.
    parts: tuple[str, ...] = ()
    #: Its words in other languages, by language ("zh").
    words: Mapping[str, Translation] = field(default_factory=dict, hash=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Segment:
    """One label of the mask."""

    #: Segment Number: the mask's value, 1..N without gaps (PS3.3 C.8.20.2).
    number: int
    label: str
    category: Code
    type: Code
    #: Anatomic Region, where it adds to `type`.
    anatomic_region: Code | None = None
    #: Display colour, sRGB 0..255.
    colour: tuple[int, int, int] = (255, 0, 0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Measurement:
    """One number with what it measures, in which unit, of which segment."""

    #: The manifest's short name of it, e.g. "laa950": what rules and queries refer to.
    key: str
    name: Code
    value: float
    unit: Code
    #: How it was derived, e.g. (373098007, SCT, "Mean").
    derivation: Code | None = None
    #: The segment it was measured in; None for the whole image.
    segment_number: int | None = None
    #: Of what it is the probability, where it is one.
    about: Code | None = None
    #: The ends of the line that was measured, where it is one's length: on one slice of the mask.
    ends: tuple[Point, Point] | None = None


class Urgency(StrEnum):
    """How soon somebody must look."""

    ROUTINE = "routine"
    URGENT = "urgent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """A statement about the patient that the manifest's rules made of the measurements."""

    key: str
    code: Code
    #: Whether the rule's threshold was met; a negative finding is a finding too.
    present: bool
    urgency: Urgency = Urgency.ROUTINE
    segment_numbers: tuple[int, ...] = ()
    #: Keys of the measurements that decided.
    evidence: tuple[str, ...] = ()
    #: In words, e.g. "LAA-950 12.3 % (threshold 10 %)".
    explanation: str = ""
    #: The measurements that decided, and the bounds that a rule has for them: beyond these it is met.
    deciding: tuple[Measurement, ...] = ()
    above: float | None = None
    below: float | None = None
    #: A class's threshold: from this on it is present.
    at_least: float | None = None

    @property
    def bounds(self) -> tuple[float | None, float | None, float | None]:
        """The numbers that it holds others against."""
        return (self.above, self.below, self.at_least)


#: UCUM's unity (PS3.16 CID 7181).
NO_UNIT = Code(value="1", scheme="UCUM", meaning="no units")

#: What a probability is called (PS3.16 Annex D).
PROBABILITY = Code(value="122157", scheme="DCM", meaning="Probability")


@dataclass(frozen=True, kw_only=True, eq=False)
class Map:
    """A number for each voxel, e.g. how probable it is that it belongs to a segment."""

    #: The manifest's short name of it: a label's key for its probability.
    key: str
    name: Code
    unit: Code
    #: The segment that it is about; None for the whole image.
    segment_number: int | None
    #: float32, finite, on the grid of the findings.
    array: NDArray[np.float32]

    def __post_init__(self) -> None:
        if self.array.dtype != np.float32:
            raise OutputError(f'map "{self.key}" is of {self.array.dtype}, not float32')
        if not all(np.isfinite(plane).all() for plane in self.array):
            raise OutputError(f'map "{self.key}" has values that are not finite')
        if self.name == PROBABILITY and not (self.array.min() >= 0 and self.array.max() <= 1):
            raise OutputError(f'map "{self.key}" has probabilities that are not between 0 and 1')


@dataclass(frozen=True, kw_only=True, slots=True)
class Box:
    """One thing that a detector found, on the grid of the findings."""

    #: Of its class.
    key: str
    label: str
    code: Code
    #: 0 to 1.
    score: float
    #: Its outer faces, as continuous (slice, row, column) indices: voxel i reaches from i - 1/2 to i + 1/2.
    low: Point
    high: Point
    colour: tuple[int, int, int] = (230, 159, 0)

    def __post_init__(self) -> None:
        if not 0 <= self.score <= 1:
            raise OutputError(f'box "{self.key}" has the score {self.score:g}, which is not between 0 and 1')
        if not all(low < high for low, high in zip(self.low, self.high, strict=True)):
            raise OutputError(f'box "{self.key}" from {self.low} to {self.high} holds nothing')

    def touches(self, shape: tuple[int, int, int]) -> bool:
        """Whether some of it lies on a grid of this shape."""
        return all(
            low < length - 0.5 and high > -0.5
            for low, high, length in zip(self.low, self.high, shape, strict=True)
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """One model's whole answer about one series, on that series' own voxel grid."""

    model: ModelIdentity
    #: The grid of `mask`: exactly the source volume's.
    geometry: Geometry
    #: uint8 or uint16 label map; 0 is background, n is the segment with number n.
    mask: NDArray[Any]
    segments: tuple[Segment, ...]
    measurements: tuple[Measurement, ...] = ()
    findings: tuple[Finding, ...] = ()
    #: Measurements that the source cannot give, each with the reason, for people.
    impossible: tuple[str, ...] = ()
    #: As the network gave them: what was cleared from the mask afterwards is still in them.
    maps: tuple[Map, ...] = ()
    #: Those that a detector found, the highest score first.
    boxes: tuple[Box, ...] = ()
    #: What an image-to-image model made, on the grid of the findings, and what its manifest calls it.
    image: Volume | None = None
    image_label: str = ""
    #: The backend that answered, e.g. "openvino 2026.4 CPU float32".
    engine: str = ""
    #: Seconds per stage: preprocess, infer, postprocess, measure.
    seconds: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.mask.shape != self.geometry.shape:
            raise OutputError(f"mask {self.mask.shape} and geometry {self.geometry.shape} differ in shape")
        if not np.issubdtype(self.mask.dtype, np.unsignedinteger):
            raise OutputError(f"a mask is an unsigned label map, not {self.mask.dtype}")
        numbers = [segment.number for segment in self.segments]
        if numbers != list(range(1, len(numbers) + 1)):
            raise OutputError(f"segment numbers must run 1..N without gaps, not {numbers}")
        for box in self.boxes:
            if not box.touches(self.geometry.shape):
                raise OutputError(f'box "{box.key}" from {box.low} to {box.high} lies outside the image')
        if self.image is not None and not self.image.geometry.agrees_with(self.geometry):
            raise OutputError("the image that was made does not lie on the grid of the findings")
        for item in self.maps:
            if item.array.shape != self.geometry.shape:
                raise OutputError(
                    f'map "{item.key}" {item.array.shape} and geometry {self.geometry.shape} differ in shape'
                )
            if item.segment_number is not None and item.segment_number not in numbers:
                raise OutputError(f'map "{item.key}" is of segment {item.segment_number}, which is not there')
