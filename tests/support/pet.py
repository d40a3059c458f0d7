"""A synthetic PET series: activity in Bq/ml, with a rescale slope of its own on each slice."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import PositronEmissionTomographyImageStorage

from tests.support import phantoms

PHANTOM = phantoms.Phantom(shape=(5, 12, 14), spacing=(3.0, 2.0, 2.0), modality="PT")

#: Of fluorine-18, as GE writes it (s).
HALF_LIFE = 6586.2
DOSE, WEIGHT = 370e6, 74.0
#: Given at 10:00:00 on 2026-11-01, scanned from 11:00:00 on, 180 s for each of the beds.
INJECTED, STARTED = "100000", "110000"


def stored() -> NDArray[np.uint16]:
    """(slices, rows, columns), unlike everywhere."""
    return (np.arange(np.prod(PHANTOM.shape)).reshape(PHANTOM.shape) * 37 % 30011).astype(np.uint16)


def slopes() -> list[float]:
    """A slope for each slice, as scanners write them that use all bits of each."""
    return [0.25 * (1 + index) + 0.001 for index in range(PHANTOM.shape[0])]


def activity() -> NDArray[np.float64]:
    """Bq/ml."""
    return stored() * np.array(slopes())[:, None, None]


def series(**changes: Any) -> list[Dataset]:
    """One image for each slice; `changes` are elements of all of them, None takes one away."""
    made = phantoms.datasets(PHANTOM, np.zeros(PHANTOM.shape, np.int16))
    for ds, plane, slope in zip(made, stored(), slopes(), strict=True):
        ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = PositronEmissionTomographyImageStorage
        del ds.KVP, ds.RescaleType
        ds.BitsStored, ds.HighBit = 16, 15
        ds.PixelData = plane.tobytes()
        ds.RescaleSlope, ds.RescaleIntercept = slope, 0
        ds.Units, ds.DecayCorrection, ds.CorrectedImage = "BQML", "START", ["DECY", "ATTN", "SCAT"]
        ds.PatientWeight = WEIGHT
        ds.SeriesDate = ds.AcquisitionDate = "20261101"
        ds.SeriesTime = STARTED
        ds.AcquisitionTime = "110000"
        ds.RadiopharmaceuticalInformationSequence = [isotope()]
        for keyword, value in changes.items():
            setattr(ds, keyword, value)
            if value is None:
                delattr(ds, keyword)
    return made


def isotope(**changes: Any) -> Dataset:
    """What was given."""
    ds = Dataset()
    ds.Radiopharmaceutical = "Fluorodeoxyglucose"
    ds.RadiopharmaceuticalStartTime = INJECTED
    ds.RadionuclideTotalDose = str(DOSE)
    ds.RadionuclideHalfLife = str(HALF_LIFE)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
        if value is None:
            delattr(ds, keyword)
    return ds
