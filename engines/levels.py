"""Values as whole levels, for what counts in histograms or works on whole numbers, and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Levels:
    """`low` is level 0, and each level is `height` more."""

    low: float
    height: float
    #: The highest level.
    top: int
    #: What values are in again afterwards.
    dtype: np.dtype[Any]

    @staticmethod
    def of(array: NDArray[Any], top: int) -> Levels:
        """One level for each whole number where there are enough, else `top` of them over the array's range."""
        low, high = float(array.min()), float(array.max())
        if np.issubdtype(array.dtype, np.integer) and high - low <= top:
            return Levels(low=low, height=1.0, top=top, dtype=array.dtype)
        return Levels.between(low, high, top)

    @staticmethod
    def between(low: float, high: float, top: int) -> Levels:
        """From `low` to `high`; values beyond them are clipped."""
        return Levels(low=low, height=(high - low) / top, top=top, dtype=np.dtype(np.float32))

    def down(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The levels nearest to the values."""
        return np.asarray(np.rint(np.clip((values.astype(np.float64) - self.low) / self.height, 0, self.top)))

    def up(self, levels: NDArray[Any]) -> NDArray[Any]:
        """The values of the levels."""
        return np.asarray(levels * self.height + self.low).astype(self.dtype)
