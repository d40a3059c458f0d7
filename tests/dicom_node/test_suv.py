"""SUV by body weight: each value against one worked out by hand, and whatever is missing named."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from dicom_node import display
from dicom_node.errors import SeriesError
from dicom_node.series import SeriesImages, read_series
from tests.support import pet, phantoms

#: An hour after 370 MBq of a half-life of 6586.2 s, in 74 kg: 370e6 x 2^(-3600 / 6586.2) = 253 314 000 Bq are left, and
#: 74 000 g / 253 314 000 Bq = 0.000 292 1 (g/ml)/(Bq/ml).
FACTOR = 74000 / (370e6 * 0.684632)


def read(made: list[Dataset], folder: Path, **more: Any) -> SeriesImages:
    return read_series(phantoms.write(made, folder), values="SUVbw", **more)


def check(made: list[Dataset], folder: Path, factor: float) -> None:
    found = read(made, folder).volume
    np.testing.assert_allclose(found.array, pet.activity() * factor, rtol=2e-6)


def refused(made: list[Dataset], folder: Path) -> str:
    with pytest.raises(SeriesError) as caught:
        read(made, folder)
    assert caught.value.reason == "no-suv"
    assert str(caught.value).startswith("The SUV of the series is unknown: ")
    assert "Phantom" not in str(caught.value) and " 74" not in str(caught.value)
    return str(caught.value)


def test_the_factor_of_these_tests_is_right() -> None:
    assert math.pow(2, -3600 / 6586.2) == pytest.approx(0.684632, abs=1e-6)
    assert pytest.approx(0.00029213, abs=2e-8) == FACTOR


def test_activity_becomes_suv_by_each_slices_own_slope(tmp_path: Path) -> None:
    found = read(pet.series(), tmp_path)
    assert (found.values, found.volume.unit, found.volume.window) == ("SUVbw", "g/ml{SUVbw}", (0, 10))
    assert found.volume.array.dtype == np.float32
    np.testing.assert_allclose(found.volume.array, pet.activity() * FACTOR, rtol=2e-6)
    # The one that was stored as 37 on the first slice, by hand: 37 x 0.251 Bq/ml x 0.00029213.
    assert found.volume.array[0, 0, 1] == pytest.approx(0.0027130, rel=1e-4)


def test_without_the_wish_the_values_are_activity(tmp_path: Path) -> None:
    for threads in (1, 4):
        found = read_series(phantoms.write(pet.series(), tmp_path), threads=threads)
        assert (found.values, found.volume.unit, found.volume.window) == ("source", "1", None)
        np.testing.assert_allclose(found.volume.array, pet.activity(), rtol=1e-6)


def test_threads_change_no_digit(tmp_path: Path) -> None:
    one, four = (read(pet.series(), tmp_path, threads=threads).volume.array for threads in (1, 4))
    assert one.tobytes() == four.tobytes()


def test_values_that_are_corrected_to_the_injection_did_not_decay(tmp_path: Path) -> None:
    check(pet.series(DecayCorrection="ADMIN"), tmp_path, 74000 / 370e6)


def test_a_date_and_time_goes_before_a_time_alone(tmp_path: Path) -> None:
    given = pet.isotope(RadiopharmaceuticalStartDateTime="20261101103000.00")
    made = pet.series(RadiopharmaceuticalInformationSequence=[given])
    check(made, tmp_path, 74000 / (370e6 * 2 ** (-1800 / 6586.2)))


def test_a_zone_is_brought_to_the_series_own(tmp_path: Path) -> None:
    # 09:30 in Greenwich is 10:30 where the series was made.
    given = pet.isotope(RadiopharmaceuticalStartDateTime="20261101093000+0000")
    made = pet.series(RadiopharmaceuticalInformationSequence=[given], TimezoneOffsetFromUTC="+0100")
    check(made, tmp_path, 74000 / (370e6 * 2 ** (-1800 / 6586.2)))


def test_an_injection_before_midnight_is_of_the_day_before(tmp_path: Path) -> None:
    given = pet.isotope(RadiopharmaceuticalStartTime="233000")
    made = pet.series(
        RadiopharmaceuticalInformationSequence=[given], SeriesTime="003000", AcquisitionTime="003000"
    )
    check(made, tmp_path, FACTOR)


def test_counts_of_philips_have_a_factor_of_their_own(tmp_path: Path) -> None:
    made = pet.series(Units="CNTS")
    for ds in made:
        ds.private_block(0x7053, "Philips PET Private Group", create=True).add_new(0x00, "DS", "0.000551")
    check(made, tmp_path, 0.000551)


def test_counts_of_philips_become_activity_first_where_that_is_all_there_is(tmp_path: Path) -> None:
    made = pet.series(Units="CNTS")
    for ds in made:
        block = ds.private_block(0x7053, "Philips PET Private Group", create=True)
        block.add_new(0x00, "DS", "0")
        block.add_new(0x09, "DS", "1.5")
    check(made, tmp_path, 1.5 * FACTOR)


def test_a_time_that_is_none_is_refused(tmp_path: Path) -> None:
    made = pet.series()
    for ds in made:
        ds.RadiopharmaceuticalInformationSequence[0].add_new(0x00181072, "LO", "noon")
    assert "Start Time (0018,1072) are missing or no times" in refused(made, tmp_path)


@pytest.mark.parametrize("kind", [None, "BW"])
def test_what_is_suv_already_stays_as_it_is(tmp_path: Path, kind: str | None) -> None:
    made = pet.series(Units="GML", SUVType=kind) if kind else pet.series(Units="GML")
    check(made, tmp_path, 1.0)


def test_a_series_that_was_made_later_has_ges_scan_time(tmp_path: Path) -> None:
    made = pet.series(SeriesTime="150000", AcquisitionTime="110300")
    for ds in made:
        ds.private_block(0x0009, "GEMS_PETD_01", create=True).add_new(0x0D, "DT", "20261101110000.00")
    check(made, tmp_path, FACTOR)


def test_a_series_that_was_made_later_has_its_frames_times(tmp_path: Path) -> None:
    """Of the third bed, acquired from 11:06 on: activity falls below its mean after a little less than half of it."""
    made = pet.series(SeriesTime="150000", AcquisitionTime="110600", ActualFrameDuration="180000")
    decay = math.log(2) / pet.HALF_LIFE
    average = math.log(decay * 180 / (1 - math.exp(-decay * 180))) / decay
    assert average == pytest.approx(89.7, abs=0.2)
    for ds in made:
        ds.FrameReferenceTime = f"{(360 + average) * 1000:.0f}"
    check(made, tmp_path, FACTOR)


def test_frames_that_tell_unlike_times_are_refused(tmp_path: Path) -> None:
    made = pet.series(SeriesTime="150000", ActualFrameDuration="180000")
    for index, ds in enumerate(made):
        ds.FrameReferenceTime = str(100_000 * (index + 1))
    assert "Frame Reference Time (0054,1300)" in refused(made, tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"Units": None}, "Units (0054,1001) is missing"),
        ({"Units": "PROPCPS"}, "Units (0054,1001) is PROPCPS; SUV can be made of BQML, GML and the CNTS"),
        ({"Units": "CNTS"}, "Philips' private factors (7053,xx00) and (7053,xx09) are missing or 0"),
        (
            {"Units": "GML", "SUVType": "LBM"},
            "SUV Type (0054,1006) says that the values are SUV, but not by body",
        ),
        ({"PatientWeight": None}, "Patient's Weight (0010,1030) is missing"),
        ({"PatientWeight": 0}, "Patient's Weight (0010,1030) is not between 0.2 and 700 kg"),
        ({"PatientWeight": 71234}, "Patient's Weight (0010,1030) is not between"),
        ({"CorrectedImage": ["ATTN"]}, "Corrected Image (0028,0051) does not say DECY"),
        ({"CorrectedImage": None}, "Corrected Image (0028,0051) does not say ATTN"),
        ({"DecayCorrection": "NONE"}, "Decay Correction (0054,1102) is neither START nor ADMIN"),
        (
            {"SeriesTime": "120000"},
            "Series Date and Time (0008,0021), (0008,0031) are missing or after the first",
        ),
        ({"AcquisitionTime": None, "SeriesDate": None}, "Series Date and Time (0008,0021)"),
        ({"RadiopharmaceuticalInformationSequence": []}, "(0054,0016) has 0 items, not one"),
        ({"RadiopharmaceuticalInformationSequence": [pet.isotope()] * 2}, "(0054,0016) has 2 items, not one"),
    ],
)
def test_what_is_missing_or_cannot_be_is_named(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    assert complaint in refused(pet.series(**changes), tmp_path)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"RadionuclideTotalDose": None}, "Radionuclide Total Dose (0018,1074) is missing"),
        (
            {"RadionuclideTotalDose": "370"},
            "Radionuclide Total Dose (0018,1074) is not between 1e+06 and 1e+11 Bq",
        ),
        ({"RadionuclideHalfLife": None}, "Radionuclide Half Life (0018,1075) is missing"),
        # Minutes.
        ({"RadionuclideHalfLife": "109.77"}, "Radionuclide Half Life (0018,1075) cannot be right"),
        (
            {"RadiopharmaceuticalStartTime": None},
            "Start DateTime (0018,1078) and Start Time (0018,1072) are missing",
        ),
        ({"RadiopharmaceuticalStartDateTime": "20261101111500"}, "was given -900 s before the time"),
        ({"RadiopharmaceuticalStartDateTime": "20251101100000"}, "was given 31539600 s before the time"),
    ],
)
def test_what_cannot_be_of_the_isotope_is_named(
    tmp_path: Path, changes: dict[str, Any], complaint: str
) -> None:
    made = pet.series(RadiopharmaceuticalInformationSequence=[pet.isotope(**changes)])
    assert complaint in refused(made, tmp_path)


def test_images_that_disagree_are_refused(tmp_path: Path) -> None:
    made = pet.series()
    made[2].PatientWeight = 75
    assert "Patient's Weight (0010,1030) differs from image to image" in refused(made, tmp_path)


def test_a_broken_header_is_refused_and_not_guessed(tmp_path: Path) -> None:
    made = pet.series()
    for ds in made:
        ds.RadiopharmaceuticalInformationSequence[0].add_new(0x00181074, "LO", "much")
    refused(made, tmp_path)


def test_the_window_of_the_header_is_of_other_values(tmp_path: Path) -> None:
    made = pet.series(WindowCenter="16000", WindowWidth="32000")
    found = read(made, tmp_path)
    assert found.volume.window == (0, 10)
    assert display.window(found.datasets[0]) == (0, 32000)
