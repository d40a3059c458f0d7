"""The keys of `model.yaml`, validated by pydantic one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field

from engines.manifest_entries import LongText, ResultKind, Strict, WordsEntry
from engines.manifest_findings import FindingRule, MeasurementEntry
from engines.manifest_gpu import Gpu
from engines.manifest_inputs import Input
from engines.manifest_outputs import (
    Class,
    ClassificationOutput,
    DetectionOutput,
    ImageOutput,
    Label,
    Output,
    RegressionOutput,
    SegmentationOutput,
    Task,
)
from engines.manifest_prompts import Prompt
from engines.manifest_stages import After, LabelChannels, Member, Other
from engines.manifest_tiling import Tiling


class Weights(Strict):
    """The network's file and its SHA-256."""

    file: str = "model.onnx"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Fields(Strict):
    """The keys of `model.yaml`, and what they say together."""

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    version: Annotated[str, Field(pattern=r"^\d+\.\d+\.\d+$")]
    licence: str
    manufacturer: LongText
    intended_use: str
    research_only: bool = True
    weights: Weights
    task: Task
    #: The first is the one whose grid everything is answered on; the others are brought to it.
    inputs: Annotated[tuple[Input, ...], Field(min_length=1, max_length=16)]
    #: Further inputs of the graph, that are no image.
    prompts: Annotated[tuple[Prompt, ...], Field(max_length=16)] = ()
    #: Null: the network sees the whole image at once, at the first input's `size`.
    tiling: Tiling | None = None
    #: How it runs on a GPU, where there is one.
    gpu: Gpu = Gpu()
    outputs: Annotated[tuple[Output, ...], Field(min_length=1, max_length=1)]
    measurements: tuple[MeasurementEntry, ...] = ()
    findings: tuple[FindingRule, ...] = ()
    #: Where it says nothing, what its task usually makes (`manifest_results.USUAL`).
    results: tuple[ResultKind, ...] = ("seg", "sr")
    #: Models that answer first, whose answers this one is given.
    after: Annotated[tuple[After, ...], Field(max_length=8)] = ()
    #: Models that answer too; what is said is the average of all, this one's network included.
    ensemble: Annotated[tuple[Member, ...], Field(max_length=16)] = ()
    #: For reports in words in these languages; without them they say it as the entries above do.
    words: dict[Literal["zh"], WordsEntry] = Field(default_factory=dict)

    @property
    def reference(self) -> Input:
        """The input whose grid everything is answered on."""
        return self.inputs[0]

    def on_the_first(self, entry: Input) -> Input:
        """A further input with the grid of the first, of which it may leave all out."""
        if entry.planar:
            return entry
        keys = ("spacing_mm", "size", "orientation")
        return entry.model_copy(update={key: getattr(self.reference, key) for key in keys})

    @property
    def labels(self) -> tuple[Label, ...]:
        """What a mask can hold; none where the task makes no mask."""
        output = self.outputs[0]
        return output.labels if isinstance(output, SegmentationOutput) else ()

    @property
    def image_label(self) -> str:
        """What the image that is made is called; "" where the task makes none."""
        output = self.outputs[0]
        return output.image.label if isinstance(output, ImageOutput) else ""

    @property
    def windows(self) -> Tiling:
        """The sliding window; one as large as the image where the manifest has none."""
        if self.tiling is not None:
            return self.tiling
        size = self.reference.size or (1, 1, 1)
        deep = self.reference.frames.length if self.reference.frames is not None else 1
        return Tiling(patch=size if len(size) == 3 else (deep, *size), overlap=0, weighting="uniform")

    @property
    def channels(self) -> Mapping[str, int]:
        """How many channels each of the graph's inputs has: those of images, then those of earlier answers."""
        count: Counter[str] = Counter()
        for image in self.inputs:
            count[image.name] += image.channels
        for entry in self.after:
            if isinstance(entry.use, LabelChannels):
                count[entry.use.name] += entry.use.count
        return count

    @property
    def others(self) -> tuple[Other, ...]:
        """The models that its answers are made with."""
        return (*self.after, *self.ensemble)

    @property
    def valued(self) -> frozenset[str]:
        """The keys of what the network itself estimates, as measurements are known by."""
        output = self.outputs[0]
        if isinstance(output, ClassificationOutput | DetectionOutput):
            return frozenset(entry.key for entry in output.classes)
        return (
            frozenset(entry.key for entry in output.values)
            if isinstance(output, RegressionOutput)
            else frozenset()
        )

    @property
    def classes(self) -> tuple[Class, ...]:
        """What an image, or a box, may be of; none where the task knows none."""
        output = self.outputs[0]
        return output.classes if isinstance(output, ClassificationOutput | DetectionOutput) else ()
