"""What `model.yaml` may say of what happens to an image before its intensities are scaled, and after."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engines.manifest_entries import Strict


class Crop(Strict):
    """Leave the background around the patient away; what lies outside gets no label."""

    kind: Literal["crop"]
    #: The box of the voxels above this, in the source's values; null: of those that are not zero, in any of the
    #: series (nnU-Net's crop).
    above: float | None = None
    #: Source voxels that stay around the box.
    margin: Annotated[int, Field(ge=0)] = 0


Step = Annotated[Crop, Field(discriminator="kind")]
