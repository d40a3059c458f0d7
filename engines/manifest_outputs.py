"""What `model.yaml` may say of the output of a network: one kind of output for each task."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from engines.findings import Urgency
from engines.manifest_entries import CodeEntry, LongText, Splines, Strict

Key = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")]
_Byte = Annotated[int, Field(ge=0, le=255)]
Colour = tuple[_Byte, _Byte, _Byte]
_Share = Annotated[float, Field(ge=0, le=1)]


class Label(Strict):
    """One class of a segmentation output."""

    #: Its number in the mask. Under softmax also the output's channel that stands for it, 0 being background;
    #: under sigmoid the channels are those of the labels in the order in which they are listed.
    index: Annotated[int, Field(ge=1)]
    #: Short name that measurements refer to.
    key: Key
    label: LongText
    category: CodeEntry
    type: CodeEntry
    anatomic_region: CodeEntry | None = None
    colour: Colour
    #: Keep only the largest connected component.
    keep_largest: bool = False
    #: What connects the voxels of a component: faces, or also edges and corners.
    connected_by: Literal["faces", "corners"] = "faces"
    #: Connected components of less than this are dropped: specks, and what only looks alike.
    min_component_ml: Annotated[float, Field(ge=0)] = 0.0
    #: A label of less than this in the whole image is dropped: it is not what the model is about.
    min_volume_ml: Annotated[float, Field(ge=0)] = 0.0
    #: Also give its probability at each voxel, as the network has it: 4 bytes for each voxel of the image.
    probability: bool = False


def _stays_in_range(splines: Splines) -> Splines:
    """Higher orders overshoot, and what wins could not be said before interpolating."""
    if max(splines.order, splines.order_apart) > 1:
        raise ValueError("an output is interpolated with order 0 or 1")
    return splines


class SegmentationOutput(Strict):
    """A value for each class at each voxel."""

    #: The ONNX graph's output name; its shape is (1, classes, slices, rows, columns).
    name: str
    #: Under softmax each voxel is of one class; under sigmoid labels are regions, and where several are beyond
    #: one half the last one listed wins (nnU-Net's region-based training).
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    #: What is brought from the model's grid to the source's: probabilities, or what the network gave, both
    #: interpolated linearly; or labels, each voxel's from its nearest neighbour.
    interpolate: Literal["probabilities", "logits", "labels"] = "probabilities"
    #: How, where that is nnU-Net's way; null: linearly along all axes.
    splines: Annotated[Splines, AfterValidator(_stays_in_range)] | None = None
    #: What interpolated logits are rounded to before the largest is looked for, as nnU-Net's float16 is.
    precision: Literal["float32", "float16"] = "float32"
    labels: Annotated[tuple[Label, ...], Field(min_length=1)]


class Platt(Strict):
    """Calibration of a class (Platt 1999): its probability is sigmoid(slope x logit + intercept).

    The logit is that of the activated and aggregated value p: log(p / (1 - p)).
    """

    slope: float
    intercept: float = 0.0


class Class(Strict):
    """One class that an image, or a box, may be of."""

    #: Channel of the output, or class number of a detector.
    index: Annotated[int, Field(ge=0)]
    key: Key
    label: LongText
    #: What its presence means.
    code: CodeEntry
    #: From this probability on it is present; null: only the probability is reported.
    threshold: _Share | None = 0.5
    urgency: Urgency = Urgency.ROUTINE
    calibration: Platt | None = None
    #: Of the boxes that are drawn.
    colour: Colour = (230, 159, 0)


class ClassificationOutput(Strict):
    """A value for each class, of the whole image."""

    #: The ONNX graph's output name; its shape is (1, classes).
    name: str
    #: softmax: one class is true; sigmoid: any number of them are.
    activation: Literal["softmax", "sigmoid", "none"] = "softmax"
    #: Of several windows of one image: the mean of their probabilities, or the largest.
    aggregate: Literal["mean", "max"] = "mean"
    #: Those that are reported; channels that are not listed are none ("no finding").
    classes: Annotated[tuple[Class, ...], Field(min_length=1)]


class Value(Strict):
    """One number that a network estimates."""

    index: Annotated[int, Field(ge=0)]
    key: Key
    name: CodeEntry
    unit: CodeEntry
    #: The network's number x scale + offset is the value in `unit`.
    scale: float = 1.0
    offset: float = 0.0


class RegressionOutput(Strict):
    """Numbers about the whole image."""

    #: The ONNX graph's output name; its shape is (1, values).
    name: str
    aggregate: Literal["mean", "max"] = "mean"
    values: Annotated[tuple[Value, ...], Field(min_length=1)]


class DetectionOutput(Strict):
    """Boxes, each with a score and a class; non-maximum suppression is done here."""

    #: Graph output (boxes, 4 or 6), or (1, boxes, 4 or 6), in voxels of the patch: 0 is the outer face of the first
    #: voxel, the patch's length that of the last. The other outputs have a first axis of 1 where this has.
    boxes: str
    #: "corners": lowest corner, then highest; "centre-size": centre, then lengths.
    box_format: Literal["corners", "centre-size"] = "corners"
    #: Order of the coordinates in a box: "xyz" (column first, as torchvision) or "zyx" (slice first).
    axis_order: Literal["xyz", "zyx"] = "xyz"
    #: Graph output (boxes,) with `class_numbers`, or (boxes, classes).
    scores: str
    #: Graph output (boxes,) of class numbers, where `scores` has one number for each box.
    class_numbers: str | None = None
    activation: Literal["sigmoid", "softmax", "none"] = "none"
    #: Of boxes of one class that overlap by more than this, the one with the highest score stays.
    overlap: _Share = 0.5
    #: At most so many boxes, those with the highest scores.
    most: Annotated[int, Field(ge=1, le=1000)] = 100
    classes: Annotated[tuple[Class, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _softmax_needs_classes(self) -> DetectionOutput:
        if self.activation == "softmax" and self.class_numbers is not None:
            raise ValueError("softmax goes with scores of each class, and not with class_numbers")
        return self

    @property
    def name(self) -> str:
        """The output that the others are counted with."""
        return self.boxes


class DerivedImage(Strict):
    """What an image-to-image network's values mean."""

    label: LongText
    #: What is added to the network's values after multiplying with `scale`; null: the input's own intensity
    #: step, undone, so that the image is in the source's unit.
    scale: float | None = None
    offset: float = 0.0
    #: UCUM; null: the source's.
    unit: CodeEntry | None = None


class ImageOutput(Strict):
    """An image on the grid of the first input."""

    #: The ONNX graph's output name; its shape is (1, 1, slices, rows, columns).
    name: str
    image: DerivedImage


Task = Literal["segmentation", "classification", "detection", "regression", "image"]


def task_of(output: Any) -> str:
    """Which task's output it is, by the keys that only that has."""
    given = output if isinstance(output, dict) else getattr(output, "__dict__", {})
    for key, task in (("boxes", "detection"), ("classes", "classification"), ("values", "regression")):
        if key in given:
            return task
    return "image" if "image" in given else "segmentation"


Output = Annotated[
    Annotated[SegmentationOutput, Tag("segmentation")]
    | Annotated[ClassificationOutput, Tag("classification")]
    | Annotated[RegressionOutput, Tag("regression")]
    | Annotated[DetectionOutput, Tag("detection")]
    | Annotated[ImageOutput, Tag("image")],
    Discriminator(task_of),
]
