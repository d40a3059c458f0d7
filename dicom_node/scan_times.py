"""When a radiopharmaceutical was given, and the time that the values of a PET series are corrected to."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone, tzinfo

from pydicom.dataset import Dataset
from pydicom.valuerep import DA, DT, TM

from dicom_node import elements
from dicom_node.errors import SeriesError

#: GE's private Scan Date and Time, to which its values are corrected (its PET's conformance statement).
_GE, _GE_SCAN = (0x0009, "GEMS_PETD_01"), 0x0D

#: The frames of a series that tell one time may differ by this, as each is rounded (s).
_SAME_TIME_S = 60.0


def reference(datasets: Sequence[Dataset], half_life: float) -> datetime:
    """The start of the scan: the time that Decay Correction START means (PS3.3 C.8.9.1.1.4), as local time.

    Series Time, where the first image was not acquired before it. A series that was made later has a later Series
    Time; there it is GE's private scan time, else what the frames' own times say (QIBA's SUV pseudo-code).
    Raises SeriesError "no-suv" where none of them tells it.
    """
    series = {moment(ds, "Series") for ds in datasets} - {None}
    acquired = [moment(ds, "Acquisition") for ds in datasets]
    known = [one for one in acquired if one is not None]
    if len(series) == 1 and len(known) == len(datasets):
        (start,) = series
        if start is not None and start <= min(known):
            return start
    for found in (_of_ge(datasets), _of_frames(datasets, known, half_life)):
        if found is not None:
            return found
    raise SeriesError(
        "no-suv",
        "The SUV of the series is unknown: Series Date and Time (0008,0021), (0008,0031) are missing or after the "
        "first Acquisition Date and Time (0008,0022), (0008,0032), and neither GE's private scan time (0009,xx0D) nor "
        "Frame Reference Time (0054,1300) tells what the values are corrected to. Send the original PET images.",
    )


def moment(ds: Dataset, which: str) -> datetime | None:
    """Series or acquisition date and time; None where one of them is missing or none."""
    return _joined(elements.text(ds, f"{which}Date"), elements.text(ds, f"{which}Time"))


def injection(isotope: Dataset, scan: datetime, own_zone: tzinfo | None) -> datetime | None:
    """When it was given: its date and time, else its time on the day of the scan or the day before.

    A time with a zone becomes local time by the data set's own zone; without that it is taken as local.
    """
    found = date_time(elements.text(isotope, "RadiopharmaceuticalStartDateTime"))
    if found is not None:
        if found.tzinfo is not None and own_zone is not None:
            found = found.astimezone(own_zone)
        return found.replace(tzinfo=None)
    alone = _joined(scan.strftime("%Y%m%d"), elements.text(isotope, "RadiopharmaceuticalStartTime"))
    if alone is not None and alone > scan:
        # Before midnight.
        alone -= timedelta(days=1)
    return alone


def zone(ds: Dataset) -> tzinfo | None:
    """Timezone Offset From UTC (PS3.3 C.12.1.1.8); None where there is none."""
    found = elements.text(ds, "TimezoneOffsetFromUTC")
    try:
        sign = {"+": 1, "-": -1}[found[:1]]
        return timezone(sign * timedelta(hours=int(found[1:3]), minutes=int(found[3:5])))
    except (KeyError, ValueError):
        return None


def _of_ge(datasets: Sequence[Dataset]) -> datetime | None:
    try:
        found = str(datasets[0].private_block(*_GE)[_GE_SCAN].value)
    except elements.BROKEN:
        return None
    read = date_time(found)
    return None if read is None else read.replace(tzinfo=None)


def _of_frames(
    datasets: Sequence[Dataset], acquired: Sequence[datetime], half_life: float
) -> datetime | None:
    """From the time in each frame at which it decayed as much as on average, and its offset from the reference."""
    if len(acquired) != len(datasets):
        return None
    found = []
    for ds, began in zip(datasets, acquired, strict=True):
        offset, duration = (
            elements.number(ds, keyword) or 0.0 for keyword in ("FrameReferenceTime", "ActualFrameDuration")
        )
        if offset <= 0 or duration <= 0:
            return None
        decay = math.log(2) / half_life
        average = math.log(decay * duration / 1000 / -math.expm1(-decay * duration / 1000)) / decay
        found.append(began + timedelta(seconds=average - offset / 1000))
    found.sort()
    if (found[-1] - found[0]).total_seconds() > _SAME_TIME_S:
        return None
    return found[len(found) // 2]


def _joined(date: str, time: str) -> datetime | None:
    try:
        day, clock = DA(date), TM(time)
    except elements.BROKEN:
        return None
    return None if day is None or clock is None else datetime.combine(day, clock)


def date_time(text: str) -> datetime | None:
    """A DICOM date and time, with its zone where it has one; None where it is none."""
    try:
        found = DT(text)
    except elements.BROKEN:
        return None
    return None if found is None else datetime.combine(found.date(), found.timetz())
