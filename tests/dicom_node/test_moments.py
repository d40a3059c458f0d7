"""Series that hold several volumes at one place are read into the volumes that are wanted, or refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from dicom_node.errors import SeriesError
from dicom_node.moments import Wanted
from dicom_node.series import SeriesImages, read_series
from engines import moments as engine
from engines.manifest_inputs import Moments
from tests.support import enhanced, moments, pet, phantoms

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def wanted(**keys: Any) -> Wanted:
    entry = Moments.model_validate(keys)
    return Wanted(by=entry.by, choice=engine.choice(entry))


def read(made: list[Dataset], folder: Path, **keys: Any) -> SeriesImages:
    return read_series(phantoms.write(made, folder), wanted=wanted(**keys))


def refused(made: list[Dataset], folder: Path, **keys: Any) -> SeriesError:
    with pytest.raises(SeriesError) as caught:
        read(made, folder, **keys)
    return caught.value


def holds(found: SeriesImages, *expected: int) -> None:
    """The volumes are those of the moments `expected`, and the headers those of the first of them."""
    arrays = (found.volume.array, *found.volume.further)
    assert len(arrays) == len(expected) and {array.dtype for array in arrays} == {np.dtype(np.int16)}
    for array, moment in zip(arrays, expected, strict=True):
        np.testing.assert_array_equal(array, moments.array(moment))
    numbers = [int(ds.InstanceNumber) for ds in found.datasets]
    assert numbers == [1 + moments.SHAPE[0] * expected[0] + place for place in range(moments.SHAPE[0])]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (moments.identified, "1 of 4 (0 s), 2 of 4 (62 s), 4 of 4 (186 s)"),
        (moments.timed, "1 of 4 (0 s), 2 of 4 (62 s), 4 of 4 (186 s)"),
        (moments.sliced, "1 of 4 (0 s), 2 of 4 (30 s), 4 of 4 (90 s)"),
        (moments.triggered, "1 of 4 (0 s), 2 of 4 (41.5 s), 4 of 4 (124.5 s)"),
        (moments.numbered, "1 of 4, 2 of 4, 4 of 4"),
    ],
)
def test_a_dynamic_series_is_its_moments_in_order_of_time(
    tmp_path: Path, change: moments.Change, said: str
) -> None:
    found = read(moments.series(4, change), tmp_path, by="time", take=["first", 2, "last"])
    holds(found, 0, 1, 3)
    assert f"looked at by time: {said}" in found.notes


def test_the_results_lie_on_the_first_moment_that_is_looked_at(tmp_path: Path) -> None:
    found = read(moments.series(3, moments.identified), tmp_path, by="time", take=["last", "first"])
    holds(found, 2, 0)


def test_b_values_are_told_apart_wherever_they_stand(tmp_path: Path) -> None:
    values = (800, 0, 400)
    for vendor, change in {
        "standard": moments.weighted(values),
        "siemens": private(0x0019, "SIEMENS MR HEADER", 0x0C, "IS", values),
        "ge": private(0x0043, "GEMS_PARM_01", 0x39, "IS", [[10**9 + int(b), 8, 0, 0] for b in values]),
        "philips": private(0x2001, "Philips Imaging DD 001", 0x03, "FL", values),
    }.items():
        made = moments.series(3, change)
        found = read(made, tmp_path / vendor, by="b-value", take=["first", "last"])
        holds(found, 1, 0)
        assert "looked at by b-value: 1 of 3 (b 0), 3 of 3 (b 800)" in found.notes


def test_the_b_values_that_a_model_was_trained_on_are_found_among_others(tmp_path: Path) -> None:
    made = moments.series(4, moments.weighted((1000, 0, 750, 50)))
    found = read(made, tmp_path, by="b-value", at=[0, 800], within=100)
    holds(found, 1, 2)
    error = refused(made, tmp_path, by="b-value", at=[0, 400], within=100)
    assert error.reason == "too-few-moments"
    assert (
        str(error)
        == "The series has no volume of its own within 100 of b-value 400; it has 0, 50, 750, 1000."
    )


def private(group: int, creator: str, element: int, vr: str, values: Any) -> moments.Change:
    def change(ds: Dataset, moment: int) -> None:
        value = values[moment]
        ds.private_block(group, creator, create=True).add_new(
            element, vr, value if vr == "FL" or isinstance(value, list) else int(value)
        )

    return change


def test_echoes_are_told_apart(tmp_path: Path) -> None:
    found = read(moments.series(2, moments.echoing((4.6, 2.3))), tmp_path, by="echo-time", count=2)
    holds(found, 1, 0)
    assert "looked at by echo-time: 1 of 2 (2.3 ms), 2 of 2 (4.6 ms)" in found.notes


def test_frames_of_an_enhanced_image_are_moments_too(tmp_path: Path) -> None:
    ds = enhanced.image(moments.series(3, lambda *_: None), modality="MR")
    for place, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.FrameContentSequence[0].TemporalPositionIndex = place % 3 + 1
        group.TemporalPositionSequence = [enhanced.item(TemporalPositionTimeOffset=45.0 * (place % 3))]
    found = read([ds], tmp_path, by="time", take=[2, "last"])
    np.testing.assert_array_equal(found.volume.array, moments.array(1))
    np.testing.assert_array_equal(found.volume.further[0], moments.array(2))
    # Every third frame, from the second one on
    assert [each.frame_number for each in found.datasets] == [2, 5, 8, 11, 14]
    assert "looked at by time: 2 of 3 (45 s), 3 of 3 (90 s)" in found.notes


def test_frames_of_a_dynamic_pet_are_suv_each_with_its_own_slopes(tmp_path: Path) -> None:
    # Given three frames of a minute, all decay-corrected to the start of the first
    made = []
    for moment in range(3):
        for ds in pet.series(AcquisitionTime=f"110{moment}00", FrameReferenceTime=30e3 + 60e3 * moment):
            ds.RescaleSlope *= 1 + moment
            ds.SeriesInstanceUID, ds.FrameOfReferenceUID = "1.2.3", "1.2.3.0"
            ds.StudyInstanceUID = "1.2"
            made.append(ds)
    entry = wanted(by="time", take=["last", "first"])
    found = read_series(phantoms.write(made, tmp_path), values="SUVbw", wanted=entry)
    # Then each is SUV: activity, by the dose that was left at the start of the scan and the weight
    left = pet.DOSE * 2 ** (-3600 / pet.HALF_LIFE)
    expected = pet.activity() * pet.WEIGHT * 1000 / left
    np.testing.assert_allclose(found.volume.array, 3 * expected, rtol=1e-5)
    np.testing.assert_allclose(found.volume.further[0], expected, rtol=1e-5)
    assert found.volume.unit == "g/ml{SUVbw}"
    assert "looked at by time: 3 of 3 (120 s), 1 of 3 (0 s)" in found.notes


def test_one_frame_of_a_pet_is_judged_by_the_times_of_all(tmp_path: Path) -> None:
    # Given a series that was made again later: its own time is before the last frame, and after the first
    made = []
    for moment in range(3):
        for ds in pet.series(AcquisitionTime=f"11{moment}000", SeriesTime="111500", FrameReferenceTime=None):
            ds.SeriesInstanceUID, ds.FrameOfReferenceUID, ds.StudyInstanceUID = "1.2.3", "1.2.3.0", "1.2"
            made.append(ds)
    for take in (["first"], ["last"]):
        folder = phantoms.write(made, tmp_path / take[0])
        with pytest.raises(SeriesError) as caught:
            read_series(folder, values="SUVbw", wanted=wanted(by="time", take=take))
        assert caught.value.reason == "no-suv"


def lacking(number: int) -> list[Dataset]:
    """Four moments of five slices, without the image of that number."""
    return [ds for ds in moments.series(4, moments.identified) if ds.InstanceNumber != number]


@pytest.mark.parametrize("number", [11, 13])
def test_a_moment_that_lacks_a_slice_is_named(tmp_path: Path, number: int) -> None:
    error = refused(lacking(number), tmp_path, by="time", count=4)
    assert error.reason == "missing-slice"
    place = 100 + 2.5 * (number - 11)
    assert f"moment 3 of 4 (124 s) lacks 1 of 5 slices: that at (-30.00, -20.00, {place:.2f}) mm" in str(
        error
    )
    assert f"Series {moments.journeys.SERIES}:" in str(error)


def test_a_moment_may_not_be_shorter_than_others_either(tmp_path: Path) -> None:
    error = refused(lacking(1), tmp_path, by="time", take=["first"])
    assert error.reason == "missing-slice"
    assert "moment 1 of 4 (0 s) lacks 1 of 5 slices" in str(error)


def test_slices_of_unlike_b_values_are_no_volume(tmp_path: Path) -> None:
    # Given one image at each place, half of them b 0 and half b 800
    made = moments.series(2, moments.weighted((0, 800)))
    mixed = [ds for ds in made if (ds.InstanceNumber - 1) % 5 < 2][:2]
    mixed += [ds for ds in made if (ds.InstanceNumber - 1) % 5 >= 2][-3:]
    error = refused(mixed, tmp_path, by="b-value", count=1)
    assert error.reason == "missing-slice"


def test_a_series_of_one_b_value_says_which(tmp_path: Path) -> None:
    made = moments.series(1, moments.weighted((800,)))
    holds(read(made, tmp_path / "at", by="b-value", at=[800], within=50), 0)
    assert refused(made, tmp_path / "other", by="b-value", at=[0], within=50).reason == "too-few-moments"


def test_a_moment_that_nobody_looks_at_may_be_incomplete(tmp_path: Path) -> None:
    holds(read(lacking(13), tmp_path, by="time", take=["first", "last"]), 0, 3)


def test_too_few_moments_are_refused(tmp_path: Path) -> None:
    error = refused(moments.series(2, moments.identified), tmp_path, by="time", take=["first", 2, "last"])
    assert error.reason == "too-few-moments"
    assert "The series has 2 volumes by time; the model needs 3, of which it looks at 3" in str(error)
    alone = refused(moments.series(1, moments.sliced), tmp_path / "alone", by="time", count=2)
    assert "The series has 1 volume by time; the model needs 2" in str(alone)


def twice(change: Callable[[Dataset], None]) -> list[Dataset]:
    """Three moments, one image of the second a second time under another UID, changed."""
    made = moments.series(3, moments.identified)
    again = next(ds for ds in moments.series(3, moments.identified) if ds.InstanceNumber == 8)
    again.SOPInstanceUID = again.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    change(again)
    return [*made, again]


def test_two_unlike_images_at_one_time_and_place_are_refused(tmp_path: Path) -> None:
    def other_pixels(ds: Dataset) -> None:
        ds.PixelData = bytes(len(ds.PixelData))

    error = refused(twice(other_pixels), tmp_path, by="time", count=3)
    assert error.reason == "repeated-position"
    assert str(error).startswith("Moment 2 of 3 (62 s): 1 of the series' positions have more than one image")


def test_a_copy_of_an_image_at_its_time_and_place_is_left_out(tmp_path: Path) -> None:
    found = read(twice(lambda _: None), tmp_path, by="time", count=3)
    holds(found, 0, 1, 2)
    assert "moment 2 of 3 (62 s): 1 image left out: a copy of another image at its position" in found.notes


def test_moments_that_look_alike_are_no_copies(tmp_path: Path) -> None:
    made = moments.series(2, moments.identified)
    for ds in made:
        ds.PixelData = made[0].PixelData
    found = read(made, tmp_path, by="time", count=2)
    assert len(found.volume.further) == 1
    np.testing.assert_array_equal(found.volume.array, found.volume.further[0])


def test_images_that_do_not_say_their_moment_are_refused(tmp_path: Path) -> None:
    error = refused(moments.series(2, lambda *_: None), tmp_path, by="b-value", count=2)
    assert error.reason == "unknown-moments"
    assert "up to 2 images at one place" in str(error) and "Diffusion b-value or Siemens'" in str(error)


def test_directions_of_one_b_value_are_refused(tmp_path: Path) -> None:
    error = refused(moments.series(3, moments.weighted((0, 800, 800))), tmp_path, by="b-value", count=2)
    assert error.reason == "repeated-position"
    assert str(error).startswith("Moment 2 of 2 (b 800): 5 of the series' positions have more than one image")


def directed(*kinds: str) -> moments.Change:
    """b 0, then b 800 in directions and as their trace."""

    def change(ds: Dataset, moment: int) -> None:
        moments.weighted([0] + [800] * (len(kinds) - 1))(ds, moment)
        ds.add_new(0x00189075, "CS", kinds[moment])

    return change


def test_of_directions_and_their_trace_the_trace_is_looked_at(tmp_path: Path) -> None:
    kinds = ("NONE", "DIRECTIONAL", "DIRECTIONAL", "ISOTROPIC")
    found = read(moments.series(4, directed(*kinds)), tmp_path, by="b-value", count=2)
    holds(found, 0, 3)
    assert "10 images of single diffusion directions set aside: there are trace images" in found.notes


def test_a_trace_of_another_b_value_is_no_trace(tmp_path: Path) -> None:
    # Given b-values in a private attribute, and a trace image of b 1000 alone
    numbers = private(0x0043, "GEMS_PARM_01", 0x39, "IS", [[b, 8, 0, 0] for b in (0, 500, 1000)])

    def change(ds: Dataset, moment: int) -> None:
        numbers(ds, moment)
        ds.add_new(0x00189075, "CS", ("NONE", "DIRECTIONAL", "ISOTROPIC")[moment])

    found = read(moments.series(3, change), tmp_path, by="b-value", take=[2])
    holds(found, 1)


def test_directions_without_a_trace_at_each_place_are_refused(tmp_path: Path) -> None:
    made = moments.series(3, directed("NONE", "DIRECTIONAL", "ISOTROPIC"))
    incomplete = [ds for ds in made if ds.InstanceNumber != 12]
    error = refused(incomplete, tmp_path, by="b-value", count=2)
    assert error.reason == "repeated-position"


def test_volumes_that_were_moved_against_each_other_are_refused(tmp_path: Path) -> None:
    def moved(ds: Dataset, moment: int) -> None:
        moments.identified(ds, moment)
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x + 3 * moment, y, z]

    error = refused(moments.series(2, moved), tmp_path, by="time", count=2)
    assert error.reason == "unlike-moments"
    assert "moment 2 of 2 (62 s) do not lie where those of moment 1 of 2 (0 s) do" in str(error)


@pytest.mark.parametrize("moved", [(1,), (0, 2)])
def test_volumes_that_lie_between_the_slices_of_others_are_refused(
    tmp_path: Path, moved: tuple[int, ...]
) -> None:
    def change(ds: Dataset, moment: int) -> None:
        moments.identified(ds, moment)
        x, y, z = ds.ImagePositionPatient
        ds.ImagePositionPatient = [x, y, z + 0.5 * (moment in moved)]

    error = refused(moments.series(4, change), tmp_path, by="time", count=2)
    assert error.reason == "unlike-moments"
    assert "4 volumes by Temporal Position Identifier, and at most" in str(error)


def test_who_asks_for_no_moments_is_refused_and_told_of_them(tmp_path: Path) -> None:
    with pytest.raises(
        SeriesError, match=r"several points in time.*manifest which it looks at \(moments\)"
    ) as caught:
        read_series(phantoms.write(moments.series(2, moments.identified), tmp_path))
    assert caught.value.reason == "repeated-position"
