"""What the sections of `model.yaml` are built of: strict mappings, short texts, coded concepts, translations."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from engines.findings import Code


class Strict(BaseModel):
    """Unknown keys are errors: a misspelt key must never be a silently ignored one."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


def _plain(text: str) -> str:
    """What DICOM's short texts (SH, LO) can hold and give back: a backslash would part it (PS3.5 6.2)."""
    if not text.isprintable() or "\\" in text or text != text.strip():
        raise ValueError("write it without backslash, control characters and blanks at its ends")
    return text


ShortText = Annotated[str, Field(min_length=1, max_length=16), AfterValidator(_plain)]
LongText = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_plain)]


class CodeEntry(Strict):
    """A coded concept as a manifest writes it: {value, scheme, meaning}."""

    value: ShortText
    scheme: ShortText
    meaning: LongText

    def code(self) -> Code:
        """The same as the engine's `Code`."""
        return Code(value=self.value, scheme=self.scheme, meaning=self.meaning)


class Splines(Strict):
    """Resampling as in nnU-Net's plans: splines along each axis, the longest voxels' axis perhaps apart."""

    #: Of the splines: 0 nearest, 1 linear, 3 cubic.
    order: Annotated[int, Field(ge=0, le=5)] = 3
    #: Along the axis that is apart.
    order_apart: Annotated[int, Field(ge=0, le=5)] = 0
    #: Whether the axis of the longest voxels is resampled apart; null: where they are more than three times as long
    #: as the shortest, in the image or on the model's grid.
    apart: bool | None = None


class WordsEntry(Strict):
    """The model's words in another language, by the keys of what they name."""

    intended_use: str = ""
    labels: dict[str, LongText] = {}
    measurements: dict[str, LongText] = {}
    findings: dict[str, LongText] = {}


#: The kinds of objects that can be made of findings, as a study's series list shows them. New ones come last.
ResultKind = Literal[
    "seg",
    "sr",
    "key-images",
    "key-objects",
    "labelmap",
    "sr-display",
    "rtstruct",
    "presentation-state",
    "parametric-map",
    "fractional",
    "pdf",
    "image-series",
]
