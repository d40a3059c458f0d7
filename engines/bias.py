"""The slow change of brightness over an MR image, estimated by N4 and divided out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from engines.errors import VolumeError
from engines.manifest_steps import BiasField
from engines.slabs import SLAB, spread

#: An axis keeps at least so many voxels when the image is shrunken, or all that it has.
_FEWEST = 16


def corrected(array: NDArray[Any], step: BiasField, *, threads: int = 1) -> NDArray[np.float32]:
    """The image divided by its bias field (N4ITK: Tustison et al., IEEE TMI 2010), float32.

    Makes the field at every voxel, in float32, beside the float32 result.
    Raises VolumeError where there is nothing that a field could be fitted to.
    """
    field = _log_field(array, step)
    made = np.empty(array.shape, np.float32)

    def divide(start: int) -> None:
        part = slice(start, start + SLAB)
        made[part] = array[part] / np.exp(field[part])

    spread(divide, range(0, len(array), SLAB), threads=threads)
    return made


def _log_field(array: NDArray[Any], step: BiasField) -> NDArray[np.float32]:
    """The logarithm of the field, fitted on a shrunken image to what Otsu's threshold takes for the patient.

    On one thread: sums of floats in another order would be another field.
    """
    # Imported here: it is large, and few models ask for it.
    import SimpleITK as itk

    flat = len(array) == 1
    small = np.ascontiguousarray(_shrunken(array, step.shrink), np.float32)
    image = itk.GetImageFromArray(small[0] if flat else small)
    otsu = itk.OtsuThresholdImageFilter()
    otsu.SetInsideValue(0)
    otsu.SetOutsideValue(1)
    fit = itk.N4BiasFieldCorrectionImageFilter()
    for one in (otsu, fit):
        one.SetNumberOfThreads(1)
    fit.SetMaximumNumberOfIterations(list(step.iterations))
    itk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        fit.Execute(image, otsu.Execute(image))
        # Of the grid that the field is wanted on, only the shape is looked at.
        field = fit.GetLogBiasFieldAsImage(
            itk.Image(array.shape[:0:-1] if flat else array.shape[::-1], itk.sitkUInt8)
        )
    except RuntimeError as error:
        raise VolumeError(f"no bias field could be fitted to the image: {_last_line(error)}") from error
    values = itk.GetArrayViewFromImage(field)
    if not np.isfinite(values).all():
        raise VolumeError("no bias field could be fitted to the image: it is not finite")
    return np.asarray(values.copy().reshape(array.shape))


def _shrunken(array: NDArray[Any], most: int) -> NDArray[Any]:
    """Every n-th voxel along each axis (a view), those that are left out on both sides as many."""
    parts = []
    for length in array.shape:
        factor = max(1, min(most, length // _FEWEST))
        kept = length // factor
        # The middle of what is left is the middle of the whole, or next to it, as in ITK.
        parts.append(slice((length - (kept - 1) * factor) // 2, None, factor))
    return array[tuple(parts)]


def _last_line(error: RuntimeError) -> str:
    """What ITK says, without where in its source."""
    return str(error).strip().splitlines()[-1].rpartition(": ")[2]
