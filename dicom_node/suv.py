"""Standardised uptake value by body weight of a PET series: what its values are multiplied with, or why nobody knows.

After the vendor-neutral pseudo-code of QIBA for SUVbw, and PS3.3 C.8.9.1 (PET Series), C.8.9.2 (PET Isotope) and
C.8.9.4 (PET Image). Nothing is guessed: what is missing, or cannot be so, is named.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeVar

from pydicom.dataset import Dataset

from dicom_node import elements, scan_times
from dicom_node.errors import SeriesError

Found = TypeVar("Found", str, float | None)

#: What readers mostly see PET in: SUV shown white (or black) and above.
WINDOW = (0.0, 10.0)

#: Kilograms, becquerels and seconds between which a value can be meant: one in grams, MBq or minutes is mostly not.
_WEIGHT_KG = (0.2, 700.0)
_DOSE_BQ = (1e6, 1e11)
_HALF_LIFE_S = (30.0, 1e7)
#: Half-lives after which nothing is left to be seen.
_MOST_HALF_LIVES = 10.0

#: Private elements of Philips (its PET's conformance statement): SUV, and Bq/ml, for each count.
_PHILIPS = (0x7053, "Philips PET Private Group")
_PHILIPS_SUV, _PHILIPS_ACTIVITY = 0x00, 0x09


def factors(datasets: Sequence[Dataset], *, series: Sequence[Dataset] = ()) -> list[float]:
    """For each image, what its rescaled values are multiplied with to be SUV by body weight, g/ml.

    `series` are all images of the series, where `datasets` are some of them: they tell when the scan began.
    Raises SeriesError "no-suv", which names the element, and what to do.
    """
    units = _word(datasets, "Units", "Units (0054,1001)")
    if units == "GML":
        _refuse_other_kinds(datasets)
        return [1.0] * len(datasets)
    if units == "BQML":
        return [_by_weight(series or datasets)] * len(datasets)
    if units == "CNTS":
        return _of_philips(datasets, series or datasets)
    raise _unknown(
        f"Units (0054,1001) is {units if units.isalnum() else 'missing'}; SUV can be made of BQML, GML and "
        "the CNTS of Philips"
    )


def _of_philips(datasets: Sequence[Dataset], series: Sequence[Dataset]) -> list[float]:
    """Counts become SUV by a private factor, or activity by another."""
    own = [_philips(ds, _PHILIPS_SUV) for ds in datasets]
    if all(own):
        return own
    activity = [_philips(ds, _PHILIPS_ACTIVITY) for ds in datasets]
    if not all(activity):
        raise _unknown(
            "Units (0054,1001) is CNTS, and Philips' private factors (7053,xx00) and (7053,xx09) are missing or 0; "
            "some archives take private elements away"
        )
    shared = _by_weight(series)
    return [shared * factor for factor in activity]


def _philips(ds: Dataset, element: int) -> float:
    """A private factor; 0 where there is none."""
    try:
        found = float(ds.private_block(*_PHILIPS)[element].value)
    except elements.BROKEN:
        return 0.0
    return found if math.isfinite(found) and found > 0 else 0.0


def _by_weight(datasets: Sequence[Dataset]) -> float:
    """(g/ml) / (Bq/ml): body weight over the dose that is left at the time which the values are corrected to."""
    for word in ("ATTN", "DECY"):
        if not all(word in elements.words(ds, "CorrectedImage") for ds in datasets):
            raise _unknown(f"Corrected Image (0028,0051) does not say {word}: the values are no activity")
    weight = _number(datasets, "PatientWeight", "Patient's Weight (0010,1030)", _WEIGHT_KG, "kg")
    isotopes = [_isotope(ds) for ds in datasets]
    dose = _number(isotopes, "RadionuclideTotalDose", "Radionuclide Total Dose (0018,1074)", _DOSE_BQ, "Bq")
    return weight * 1000 / (dose * _left(datasets, isotopes))


def _left(datasets: Sequence[Dataset], isotopes: Sequence[Dataset]) -> float:
    """The share of the dose that is left at the time which the values are corrected to (PS3.3 C.8.9.1.1.4)."""
    correction = _word(datasets, "DecayCorrection", "Decay Correction (0054,1102)")
    if correction == "ADMIN":
        return 1.0
    if correction != "START":
        raise _unknown(
            "Decay Correction (0054,1102) is neither START nor ADMIN: the values are of no one time"
        )
    half_life = _number(
        isotopes, "RadionuclideHalfLife", "Radionuclide Half Life (0018,1075)", _HALF_LIFE_S, "s"
    )
    scan = scan_times.reference(datasets, half_life)
    injected = scan_times.injection(isotopes[0], scan, scan_times.zone(datasets[0]))
    if injected is None:
        raise _unknown(
            "Radiopharmaceutical Start DateTime (0018,1078) and Start Time (0018,1072) are missing or no times"
        )
    elapsed = (scan - injected).total_seconds()
    if not 0 <= elapsed <= _MOST_HALF_LIVES * half_life:
        raise _unknown(
            f"the radiopharmaceutical was given {elapsed:.0f} s before the time that the values are corrected to, and "
            f"its half-life is {half_life:g} s: Radiopharmaceutical Start DateTime (0018,1078), Series Time "
            "(0008,0031) or Radionuclide Half Life (0018,1075) cannot be right"
        )
    return float(2 ** (-elapsed / half_life))


def _isotope(ds: Dataset) -> Dataset:
    """What was given. Of several, nobody knows which decays."""
    items = elements.value(ds, "RadiopharmaceuticalInformationSequence")
    count = len(items) if items is not None else 0
    if count != 1:
        raise _unknown(f"Radiopharmaceutical Information Sequence (0054,0016) has {count} items, not one")
    return Dataset(items[0])


def _refuse_other_kinds(datasets: Sequence[Dataset]) -> None:
    """GML without SUV Type is by body weight (PS3.3 C.8.9.1.1.3)."""
    if _word(datasets, "SUVType", "SUV Type (0054,1006)") not in ("", "BW"):
        raise _unknown("SUV Type (0054,1006) says that the values are SUV, but not by body weight")


def _number(
    datasets: Sequence[Dataset], keyword: str, name: str, between: tuple[float, float], unit: str
) -> float:
    """A number that all images share, within what can be meant. Its value is the patient's, and not told."""
    low, high = between
    found = _shared(name, [elements.number(ds, keyword) for ds in datasets])
    if found is None:
        raise _unknown(f"{name} is missing")
    if not low <= found <= high:
        raise _unknown(f"{name} is not between {low:g} and {high:g} {unit}")
    return found


def _word(datasets: Sequence[Dataset], keyword: str, name: str) -> str:
    """A code string that all images share; "" where it is missing."""
    return _shared(name, [elements.text(ds, keyword).upper() for ds in datasets])


def _shared(name: str, values: Sequence[Found]) -> Found:
    """What all images say."""
    if len(set(values)) > 1:
        raise _unknown(f"{name} differs from image to image")
    return values[0]


def _unknown(why: str) -> SeriesError:
    return SeriesError(
        "no-suv",
        f"The SUV of the series is unknown: {why}. Have the modality or the PACS send the original PET images with "
        "their whole headers.",
    )
