"""How large the pixels of an image without a place in the patient are, as far as its header says so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node import elements

#: Millimetres between rows and between columns; None where nobody knows. Then what is odd about them, for people.
Found = tuple[tuple[float, float] | None, list[str]]

#: Pixels of people are neither nearer nor further apart than this (mm).
_LEAST_MM, _MOST_MM = 0.001, 100.0
#: Two spacings are one where they differ by less than this part: they are written as decimals.
_SAME = 1e-3
#: An object in the beam is magnified by more than nothing, and by less than this.
_MOST_MAGNIFIED = 10.0

#: Modalities whose rays spread: what is nearer to the source is larger at the detector.
_PROJECTIONS = ("CR", "DX", "MG", "IO", "PX", "RF", "XA", "RG")

#: Region Spatial Format and Physical Units (PS3.3 C.8.5.5.1.1, C.8.5.5.1.15).
_TWO_DIMENSIONAL, _CENTIMETRES = 1.0, 3.0
#: Formats in which an axis is a time or a velocity: M-mode, spectral. A trace below the image (4, ECG) is no scale.
_NOT_SPATIAL = (2.0, 3.0)


def of(ds: Dataset) -> Found:
    """Pixel size of a single image: calibrated, else at the detector (PS3.3 10.7.1.3), or of its regions."""
    if elements.value(ds, "SequenceOfUltrasoundRegions"):
        return _of_regions(list(ds.SequenceOfUltrasoundRegions))
    calibrated, detector = _spacing(ds, "PixelSpacing"), _spacing(ds, "ImagerPixelSpacing")
    if calibrated is not None and (detector is None or not _alike(calibrated, detector) or _kind(ds)):
        return _calibrated(ds, calibrated, known=detector is not None)
    if detector is not None:
        return _at_the_detector(ds, detector)
    return None, ["the image does not say how large its pixels are: nothing can be measured in millimetres"]


def _kind(ds: Dataset) -> str:
    """How Pixel Spacing was calibrated: GEOMETRY, FIDUCIAL, or not at all."""
    return elements.text(ds, "PixelSpacingCalibrationType").upper()


def _spacing(ds: Dataset, keyword: str) -> NDArray[np.float64] | None:
    """Two plausible lengths; None for anything else, as for the zeros that some writers leave."""
    found = elements.numbers(ds, keyword, 2)
    return found if found is not None and ((found >= _LEAST_MM) & (found <= _MOST_MM)).all() else None


def _alike(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    return bool((np.abs(one / other - 1) < _SAME).all())


def _pair(spacing: NDArray[np.float64]) -> tuple[float, float]:
    return float(spacing[0]), float(spacing[1])


def _calibrated(ds: Dataset, spacing: NDArray[np.float64], *, known: bool) -> Found:
    if _kind(ds):
        return _pair(spacing), [f"Pixel Spacing is calibrated ({_kind(ds)})"]
    if known:
        return _pair(spacing), ["Pixel Spacing is calibrated: it differs from that at the detector"]
    if elements.text(ds, "Modality").upper() in _PROJECTIONS:
        return _pair(spacing), [
            "nobody says whether Pixel Spacing is calibrated or at the detector, where objects look larger"
        ]
    return _pair(spacing), []


def _at_the_detector(ds: Dataset, spacing: NDArray[np.float64]) -> Found:
    """In the object where the magnification is known (PS3.3 C.8.7.11, C.8.11.7), else as it is."""
    factor = elements.number(ds, "EstimatedRadiographicMagnificationFactor")
    if factor is not None and 1 <= factor < _MOST_MAGNIFIED:
        return _pair(spacing / factor), [
            f"pixel spacing at the detector is divided by the estimated magnification of {factor:g}"
        ]
    return _pair(spacing), ["pixel spacing is that at the detector: objects are smaller than they measure"]


def _of_regions(regions: list[Dataset]) -> Found:
    """What all spatial regions of an ultrasound image agree on (PS3.3 C.8.5.5)."""
    formats = [elements.number(region, "RegionSpatialFormat") for region in regions]
    found = [
        spacing
        for region, kind in zip(regions, formats, strict=True)
        if kind == _TWO_DIMENSIONAL and (spacing := _of_region(region)) is not None
    ]
    if len(found) < formats.count(_TWO_DIMENSIONAL) or not found:
        return None, ["no region says in centimetres how large its pixels are: nothing can be measured"]
    if any(kind in _NOT_SPATIAL for kind in formats) or not all(_alike(found[0], one) for one in found):
        return None, ["the image has regions of unlike scale: nothing in it can be measured in millimetres"]
    return _pair(found[0]), [f"pixel spacing is that of the calibrated region ({_extent(regions, formats)})"]


def _of_region(region: Dataset) -> NDArray[np.float64] | None:
    """Millimetres between rows and columns; None where the region's axes are no centimetres."""
    units = [elements.number(region, f"PhysicalUnits{axis}Direction") for axis in "YX"]
    deltas = [elements.number(region, f"PhysicalDelta{axis}") for axis in "YX"]
    if units != [_CENTIMETRES, _CENTIMETRES] or None in deltas:
        return None
    spacing = np.abs(np.array(deltas, dtype=np.float64)) * 10
    return spacing if ((spacing >= _LEAST_MM) & (spacing <= _MOST_MM)).all() else None


def _extent(regions: list[Dataset], formats: list[float | None]) -> str:
    """The columns and rows of the spatial regions, for people."""
    corners = ("RegionLocationMinX0", "RegionLocationMaxX1", "RegionLocationMinY0", "RegionLocationMaxY1")
    places = [
        [elements.number(region, keyword) for keyword in corners]
        for region, kind in zip(regions, formats, strict=True)
        if kind == _TWO_DIMENSIONAL
    ]
    return "; ".join(
        f"columns {x0:g} to {x1:g}, rows {y0:g} to {y1:g}"
        for x0, x1, y0, y1 in (place for place in places if None not in place)
    )
