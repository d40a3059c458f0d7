"""Series of several volumes at one place: contrast that arrives, b-values, echoes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from tests.support import phantoms
from tests.worker import journey as journeys

#: (slices, rows, columns)
SHAPE = (5, 24, 28)
#: Where contrast arrives.
LESION = np.s_[1:3, 8:14, 10:20]

#: Changes an image of the moment (from 0).
Change = Callable[[Dataset, int], None]


def array(moment: int) -> NDArray[np.int16]:
    """MR values: tissue with a gradient, and a lesion that brightens by 100 from moment to moment."""
    made = np.full(SHAPE, 200, np.int16) + np.arange(SHAPE[2], dtype=np.int16)
    made[LESION] += np.int16(100 * moment)
    return made


def series(count: int, change: Change, *, uid: str = journeys.SERIES, **changes: Any) -> list[Dataset]:
    """`count` volumes as one classic MR series of the journeys' patient, the moments' images interleaved."""
    frames = []
    for moment in range(count):
        phantom = phantoms.Phantom(
            shape=SHAPE, modality="MR", study_uid=journeys.STUDY, series_uid=uid, **changes
        )
        made = phantoms.datasets(phantom, array(moment) - 1024)
        for place, ds in enumerate(made):
            _as_mr(ds, number=1 + moment * len(made) + place)
            ds.FrameOfReferenceUID = f"{uid}.0"
            ds.PatientName, ds.PatientID = journeys.NAME, journeys.ID
            change(ds, moment)
        frames.append(made)
    return [ds for images in zip(*frames, strict=True) for ds in images]


def _as_mr(ds: Dataset, *, number: int) -> None:
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = MRImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = f"{ds.SeriesInstanceUID}.{number}"
    ds.InstanceNumber = number
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "US"
    ds.ScanningSequence, ds.SequenceVariant, ds.ScanOptions, ds.MRAcquisitionType = "GR", "SP", "", "3D"
    ds.EchoTime, ds.EchoTrainLength = 2.5, 1
    del ds.KVP


def identified(ds: Dataset, moment: int) -> None:
    """As of Philips: a number for each volume, acquired a minute and two seconds after the last."""
    ds.TemporalPositionIdentifier, ds.NumberOfTemporalPositions = moment + 1, 4
    timed(ds, moment)


def timed(ds: Dataset, moment: int) -> None:
    """As of Siemens: one Acquisition Time for each volume, past midnight."""
    began = datetime.fromisoformat("2026-11-01T23:58:30.5") + timedelta(seconds=62 * moment)
    ds.AcquisitionDate, ds.AcquisitionTime = f"{began:%Y%m%d}", f"{began:%H%M%S.%f}"


def sliced(ds: Dataset, moment: int) -> None:
    """As of a 2D multislice sequence: each slice of each volume has a time of its own."""
    place = (int(ds.InstanceNumber) - 1) % SHAPE[0]
    began = datetime.fromisoformat("2026-11-01T09:00:00") + timedelta(seconds=30 * moment + 2.5 * place)
    ds.AcquisitionDate, ds.AcquisitionTime = f"{began:%Y%m%d}", f"{began:%H%M%S.%f}"


def triggered(ds: Dataset, moment: int) -> None:
    """As of GE: Trigger Time in milliseconds."""
    ds.TriggerTime = 41500 * moment


def numbered(ds: Dataset, moment: int) -> None:
    ds.AcquisitionNumber = moment + 1


def weighted(values: Sequence[float]) -> Change:
    def change(ds: Dataset, moment: int) -> None:
        ds.add_new(0x00189087, "FD", float(values[moment]))

    return change


def echoing(times: Sequence[float]) -> Change:
    def change(ds: Dataset, moment: int) -> None:
        ds.EchoTime, ds.EchoNumbers = times[moment], moment + 1

    return change
