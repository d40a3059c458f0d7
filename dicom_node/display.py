"""How the source wants its values shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_voi

from dicom_node import elements
from dicom_node.errors import SeriesError


def window(ds: Dataset) -> tuple[float, float] | None:
    """Values shown black and white by the first window (PS3.3 C.11.2.1.2); None where there is no usable one."""
    found = _centre_and_width(ds)
    return None if found is None else (found[0] - found[1] / 2, found[0] + found[1] / 2)


@dataclass(frozen=True, kw_only=True, eq=False)
class Shown:
    """Values as they are displayed, 0 black to 1 white."""

    #: float32
    array: NDArray[np.float32]
    notes: tuple[str, ...] = ()


def shown(ds: Dataset, array: NDArray[Any], *, otherwise: tuple[float, float]) -> Shown:
    """What the image's VOI makes of its rescaled values: its first table, else its first window (PS3.3 C.11.2).

    Without either it is linear from black to white between the two values of `otherwise`. Whether black is white is
    not looked at: see `inverted`. Raises SeriesError "undecodable" where a table cannot be read.
    """
    if elements.value(ds, "VOILUTSequence"):
        return Shown(array=_by_table(ds, array), notes=("shown by its VOI LUT",))
    found = _centre_and_width(ds)
    if found is None:
        low, high = otherwise
        note = f"the header names no window: {low:g} is shown black, and {high:g} white"
        return Shown(array=_ramp(array, low, high), notes=(note,))
    centre, width = found
    match elements.text(ds, "VOILUTFunction").upper():
        case "SIGMOID":
            # PS3.3 C.11.2.1.3.1
            curve = 1 / (1 + np.exp(-4 * (array.astype(np.float64) - centre) / width))
            return Shown(array=curve.astype(np.float32))
        case "LINEAR_EXACT":
            return Shown(array=_ramp(array, centre - width / 2, centre + width / 2))
        case _:
            # PS3.3 C.11.2.1.2.1: a window of n values has n - 1 steps.
            low = centre - 0.5 - (width - 1) / 2
            return Shown(array=_ramp(array, low, low + width - 1))


def inverted(ds: Dataset) -> bool:
    """Whether the lowest value is shown white.

    Images for presentation say it twice, as MONOCHROME1 and as INVERSE (PS3.3 C.8.11.3.1.2): once is as good.
    """
    return "MONOCHROME1" in elements.words(ds, "PhotometricInterpretation") or (
        elements.text(ds, "PresentationLUTShape").upper() == "INVERSE"
    )


def _centre_and_width(ds: Dataset) -> tuple[float, float] | None:
    """The first window, where it can be one."""
    centres, widths = (elements.value(ds, f"Window{part}") for part in ("Center", "Width"))
    try:
        centre, width = (float(np.ravel(value)[0]) for value in (centres, widths))
    except (TypeError, ValueError, IndexError):
        return None
    return (centre, width) if np.isfinite([centre, width]).all() and width >= 1 else None


def _ramp(array: NDArray[Any], low: float, high: float) -> NDArray[np.float32]:
    """Black up to `low`, white from `high` on; of a window of one value, white beyond it."""
    values = array.astype(np.float64)
    if not high > low:
        return np.asarray(values > low, np.float32)
    return np.asarray(np.clip((values - low) / (high - low), 0, 1), np.float32)


def _by_table(ds: Dataset, array: NDArray[Any]) -> NDArray[np.float32]:
    """The first VOI LUT's entries over the most that their bits can be (PS3.3 C.11.2.1.1)."""
    try:
        most = 2.0 ** int(ds.VOILUTSequence[0].LUTDescriptor[2]) - 1
        entries = apply_voi(np.rint(array).astype(np.int32), ds)
    except elements.BROKEN as error:
        raise SeriesError(
            "undecodable",
            f"{elements.name(ds)} has a VOI LUT that cannot be read, so how it is displayed is unknown. Send the "
            "original image.",
        ) from error
    return np.asarray(np.clip(entries / most, 0, 1), np.float32)
