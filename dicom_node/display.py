"""How the source wants its values shown."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset

from dicom_node import elements


def window(ds: Dataset) -> tuple[float, float] | None:
    """Values shown black and white by the first window (PS3.3 C.11.2.1.2); None where there is no usable one."""
    centres, widths = (elements.value(ds, f"Window{part}") for part in ("Center", "Width"))
    try:
        centre, width = (float(np.ravel(value)[0]) for value in (centres, widths))
    except (TypeError, ValueError, IndexError):
        return None
    if not np.isfinite([centre, width]).all() or width < 1:
        return None
    return centre - width / 2, centre + width / 2
