"""What `model.yaml` may say: the model package's manifest, validated by pydantic."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from engines.findings import Urgency
from engines.manifest_entries import CodeEntry, LongText, ResultKind, Strict, WordsEntry


class Weights(Strict):
    """The network's file and its SHA-256."""

    file: str = "model.onnx"
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Window(Strict):
    """Clip to [low, high] and scale linearly to [0, 1]."""

    kind: Literal["window"]
    low: float
    high: float


class CTNormalisation(Strict):
    """nnU-Net's CT scheme: clip to the training set's percentiles, then (x - mean) / std."""

    kind: Literal["ct"]
    low: float
    high: float
    mean: float
    std: Annotated[float, Field(gt=0)]


class ZScore(Strict):
    """(x - mean) / std of the image itself."""

    kind: Literal["z-score"]
    #: Statistics over non-zero voxels only.
    nonzero: bool = False


class Percentile(Strict):
    """Clip to two percentiles of the image and scale linearly to [0, 1]."""

    kind: Literal["percentile"]
    low: Annotated[float, Field(ge=0, lt=100)] = 0.5
    high: Annotated[float, Field(gt=0, le=100)] = 99.5


class MinMax(Strict):
    """Scale the image's own range linearly to [0, 1]."""

    kind: Literal["min-max"]


Intensity = Annotated[Window | CTNormalisation | ZScore | Percentile | MinMax, Field(discriminator="kind")]
_Length = Annotated[float, Field(gt=0)]
Spacing = tuple[_Length, _Length, _Length]
Shape = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]


class Input(Strict):
    """One named input of the network and how a series becomes it."""

    #: The ONNX graph's input name; its shape is (1, 1, slices, rows, columns).
    name: str
    #: Which series fits, in the same language as a route's `when`.
    series: dict[str, Any]
    #: Whether the model looks at single images (X-rays, ultrasound, photographs, one slice) as they were
    #: acquired: volumes of one slice, with or without a place in the patient, instead of stacks.
    planar: bool = False
    #: Patient directions of the (slice, row, column) axes that the network was trained on.
    orientation: Annotated[str, Field(pattern=r"^[LRAPHF]{3}$")] = "HPL"
    #: Voxel spacing the network was trained on, mm along (slice, row, column), or (row, column) where
    #: `planar`; null: as acquired.
    spacing_mm: Spacing | tuple[_Length, _Length] | None = None
    #: Where `planar`, instead of a spacing: (rows, columns) that every image is brought to, whatever its shape.
    size: tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]] | None = None
    intensity: Intensity
    #: Fewest slices along the scan that the model accepts.
    min_slices: Annotated[int, Field(ge=1)] = 2

    @model_validator(mode="after")
    def _fits_its_dimensions(self) -> Input:
        length = 2 if self.planar else 3
        if self.spacing_mm is not None and len(self.spacing_mm) != length:
            raise ValueError(f"spacing_mm has {length} numbers where planar is {str(self.planar).lower()}")
        unfit = {"orientation", "min_slices"} if self.planar else {"size"}
        for key in sorted(unfit & self.model_fields_set):
            raise ValueError(f"{key} says nothing where planar is {str(self.planar).lower()}: remove it")
        if self.size is not None and self.spacing_mm is not None:
            raise ValueError("give spacing_mm or size, not both")
        return self


class Tiling(Strict):
    """The sliding window."""

    #: Patch shape in voxels along (slice, row, column).
    patch: Shape
    #: Fraction of a patch shared with its neighbour.
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    weighting: Literal["gaussian", "uniform"] = "gaussian"
    #: Axes (0 slice, 1 row, 2 column) that are also inferred mirrored, and averaged.
    mirror_axes: tuple[Literal[0, 1, 2], ...] = ()


class Label(Strict):
    """One class of a segmentation output."""

    #: Channel of the output that stands for it; 0 is background.
    index: Annotated[int, Field(ge=1)]
    #: Short name that measurements refer to.
    key: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
    label: LongText
    category: CodeEntry
    type: CodeEntry
    anatomic_region: CodeEntry | None = None
    colour: tuple[
        Annotated[int, Field(ge=0, le=255)],
        Annotated[int, Field(ge=0, le=255)],
        Annotated[int, Field(ge=0, le=255)],
    ]
    #: Keep only the largest connected component.
    keep_largest: bool = False
    #: Connected components of less than this are dropped: specks, and what only looks alike.
    min_component_ml: Annotated[float, Field(ge=0)] = 0.0
    #: A label of less than this in the whole image is dropped: it is not what the model is about.
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    #: Also give its probability at each voxel, as the network has it: 4 bytes for each voxel of the image.
    probability: bool = False


class Output(Strict):
    """The network's output and its labels."""

    #: The ONNX graph's output name; its shape is (1, classes, slices, rows, columns).
    name: str
    activation: Literal["softmax", "none"] = "softmax"
    labels: Annotated[tuple[Label, ...], Field(min_length=1)]


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
    task: Literal["segmentation"]
    inputs: Annotated[tuple[Input, ...], Field(min_length=1, max_length=1)]
    tiling: Tiling
    outputs: Annotated[tuple[Output, ...], Field(min_length=1, max_length=1)]
    measurements: tuple[MeasurementEntry, ...] = ()
    findings: tuple[FindingRule, ...] = ()
    results: tuple[ResultKind, ...] = ("seg", "sr")
    #: For reports in words in these languages; without them they say it as the entries above do.
    words: dict[Literal["zh"], WordsEntry] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _planar_models_say_so(self) -> Manifest:
        planar = self.inputs[0].planar
        if planar and (self.tiling.patch[0] != 1 or 0 in self.tiling.mirror_axes):
            raise ValueError(
                "tiling: a planar model has a patch of one slice, mirrored along axes 1 and 2 only"
            )
        for label in self.outputs[0].labels:
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
        marked = sum(label.probability for label in self.outputs[0].labels)
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
        labels = [label.key for label in self.outputs[0].labels]
        if len(set(labels)) != len(labels):
            raise ValueError("outputs[0].labels: two labels have the same key")
        if sorted(label.index for label in self.outputs[0].labels) != list(range(1, len(labels) + 1)):
            raise ValueError("outputs[0].labels: the indices must run 1..N without gaps")
        for entry in self.measurements:
            unknown = set(entry.of) - set(labels)
            if unknown:
                raise ValueError(f"measurements.{entry.key}.of: no label is called {sorted(unknown)}")
        keys = [entry.key for entry in self.measurements]
        if len(set(keys)) != len(keys):
            raise ValueError("measurements: two measurements have the same key")
        for rule in self.findings:
            if rule.measurement not in keys:
                raise ValueError(f'findings.{rule.key}.measurement: no measurement "{rule.measurement}"')
        return self

    @model_validator(mode="after")
    def _words_name_what_is_there(self) -> Manifest:
        there = {
            "labels": {label.key for label in self.outputs[0].labels},
            "measurements": {entry.key for entry in self.measurements},
            "findings": {rule.key for rule in self.findings},
        }
        for language, entry in self.words.items():
            for part, keys in there.items():
                unknown = set(getattr(entry, part)) - keys
                if unknown:
                    raise ValueError(f"words.{language}.{part}: there is no {sorted(unknown)}")
        return self
