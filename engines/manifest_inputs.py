"""What `model.yaml` may say of the inputs of a network: which series, on which grid, in which intensities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from engines.manifest_entries import Splines, Strict
from engines.manifest_steps import Pad, SourceStep, Step, check_order
from engines.volume import MomentsBy, Values


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
    #: Statistics over non-zero voxels only; "filled": over what is not zero in any of the inputs, and its holes, and
    #: the rest stays as it is (nnU-Net's use_mask_for_norm).
    nonzero: bool | Literal["filled"] = False


class Percentile(Strict):
    """Clip to two percentiles of the image and scale linearly to [0, 1]."""

    kind: Literal["percentile"]
    low: Annotated[float, Field(ge=0, lt=100)] = 0.5
    high: Annotated[float, Field(gt=0, le=100)] = 99.5


class MinMax(Strict):
    """Scale the image's own range linearly to `to`."""

    kind: Literal["min-max"]
    to: tuple[float, float] = (0.0, 1.0)


class Unchanged(Strict):
    """The values as they are."""

    kind: Literal["none"]


class Linear(Strict):
    """Scale [low, high] linearly to `to`; with `clip` also clip to it."""

    kind: Literal["linear"]
    low: float
    high: float
    to: tuple[float, float] = (0.0, 1.0)
    clip: bool = False

    @model_validator(mode="after")
    def _ranges_are_wide(self) -> Linear:
        if self.low == self.high or self.to[0] == self.to[1]:
            raise ValueError("low and high, and the two numbers of to, must differ")
        return self


Intensity = Annotated[
    Window | CTNormalisation | ZScore | Percentile | MinMax | Linear | Unchanged, Field(discriminator="kind")
]
_Length = Annotated[float, Field(gt=0)]
Spacing = tuple[_Length | None, _Length, _Length]
_Count = Annotated[int, Field(gt=0)]
Shape = tuple[_Count, _Count, _Count]


#: Of a role, as a job remembers it.
ROLE_LENGTH = 32


class Frames(Strict):
    """The moments of a clip that the network sees at once: its slices."""

    length: Annotated[int, Field(ge=1, le=512)]
    #: From one frame to the next, around the middle of the clip; null: evenly over all of it.
    every: Annotated[int, Field(ge=1)] | None = None


class Moments(Strict):
    """Which volumes of a series that holds several at one place the network sees: each is a channel, in this order."""

    #: What orders them.
    by: MomentsBy
    #: The first so many.
    count: Annotated[int, Field(ge=1, le=64)] | None = None
    #: Or these, counted from 1.
    take: Annotated[
        tuple[Literal["first", "last"] | Annotated[int, Field(ge=1, le=4096)], ...], Field(max_length=64)
    ] = ()
    #: Or those nearest to these values of `by` (s since the first, s/mm2, ms), no further away than `within`.
    at: Annotated[tuple[float, ...], Field(max_length=64)] = ()
    within: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _says_which(self) -> Moments:
        if [self.count is not None, bool(self.take), bool(self.at)].count(True) != 1:
            raise ValueError(
                "give one of count, take and at: how many of the first, which, or near which values"
            )
        if (self.within is None) == bool(self.at):
            raise ValueError("within goes with at: how far a volume's value may be from what is asked for")
        for key, given in (("take", [1 if one == "first" else one for one in self.take]), ("at", self.at)):
            if len(set(given)) < len(given):
                raise ValueError(f"{key}: one of them is named twice")
        return self

    @property
    def length(self) -> int:
        """How many the network sees."""
        return self.count or len(self.take or self.at)

    @property
    def least(self) -> int:
        """The fewest that a series must have."""
        if self.count is not None or self.at:
            return self.length
        highest = max((1 if one == "first" else one for one in self.take if one != "last"), default=0)
        # The last one must be another than those before it.
        return highest + ("last" in self.take)


#: A direction's axis of the patient.
_AXES = str.maketrans("LRAPHF", "xxyyzz")


def of_three_axes(orientation: str) -> str:
    """The directions. Raises ValueError unless each lies along another axis of the patient."""
    along = sorted(orientation.translate(_AXES))
    if along != ["x", "y", "z"]:
        raise ValueError("it must name one of L and R, one of A and P, and one of H and F")
    return orientation


class Input(Strict):
    """One series that the network looks at, and how it becomes an input or a channel of one."""

    #: The ONNX graph's input name; its shape is (1, channels, slices, rows, columns), or without slices where
    #: the patch has one. Several entries of one name are its channels, in their order.
    name: str
    #: What this series is to the model, e.g. "t1c"; the name where it is the only one of that.
    role: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=ROLE_LENGTH)] | None = None
    #: Which series fits, in the same language as a route's `when`.
    series: dict[str, Any]
    #: Of several series that fit: further criteria in the same language, the most wanted first. Each leaves those that
    #: meet it, where some do.
    prefer: tuple[dict[str, Any], ...] = ()
    #: Whether the model looks at single images (X-rays, ultrasound, photographs, one slice) as they were
    #: acquired: volumes of one slice, with or without a place in the patient, instead of stacks.
    planar: bool = False
    #: What its values are, before anything is done to them; measurements are of these too.
    values: Values = "source"
    #: With `planar`: the model looks at clips (cine), images whose frames follow each other in time.
    frames: Frames | None = None
    #: The series holds several volumes at one place (over time, b-values, echo times), and the model looks at these.
    moments: Moments | None = None
    #: Patient directions of the (slice, row, column) axes that the network was trained on.
    orientation: Annotated[str, Field(pattern=r"^[LRAPHF]{3}$"), AfterValidator(of_three_axes)] = "HPL"
    #: Voxel spacing the network was trained on, mm along (slice, row, column), or (row, column) where
    #: `planar`; null: as acquired, all of it or the slices alone.
    spacing_mm: Spacing | tuple[_Length, _Length] | None = None
    #: Instead of a spacing: (slices, rows, columns), or (rows, columns) where `planar`, that every image is
    #: brought to, whatever its shape.
    size: Shape | tuple[_Count, _Count] | None = None
    #: What is done to the image before that, in this order.
    steps: tuple[Step, ...] = ()
    #: How the model grid is laid and filled. "box": both grids cover the same box, and a coarser voxel is the mean
    #: over its extent; "box-linear": the same box, linear interpolation alone; "first-voxel": both begin at the
    #: first voxel's centre, the spacing is exactly the asked one, linear interpolation (MONAI's Spacing); "nnunet":
    #: the same box, and `splines`.
    sampling: Literal["box", "box-linear", "first-voxel", "nnunet"] = "box"
    splines: Splines = Splines()
    intensity: Intensity
    #: Whether intensities are scaled, and their statistics taken, before resampling or after it.
    scaled: Literal["before", "after"] = "before"
    #: Fewest slices along the scan that the model accepts.
    min_slices: Annotated[int, Field(ge=1)] = 2

    @model_validator(mode="after")
    def _fits_its_dimensions(self) -> Input:
        length = 2 if self.planar else 3
        for key, given in (("spacing_mm", self.spacing_mm), ("size", self.size)):
            if given is not None and len(given) != length:
                raise ValueError(f"{key} has {length} numbers where planar is {str(self.planar).lower()}")
        unfit = {"orientation", "min_slices", "moments"} if self.planar else {"frames"}
        for key in sorted(unfit & self.model_fields_set):
            raise ValueError(f"{key} says nothing where planar is {str(self.planar).lower()}: remove it")
        if self.values == ("SUVbw" if self.planar else "displayed"):
            raise ValueError(f"values: {self.values} is not for planar: {str(self.planar).lower()}")
        if self.size is not None and self.spacing_mm is not None:
            raise ValueError("give spacing_mm or size, not both")
        if self.sampling in ("first-voxel", "nnunet") and self.size is not None:
            raise ValueError(f"sampling: {self.sampling} goes with spacing_mm, not with size")
        if self.sampling != "nnunet" and getattr(self.intensity, "nonzero", False) == "filled":
            raise ValueError("intensity.nonzero: filled goes with sampling: nnunet")
        check_order(self.steps)
        return self

    @property
    def source_steps(self) -> tuple[SourceStep, ...]:
        """Those of the steps that are done on the source's grid."""
        return tuple(step for step in self.steps if not isinstance(step, Pad))

    @property
    def padding(self) -> Pad | None:
        """What is added around the network's grid."""
        return next((step for step in self.steps if isinstance(step, Pad)), None)

    @property
    def channels(self) -> int:
        """How many channels of the graph's input it is."""
        return 1 if self.moments is None else self.moments.length

    @property
    def called(self) -> str:
        """The role, unique among a manifest's inputs."""
        return self.role or self.name


def check_clips(inputs: Sequence[Input], *, task: str, tiled: bool, alone: bool) -> None:
    """Raise ValueError where a manifest wants of clips what only an image that does not move can give."""
    lengths = {entry.frames.length if entry.frames else None for entry in inputs}
    if lengths == {None}:
        return
    if task not in ("classification", "regression") or not alone:
        raise ValueError(
            "inputs: frames: clips are classified, or values estimated of them, by a model alone"
        )
    if tiled:
        raise ValueError("tiling: remove it; a clip is seen whole, at its `size` and as many frames")
    if len(lengths) > 1:
        raise ValueError("inputs: frames: all have the same length, or none has any")
