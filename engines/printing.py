"""Numbers and units as people write them."""

from __future__ import annotations

import math
from collections.abc import Iterable

#: UCUM's own print symbols, where its code is not what people write.
_UNITS = {
    "[hnsf'U]": "HU",
    "1": "",
    "{}": "",
    "{ratio}": "",
    "mm2": "mm²",
    "cm2": "cm²",
    "mm3": "mm³",
    "cm3": "cm³",
    "um": "µm",
    "Cel": "°C",
    "g/ml{SUVbw}": "g/ml (SUVbw)",
}

#: Instead of a number where there is none: NaN, infinity.
NOT_COMPUTED = "could not be computed"

#: Digits that a reader takes in at a glance, and the most that a number is shown with.
_DIGITS, _MOST_DIGITS = 3, 10


def unit(ucum: str) -> str:
    """A UCUM unit as it is written in reports; "" for a plain number."""
    return _UNITS.get(ucum, ucum)


def number(value: float, *, unlike: Iterable[float | None] = ()) -> str:
    """A number with three digits, whole from 100 on: 8.4, 14.5, 2346, -812; in words where it is not finite.

    Where that would make it look like one of `unlike` that it is not (a threshold that it just exceeds), it
    gets as many more as tell them apart.
    """
    if not math.isfinite(value):
        return NOT_COMPUTED
    others = [other for other in unlike if other is not None and other != value and math.isfinite(other)]
    for digits in range(_DIGITS, _MOST_DIGITS):
        shown = _rounded(value, digits)
        if all(_rounded(other, digits) != shown for other in others):
            return shown
    return repr(value)


def change(value: float) -> str:
    """A difference, with its sign."""
    return f"{'+' if value > 0 else ''}{number(value)}"


def _rounded(value: float, digits: int) -> str:
    """So many significant digits, none of those before the point lost, no zeros at the end."""
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -5 <= magnitude < 12:
        return f"{value:.{digits}g}"
    shown = f"{value:.{max(0, digits - 1 - magnitude)}f}"
    return shown.rstrip("0").rstrip(".") if "." in shown else shown
