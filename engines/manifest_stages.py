"""What `model.yaml` may say of other models: those whose answer this one needs, and those it answers with."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engines.manifest_entries import Strict
from engines.manifest_outputs import Key

_Keys = Annotated[tuple[Key, ...], Field(min_length=1)]


class Other(Strict):
    """Another package, exactly: with its digest, this one's digest speaks for both."""

    model: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]
    #: As `secondread models list` shows it.
    digest: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Crop(Strict):
    """Look only at the box around what the earlier model found."""

    kind: Literal["crop"]
    #: Keys of the earlier model's labels.
    labels: _Keys
    #: Kept around them on each side, as far as the image reaches.
    margin_mm: Annotated[float, Field(ge=0, le=1000)] = 0.0


class LabelChannels(Strict):
    """Take what the earlier model found as channels, brought to this model's grid."""

    kind: Literal["channels"]
    #: Keys of the earlier model's labels.
    labels: _Keys
    #: The graph's input; where images go there too, these channels come behind theirs.
    name: str
    #: One channel of 0 and 1 for each label, in their order here; or one of the labels' numbers.
    encoding: Literal["one-hot", "numbers"] = "one-hot"
    #: "nearest": the label of the voxel that holds the centre; "linear": the last one listed whose own linear
    #: interpolant is at least one half there (nnU-Net's order 1 for segmentations).
    interpolate: Literal["nearest", "linear"] = "nearest"

    @property
    def count(self) -> int:
        """How many channels it makes."""
        return len(self.labels) if self.encoding == "one-hot" else 1


class After(Other):
    """A model that must have answered about the same image before this one can."""

    use: Annotated[Crop | LabelChannels, Field(discriminator="kind")]


class Member(Other):
    """A model whose answer is averaged with this one's."""
