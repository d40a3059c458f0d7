"""What `model.yaml` may say of what happens to an image before its intensities are scaled, and of padding after."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engines.manifest_entries import Strict

_Odd = Annotated[int, Field(ge=3, le=31)]
_Count = Annotated[int, Field(ge=1, le=4096)]
_Rounds = Annotated[int, Field(ge=1, le=200)]


def _odd(name: str, value: int) -> None:
    if value % 2 == 0:
        raise ValueError(f"{name} is odd, so that a voxel can be its middle")


class Median(Strict):
    """Each voxel becomes the median of those around it."""

    kind: Literal["median"]
    #: Voxels along each axis.
    size: _Odd = 3
    #: Along rows and columns only.
    in_plane: bool = False

    @model_validator(mode="after")
    def _has_a_middle(self) -> Median:
        _odd("size", self.size)
        return self


class Gaussian(Strict):
    """Each voxel becomes a mean of those around it, weighted by a Gaussian."""

    kind: Literal["gaussian"]
    #: Its standard deviation in millimetres, or in voxels of the source: one of the two.
    sigma_mm: Annotated[float, Field(gt=0, le=50)] | None = None
    sigma_voxels: Annotated[float, Field(gt=0, le=50)] | None = None
    in_plane: bool = False

    @model_validator(mode="after")
    def _one_sigma(self) -> Gaussian:
        if (self.sigma_mm is None) == (self.sigma_voxels is None):
            raise ValueError("give sigma_mm or sigma_voxels, and not both")
        return self


class NonLocalMeans(Strict):
    """Each pixel becomes a mean of those in its slice whose surroundings look alike (Buades et al. 2005)."""

    kind: Literal["non-local-means"]
    #: Surroundings that differ by this on average (in the source's values) count a little: near the noise's own size.
    strength: Annotated[float, Field(gt=0)]
    #: Pixels along a side of what is compared, and of where it is looked for.
    patch: _Odd = 7
    window: _Odd = 21

    @model_validator(mode="after")
    def _have_a_middle(self) -> NonLocalMeans:
        _odd("patch", self.patch)
        _odd("window", self.window)
        return self


class Clahe(Strict):
    """Contrast limited adaptive histogram equalisation (Zuiderveld 1994), slice by slice, in 256 levels."""

    kind: Literal["clahe"]
    #: How many times its mean height a bin of a tile's histogram may have.
    clip_limit: Annotated[float, Field(gt=0)] = 2.0
    #: Tiles along (row, column).
    tiles: tuple[_Count, _Count] = (8, 8)
    #: The source's values that become the lowest and the highest level; null: those of the whole image.
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _has_a_range(self) -> Clahe:
        if self.low is not None and self.high is not None and not self.high > self.low:
            raise ValueError("high is above low")
        return self


class BiasField(Strict):
    """Divide by the slow change of brightness that an MR coil leaves (N4: Tustison et al. 2010)."""

    kind: Literal["bias-field"]
    #: The field is fitted on every n-th voxel along each axis.
    shrink: Annotated[int, Field(ge=1, le=16)] = 4
    #: The most iterations at each level, from coarse to fine.
    iterations: Annotated[tuple[_Rounds, ...], Field(min_length=1, max_length=6)] = (50, 50, 50, 50)


class Clip(Strict):
    """Bound the source's values."""

    kind: Literal["clip"]
    low: float | None = None
    high: float | None = None

    @model_validator(mode="after")
    def _has_a_bound(self) -> Clip:
        if self.low is None and self.high is None:
            raise ValueError("a clip needs low, high or both")
        if self.low is not None and self.high is not None and not self.high > self.low:
            raise ValueError("high is above low")
        return self


class Crop(Strict):
    """Leave the background around the patient away; what lies outside gets no label."""

    kind: Literal["crop"]
    #: The box of the voxels above this, in the source's values; null: of those that are not zero, in any of the
    #: series (nnU-Net's crop).
    above: float | None = None
    #: Source voxels that stay around the box.
    margin: Annotated[int, Field(ge=0)] = 0


class Pad(Strict):
    """Add voxels around what the network sees, half of them on each side; they get no label."""

    kind: Literal["pad"]
    #: Voxels of the network's grid along (slice, row, column): lengths become multiples of these, ...
    multiple_of: tuple[_Count, _Count, _Count] | None = None
    #: ... or at least these.
    at_least: tuple[_Count, _Count, _Count] | None = None
    #: What they hold, as the network sees it: after the intensities are scaled.
    value: float = 0.0

    @model_validator(mode="after")
    def _one_rule(self) -> Pad:
        if (self.multiple_of is None) == (self.at_least is None):
            raise ValueError("give multiple_of or at_least, and not both")
        return self


#: What is done on the source's grid.
SourceStep = Median | Gaussian | NonLocalMeans | Clahe | BiasField | Clip | Crop
Step = Annotated[SourceStep | Pad, Field(discriminator="kind")]


def check_order(steps: tuple[Step, ...]) -> None:
    """Raise ValueError where steps cannot follow each other so."""
    kinds = [step.kind for step in steps]
    for kind in ("crop", "pad"):
        if kinds.count(kind) > 1:
            raise ValueError(f"steps: one {kind} is enough")
    if "pad" in kinds[:-1]:
        raise ValueError("steps: pad comes last: it is done on the network's grid")
