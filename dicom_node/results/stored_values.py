"""How the numbers of a derived image become the integers of a DICOM image, and how much that loses."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.volume import Volume

#: Steps that 16 bits hold, one less on either side: what is rounded up must not fall off the end.
_SIGNED, _UNSIGNED = 32767, 65535

#: Digits of a Rescale Slope: as DS it has 16 characters at most (PS3.5 Table 6.2-1).
_DIGITS = 6


@dataclass(frozen=True, kw_only=True, slots=True)
class Range:
    """What a volume holds."""

    low: float
    high: float
    #: Whether every value is a whole number.
    whole: bool

    @property
    def finite(self) -> bool:
        """Whether there are only numbers."""
        return math.isfinite(self.low) and math.isfinite(self.high)


@dataclass(frozen=True, kw_only=True, slots=True)
class Rescale:
    """Stored value x slope + intercept is the value (PS3.3 C.11.1); both are what their text reads back as."""

    slope: str
    intercept: str
    signed: bool
    #: Farthest that a value may be from what is stored: half a step, or nothing.
    error: float

    def store(self, plane: NDArray[Any]) -> NDArray[Any]:
        """A plane's integers, 16 bits, little endian."""
        steps = np.rint((plane.astype(np.float64) - float(self.intercept)) / float(self.slope))
        return steps.astype("<i2" if self.signed else "<u2")


def measured(volume: Volume) -> Range:
    """The range of a volume, slice by slice."""
    lows, highs, whole = [], [], True
    for plane in volume.array:
        lows.append(float(plane.min()))
        highs.append(float(plane.max()))
        whole = whole and (np.issubdtype(plane.dtype, np.integer) or bool((plane == np.rint(plane)).all()))
    # NaN is neither small nor large: it must not be lost between two others.
    return Range(low=float(np.min(lows)), high=float(np.max(highs)), whole=whole)


def rescale(range_: Range) -> Rescale:
    """Any numbers as signed integers."""
    if range_.whole and range_.low >= -_SIGNED and range_.high <= _SIGNED:
        return Rescale(slope="1", intercept="0", signed=True, error=0.0)
    intercept = f"{(range_.low + range_.high) / 2:.8g}"
    reach = max(range_.high - float(intercept), float(intercept) - range_.low)
    return _of_reach(reach, intercept)


def through_zero(range_: Range) -> Rescale:
    """The same with an intercept of zero, which is all that a PET image may have (PS3.3 C.8.9.4)."""
    if range_.whole and range_.low >= -_SIGNED and range_.high <= _SIGNED:
        return Rescale(slope="1", intercept="0", signed=True, error=0.0)
    return _of_reach(max(abs(range_.low), abs(range_.high)), "0")


def whole(range_: Range) -> Rescale | None:
    """Whole numbers from zero, unscaled, as a digital X-ray image has them (PS3.3 C.8.11.3).

    None where there are negative ones, or so few that rounding would be seen.
    """
    if range_.low < 0 or range_.high > _UNSIGNED or range_.high - range_.low < 255:
        return None
    return Rescale(slope="1", intercept="0", signed=False, error=0.0 if range_.whole else 0.5)


def _of_reach(reach: float, intercept: str) -> Rescale:
    """The smallest step of few digits with which so much to either side can be stored."""
    least = reach / (_SIGNED - 1)
    if least <= 0:
        return Rescale(slope="1", intercept=intercept, signed=True, error=0.5)
    unit = 10.0 ** (math.floor(math.log10(least)) - _DIGITS + 1)
    slope = f"{math.ceil(least / unit) * unit:.{_DIGITS}g}"
    return Rescale(slope=slope, intercept=intercept, signed=True, error=float(slope) / 2)
