"""What `model.yaml` may say of other models: those whose answer this one needs, and those it answers with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from engines.manifest_entries import Splines, Strict
from engines.manifest_outputs import Key


def _of_shares(splines: Splines) -> Splines:
    """Shares of a label stay between 0 and 1 under splines of the first order."""
    if max(splines.order, splines.order_apart) > 1:
        raise ValueError("labels are resampled with order 0 or 1")
    return splines


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
    #: Null: the label of the voxel that holds the centre. Else, as nnU-Net's plans resample segmentations, the one
    #: of the earlier model's labels, and the background, whose own spline is the largest there.
    splines: Annotated[Splines, AfterValidator(_of_shares)] | None = None
    #: "filled": background outside the body (what is not zero in any of the inputs, and its holes) has a spline of its
    #: own then, as in nnU-Net.
    nonzero: Literal["filled"] | None = None

    @property
    def count(self) -> int:
        """How many channels it makes."""
        return len(self.labels) if self.encoding == "one-hot" else 1


class After(Other):
    """A model that must have answered about the same image before this one can."""

    use: Annotated[Crop | LabelChannels, Field(discriminator="kind")]


class Member(Other):
    """A model whose answer is averaged with this one's."""


def check_others(
    name: str, after: Sequence[After], ensemble: Sequence[Member], *, task: str, sampling: str
) -> None:
    """Raise ValueError where a manifest names other models that cannot be what it wants of them."""
    for key, others in (("after", after), ("ensemble", ensemble)):
        if name in {other.model for other in others}:
            raise ValueError(f"{key}: {name} is this model itself; name another")
        if len({other.model for other in others}) != len({(one.model, one.digest) for one in others}):
            raise ValueError(f"{key}: a model is named with two digests; it can have one only")
    crops = [entry for entry in after if isinstance(entry.use, Crop)]
    if len(crops) > 1:
        raise ValueError("after: two of them crop; give the labels of both to one model, or drop one")
    if crops and task == "image":
        raise ValueError("after: an image is made of the whole of another; it cannot be cropped")
    channels = [entry.use for entry in after if isinstance(entry.use, LabelChannels)]
    if sampling == "first-voxel" and any(use.splines for use in channels):
        raise ValueError("after: splines are between grids over the same box; sampling is first-voxel")
    if any(use.nonzero and (use.splines is None or sampling != "nnunet") for use in channels):
        raise ValueError("after: nonzero: filled goes with splines and sampling: nnunet")
    if ensemble and task != "segmentation":
        raise ValueError(f"ensemble: only segmentations are averaged, and the task is {task}")
