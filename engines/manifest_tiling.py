"""What `model.yaml` may say of the window that slides over an image."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from engines.manifest_entries import Strict
from engines.manifest_inputs import Shape


class Tiling(Strict):
    """The sliding window."""

    #: Patch shape in voxels along (slice, row, column).
    patch: Shape
    #: Fraction of a patch shared with its neighbour.
    overlap: Annotated[float, Field(ge=0, lt=1)] = 0.5
    #: "nnunet": the same gaussian about the voxel behind the middle, and sums rounded to float16, as nnU-Net has it.
    weighting: Literal["gaussian", "uniform", "nnunet"] = "gaussian"
    #: Smallest weight in a window, whose largest is 1.
    least_weight: Annotated[float, Field(ge=0, lt=1)] = 0.0
    #: "even": windows evenly spread, each sharing at least `overlap` with the next; "fixed": each as far from the
    #: one before as `overlap` says, but the last, which ends with the image (MONAI's).
    placement: Literal["even", "fixed"] = "even"
    #: Axes (0 slice, 1 row, 2 column) that are also inferred mirrored, and averaged.
    mirror_axes: tuple[Literal[0, 1, 2], ...] = ()
    #: 2.5D, for a patch of one slice: so many slices before and after it are channels too, edges repeated.
    context: Annotated[int, Field(ge=0, le=16)] = 0
    #: A window whose every input value is at most this is background without being inferred; null: none is.
    skip_at_most: float | None = None

    @model_validator(mode="after")
    def _context_is_of_one_slice(self) -> Tiling:
        if self.context and self.patch[0] != 1:
            raise ValueError("context goes with a patch of one slice")
        return self
