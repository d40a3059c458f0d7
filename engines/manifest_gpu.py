"""What `model.yaml` may say of running on a GPU: how precisely, how near to float32, and with how much memory."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from engines.manifest_entries import Strict

#: What a network computes in.
Precision = Literal["float32", "float16", "bfloat16"]


#: More than any GPU has: bytes of it can still be counted.
MOST_MEGABYTES = 1e9


class Gpu(Strict):
    """The network on a GPU."""

    precision: Precision = "float16"
    #: Largest difference of an output from the float32 reference's, as a fraction of the reference's range.
    tolerance: Annotated[float, Field(gt=0, le=1)] = 0.02
    #: Least overlap of each label with the float32 reference's, 0 to 1.
    min_dice: Annotated[float, Field(gt=0, le=1)] = 0.995
    #: Device memory that it needs; null: what was measured when its plan was judged.
    megabytes: Annotated[float, Field(gt=0, le=MOST_MEGABYTES)] | None = None
