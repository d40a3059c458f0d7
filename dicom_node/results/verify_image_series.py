"""The gate for a derived series: every image has its slice's values, in its slice's place, in its order."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node import elements
from dicom_node.errors import GateError
from dicom_node.results import image_series, references
from dicom_node.results.context import ResultContext
from engines.findings import Findings
from engines.volume import Scale, Volume

#: Of a step: sums of numbers of few digits are off in the last bits.
_LAST_BITS = 1e-6
#: Millimetres: what a position of 16 characters is off by.
_PLACE = 1e-3


def checker(context: ResultContext, findings: Findings) -> Callable[[Dataset, int], None]:
    """What compares one image of the series, as read from disk, with the findings; it is given its slice.

    What it is given raises GateError that says what differs.
    """
    image = findings.image
    if image is None:
        raise GateError("there is no derived image that a series could be of")
    made, slices = image_series.plan(context, image), context.source_slices()

    def check(ds: Dataset, index: int) -> None:
        if (str(ds.SOPClassUID), str(ds.ImageType[0])) != (made.sop_class_uid, "DERIVED"):
            raise GateError(f"slice {index + 1} is not a derived image of its class")
        if [references.read_image(item) for item in ds.SourceImageSequence] != [slices[index]]:
            raise GateError(f"slice {index + 1} names another source image than its own")
        if int(ds.InstanceNumber) != image_series.instance_number(context, index):
            raise GateError(f"slice {index + 1} is not in its place in the series")
        _check_place(ds, context, index)
        _check_values(ds, image, index, made.rescale.error)

    return check


def _check_place(ds: Dataset, context: ResultContext, index: int) -> None:
    """The image must lie where the geometry has its slice."""
    geometry = context.source.volume.geometry
    if not geometry.in_patient:
        if "ImagePositionPatient" in ds:
            raise GateError("it has a place in the patient, which its source has not")
        return
    if elements.text(ds, "FrameOfReferenceUID") != context.frame_of_reference_uid:
        raise GateError(f"slice {index + 1} is in another Frame of Reference than the source")
    rows, columns = int(ds.Rows) - 1, int(ds.Columns) - 1
    for row, column in ((0, 0), (rows, 0), (0, columns)):
        wanted = geometry.to_patient(np.array([index, row, column], dtype=np.float64))
        if np.abs(_point(ds, row, column) - wanted).max() > _PLACE:
            raise GateError(f"slice {index + 1} lies elsewhere in the patient than its source")


def _point(ds: Dataset, row: int, column: int) -> NDArray[np.float64]:
    """Where a pixel lies, LPS mm (PS3.3 C.7.6.2.1.1)."""
    cosines = np.array(ds.ImageOrientationPatient, dtype=np.float64)
    down, across = (float(value) for value in ds.PixelSpacing)
    position = np.array(ds.ImagePositionPatient, dtype=np.float64)
    return np.asarray(position + cosines[:3] * across * column + cosines[3:] * down * row, dtype=np.float64)


def _check_values(ds: Dataset, image: Volume, index: int, error: float) -> None:
    """Stored values, rescaled, must be the model's to half a step, on every pixel."""
    shape = (int(ds.Rows), int(ds.Columns))
    stored = np.frombuffer(ds.PixelData, dtype="<i2" if ds.PixelRepresentation else "<u2")
    if shape != image.array.shape[1:] or stored.size != np.prod(shape):
        raise GateError(f"slice {index + 1} has not the size of its source")
    values = stored.reshape(shape) * float(ds.RescaleSlope) + float(ds.RescaleIntercept)
    wanted = image.array[index].astype(np.float64)
    allowed = error + _LAST_BITS * float(ds.RescaleSlope) + _LAST_BITS * 1e-3 * float(np.abs(wanted).max())
    if np.abs(values - wanted).max() > allowed:
        raise GateError(f"the values of slice {index + 1} differ from the model's by more than {error:.3g}")
    if image.geometry.scale is not Scale.NONE and "PixelSpacing" not in ds and image.geometry.in_patient:
        raise GateError(f"slice {index + 1} does not say how large its pixels are")
