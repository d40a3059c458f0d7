"""What `model.yaml` may say: the model package's manifest, validated by pydantic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field, model_validator

from engines.manifest_entries import LongText, ResultKind, Strict, WordsEntry
from engines.manifest_findings import FindingRule, MeasurementEntry
from engines.manifest_inputs import ROLE_LENGTH, Input, check_clips
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
    Value,
    task_of,
)
from engines.manifest_prompts import Prompt
from engines.manifest_stages import After, LabelChannels, Member, Other, check_others
from engines.manifest_tiling import Tiling


class Weights(Strict):
    """The network's file and its SHA-256."""

    file: str = "model.onnx"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Manifest(Strict):
    """The whole of `model.yaml`."""

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
    outputs: Annotated[tuple[Output, ...], Field(min_length=1, max_length=1)]
    measurements: tuple[MeasurementEntry, ...] = ()
    findings: tuple[FindingRule, ...] = ()
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
        count = Counter(entry.name for entry in self.inputs)
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
    def stated(self) -> frozenset[str]:
        """The keys of the findings that are made of the network's own classes."""
        output = self.outputs[0]
        if not isinstance(output, ClassificationOutput | DetectionOutput):
            return frozenset()
        return frozenset(entry.key for entry in output.classes if entry.threshold is not None)

    @model_validator(mode="after")
    def _task_and_output_agree(self) -> Manifest:
        if task_of(self.outputs[0]) != self.task:
            raise ValueError(
                f"outputs[0]: it is one of {task_of(self.outputs[0])}, and the task is {self.task}"
            )
        if self.tiling is None and (self.task in ("segmentation", "image") or self.reference.size is None):
            raise ValueError("tiling: add it; only what sees whole images of one size goes without")
        roles = [entry.called for entry in self.inputs]
        if len(set(roles)) != len(roles):
            raise ValueError("inputs: two have the same role; give each a role of its own")
        given = [*{entry.name for entry in self.inputs}, *(prompt.name for prompt in self.prompts)]
        if len(set(given)) != len(given):
            raise ValueError("prompts: two inputs of the graph have the same name")
        if any(step.kind in ("crop", "pad") for entry in self.inputs[1:] for step in entry.steps):
            raise ValueError(
                "inputs: crop and pad of the first are those of all; remove them from the others"
            )
        return self

    @model_validator(mode="after")
    def _further_inputs_follow_the_first(self) -> Manifest:
        first, *others = self.inputs
        if not others and first.prefer:
            raise ValueError("inputs[0].prefer: a model of one series takes each that fits; remove it")
        for entry in self.inputs if others else ():
            if len(entry.called) > ROLE_LENGTH:
                raise ValueError(f"inputs: give {entry.name} a `role` of at most {ROLE_LENGTH} characters")
        for position, entry in enumerate(others, start=1):
            for key in () if entry.planar else ("spacing_mm", "size", "orientation"):
                if key in entry.model_fields_set and getattr(entry, key) != getattr(first, key):
                    raise ValueError(
                        f"inputs[{position}].{key}: every input is brought to the grid of the first; remove it"
                    )
        return self

    @model_validator(mode="after")
    def _clips_and_other_models_fit(self) -> Manifest:
        check_clips(self.inputs, task=self.task, tiled=self.tiling is not None, alone=not self.after)
        check_others(self.name, self.after, self.ensemble, task=self.task, sampling=self.reference.sampling)
        return self

    @model_validator(mode="after")
    def _skipping_means_something(self) -> Manifest:
        output = self.outputs[0]
        if self.windows.skip_at_most is None:
            return self
        if isinstance(output, ClassificationOutput | RegressionOutput):
            raise ValueError(
                f"tiling.skip_at_most: nobody knows what a {self.task} would be of what it did not see: remove it"
            )
        if isinstance(output, ImageOutput) and output.image.scale is not None:
            raise ValueError(
                "tiling.skip_at_most: what is not seen keeps the source's values, which an image with a scale of "
                "its own cannot: remove it"
            )
        return self

    @model_validator(mode="after")
    def _intensities_can_be_undone(self) -> Manifest:
        output = self.outputs[0]
        filled = getattr(self.reference.intensity, "nonzero", False) == "filled"
        if filled and isinstance(output, ImageOutput) and output.image.scale is None:
            raise ValueError("outputs[0].image.scale: give one; a z-score of the filled body is not undone")
        return self

    @model_validator(mode="after")
    def _numbers_are_used_once(self) -> Manifest:
        output = self.outputs[0]
        listed: tuple[Class | Value, ...] = ()
        if isinstance(output, ClassificationOutput | DetectionOutput):
            listed = output.classes
        elif isinstance(output, RegressionOutput):
            listed = output.values
        for name, given in (
            ("key", [item.key for item in listed]),
            ("index", [item.index for item in listed]),
        ):
            if len(set(given)) != len(given):
                raise ValueError(f"outputs[0]: two entries have the same {name}")
        return self

    @model_validator(mode="after")
    def _planar_models_say_so(self) -> Manifest:
        planar = self.reference.planar
        if len({entry.planar for entry in self.inputs}) > 1:
            raise ValueError("inputs: all are planar, or none is")
        flat = self.reference.frames is not None or self.windows.patch[0] == 1
        if planar and (not flat or 0 in self.windows.mirror_axes):
            raise ValueError(
                "tiling: a planar model has a patch of one slice, mirrored along axes 1 and 2 only"
            )
        for label in self.labels:
            if planar and (label.min_component_ml or label.min_volume_ml):
                raise ValueError(
                    f"outputs[0].labels.{label.key}: a planar image has no volume to be too small"
                )
        for entry in self.measurements:
            if not planar and entry.kind == "area":
                raise ValueError(f"measurements.{entry.key}: an area is of one slice; volumes have many")
        return self

    @model_validator(mode="after")
    def _maps_are_there(self) -> Manifest:
        marked = sum(label.probability for label in self.labels)
        for kind in {"parametric-map", "fractional"} & set(self.results):
            if not marked:
                raise ValueError(f"results: {kind} needs a label with probability: true")
        if "parametric-map" in self.results and marked > 1:
            raise ValueError(
                "results: a parametric-map holds one map, which readers expect; "
                f"mark one label with probability: true, not {marked}, or ask for fractional"
            )
        return self

    @model_validator(mode="after")
    def _references_resolve(self) -> Manifest:
        labels = [label.key for label in self.labels]
        if len(set(labels)) != len(labels):
            raise ValueError("outputs[0].labels: two labels have the same key")
        if sorted(label.index for label in self.labels) != list(range(1, len(labels) + 1)):
            raise ValueError("outputs[0].labels: the indices must run 1..N without gaps")
        for entry in self.measurements:
            unknown = set(entry.of) - set(labels)
            if unknown:
                raise ValueError(f"measurements.{entry.key}.of: no label is called {sorted(unknown)}")
        keys = [entry.key for entry in self.measurements]
        if len({*keys, *self.valued}) != len(keys) + len(self.valued):
            raise ValueError("measurements: two measurements have the same key")
        for rule in self.findings:
            if rule.key in self.stated:
                raise ValueError(f"findings.{rule.key}: a class has this key, and makes a finding of its own")
            if rule.measurement not in {*keys, *self.valued}:
                raise ValueError(f'findings.{rule.key}.measurement: no measurement "{rule.measurement}"')
        return self

    @model_validator(mode="after")
    def _words_name_what_is_there(self) -> Manifest:
        there = {
            "labels": {label.key for label in self.labels},
            "measurements": {entry.key for entry in self.measurements} | self.valued,
            "findings": {rule.key for rule in self.findings} | self.stated,
        }
        for language, entry in self.words.items():
            for part, keys in there.items():
                unknown = set(getattr(entry, part)) - keys
                if unknown:
                    raise ValueError(f"words.{language}.{part}: there is no {sorted(unknown)}")
        return self
