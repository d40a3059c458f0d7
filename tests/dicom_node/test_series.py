"""Files of a series become exactly the array and the affine they were made from."""

from __future__ import annotations

import random
import sys
from dataclasses import replace
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_node.series import HOUNSFIELD, SeriesImages, read_series
from tests.support import phantoms
from tests.support.phantoms import Phantom

#: Row direction 30 degrees out of x, column direction tilted to the head.
OBLIQUE = (0.8660254, 0.5, 0.0, -0.25, 0.4330127, -0.8660254)

ACQUISITIONS = {
    "axial": Phantom(),
    "coronal": Phantom(orientation=phantoms.CORONAL),
    "sagittal": Phantom(orientation=phantoms.SAGITTAL),
    "feet first prone": Phantom(orientation=phantoms.FEET_FIRST_PRONE),
    "oblique": Phantom(orientation=OBLIQUE),
    "magnetic resonance": Phantom(modality="MR"),
}


def read(made: list[Dataset], folder: Path) -> SeriesImages:
    """Write the images under names and in an order that say nothing, and read them."""
    made = list(made)
    random.Random(7).shuffle(made)
    return read_series(phantoms.write(made, folder))


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_a_shuffled_series_reads_as_it_was_made(name: str, tmp_path: Path) -> None:
    phantom = ACQUISITIONS[name]
    images = read(phantoms.datasets(phantom), tmp_path)
    assert np.array_equal(images.volume.array, phantoms.asymmetric(phantom.shape))
    np.testing.assert_allclose(images.volume.geometry.affine, phantoms.affine(phantom), atol=2e-6)
    assert images.notes == ()


@pytest.mark.parametrize("name", ACQUISITIONS)
def test_slices_against_the_normal_are_turned_round(name: str, tmp_path: Path) -> None:
    """Axis 0 ascends along row x column whichever way the table moved."""
    phantom = replace(ACQUISITIONS[name], slice_sign=-1)
    images = read(phantoms.datasets(phantom), tmp_path)
    made, turned = phantoms.affine(phantom), images.volume.geometry.affine
    assert np.array_equal(images.volume.array, phantoms.asymmetric(phantom.shape)[::-1])
    np.testing.assert_allclose(turned[:, 3], made @ [phantom.shape[0] - 1, 0, 0, 1], atol=1e-5)
    np.testing.assert_allclose(turned[:, 0], -made[:, 0], atol=2e-6)
    # (column, row, slice) is right-handed for every series.
    assert np.linalg.det(turned[:3, [2, 1, 0]]) > 0


def test_neither_patient_position_nor_instance_number_matter(tmp_path: Path) -> None:
    phantom = Phantom()
    made = phantoms.datasets(phantom)
    for index, ds in enumerate(made):
        ds.PatientPosition = "FFP"
        ds.InstanceNumber = (index * 5) % 12
    images = read(made, tmp_path)
    np.testing.assert_allclose(images.volume.geometry.affine, phantoms.affine(phantom), atol=2e-6)


def test_the_volume_equals_that_of_highdicom(tmp_path: Path) -> None:
    """An implementation of its own; its slice axis may run the other way."""
    paths = phantoms.write(phantoms.datasets(ACQUISITIONS["oblique"]), tmp_path)
    ours = read_series(paths).volume
    theirs = highdicom.get_volume_from_series([pydicom.dcmread(path) for path in paths], dtype=np.float32)
    affine, array = np.array(theirs.affine), theirs.array
    if affine[:3, 0] @ ours.geometry.affine[:3, 0] < 0:
        affine[:, 3] += affine[:, 0] * (len(array) - 1)
        affine[:, 0] *= -1
        array = array[::-1]
    assert np.array_equal(ours.array, array)
    np.testing.assert_allclose(ours.geometry.affine, affine, atol=1e-5)


def test_headers_follow_the_slices_and_hold_no_pixels(tmp_path: Path) -> None:
    phantom = Phantom()
    made = phantoms.datasets(phantom)
    for ds in made:
        # An overlay and a private blob are bulk too: a series of them would fill the memory.
        ds.add_new((0x6000, 0x3000), "OW", bytes(200_000))
        block = ds.private_block(0x0029, "BLOB", create=True)
        block.add_new(0x10, "OB", bytes(200_000))
    images = read(made, tmp_path)
    assert [ds.SOPInstanceUID for ds in images.datasets] == [ds.SOPInstanceUID for ds in made]
    assert all("PixelData" not in ds for ds in images.datasets)
    held = sum(sys.getsizeof(element.value) for ds in images.datasets for element in ds)
    assert held < 30_000 * len(made)


def test_frame_of_reference_and_unit_travel_with_the_volume(tmp_path: Path) -> None:
    made = phantoms.datasets(Phantom())
    volume = read(made, tmp_path).volume
    assert volume.geometry.frame_of_reference_uid == made[0].FrameOfReferenceUID
    assert volume.unit == HOUNSFIELD
    assert volume.array.dtype == np.int16


def test_magnetic_resonance_has_no_unit(tmp_path: Path) -> None:
    assert read(phantoms.datasets(Phantom(modality="MR")), tmp_path).volume.unit == "1"


def test_a_rescale_type_that_is_not_hu_is_no_hu(tmp_path: Path) -> None:
    made = phantoms.datasets(Phantom())
    for ds in made:
        ds.RescaleType = "MGML"
    images = read(made, tmp_path)
    assert images.volume.unit == "1"
    assert "not HU" in images.notes[0]


def test_ct_without_rescale_is_not_called_hu(tmp_path: Path) -> None:
    made = phantoms.datasets(Phantom())
    for ds in made:
        del ds.RescaleSlope, ds.RescaleIntercept, ds.RescaleType
    images = read(made, tmp_path)
    assert images.volume.unit == "1"
    assert images.volume.array.min() == 24
    assert "no rescale" in images.notes[0]


def test_slope_and_intercept_of_each_slice_are_its_own(tmp_path: Path) -> None:
    phantom = Phantom(modality="PT")
    made = phantoms.datasets(phantom)
    for index, ds in enumerate(made):
        ds.RescaleSlope, ds.RescaleIntercept = f"{0.5 * (index + 1):g}", str(-index)
    images = read(made, tmp_path)
    slopes = 0.5 * np.arange(1, 13, dtype=np.float32)[:, None, None]
    intercepts = np.arange(12, dtype=np.float32)[:, None, None]
    stored = phantoms.asymmetric(phantom.shape) + 1024
    assert images.volume.array.dtype == np.float32
    assert np.array_equal(images.volume.array, stored * slopes - intercepts)


def test_instance_numbers_may_be_missing(tmp_path: Path) -> None:
    made = phantoms.datasets(Phantom())
    for ds in made:
        del ds.InstanceNumber
    images = read(made, tmp_path)
    assert np.array_equal(images.volume.array, phantoms.asymmetric((12, 32, 40)))
    assert "no Instance Number" in images.notes[0]


def test_a_name_that_was_spelt_anew_is_the_same_patient(tmp_path: Path) -> None:
    made = phantoms.datasets(phantoms.Phantom())
    made[3].PatientName = "Phantom^Assymetric"
    del made[4].PatientBirthDate
    made[5].IssuerOfPatientID = "NORTH"
    assert len(read_series(phantoms.write(made, tmp_path)).datasets) == 12


def test_localizers_are_set_aside(tmp_path: Path) -> None:
    made = phantoms.datasets(Phantom())
    scout = phantoms.datasets(Phantom(orientation=phantoms.CORONAL, shape=(1, 64, 64)))[0]
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        setattr(scout, keyword, made[0][keyword].value)
    images = read([scout, *made], tmp_path)
    assert images.volume.geometry.shape == (12, 32, 40)
    assert images.notes == ("1 localizer image set aside",)


def test_an_instance_sent_twice_counts_once(tmp_path: Path) -> None:
    made = phantoms.datasets(Phantom())
    images = read([*made, made[4]], tmp_path)
    assert images.volume.geometry.shape == (12, 32, 40)
    assert images.notes == ("1 image left out: sent twice",)


def test_a_copy_under_another_uid_counts_once(tmp_path: Path) -> None:
    made = phantoms.datasets(Phantom())
    copy = phantoms.datasets(Phantom())[4]
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"):
        setattr(copy, keyword, made[0][keyword].value)
    images = read([*made, copy], tmp_path)
    assert images.volume.geometry.shape == (12, 32, 40)
    assert images.notes == ("1 image left out: a copy of another image at its position",)


def test_an_anonymisers_frames_of_reference_are_taken_as_one(tmp_path: Path) -> None:
    made = phantoms.datasets(Phantom())
    for index, ds in enumerate(made):
        ds.FrameOfReferenceUID = f"1.2.3.{index}"
    images = read(made, tmp_path)
    assert images.volume.geometry.frame_of_reference_uid == "1.2.3.0"
    assert "frame of reference of its own" in images.notes[0]


def test_empty_uids_are_taken_from_the_file_meta(tmp_path: Path) -> None:
    made = phantoms.datasets(Phantom())
    uids = [str(ds.SOPInstanceUID) for ds in made]
    paths = phantoms.write(made, tmp_path)
    for path in paths:
        ds = pydicom.dcmread(path)
        ds.SOPInstanceUID = ds.SOPClassUID = None
        ds.save_as(path)
    images = read_series(paths)
    assert [str(ds.SOPInstanceUID) for ds in images.datasets] == uids
    assert "file meta" in images.notes[0]


def test_rounded_positions_are_even_enough(tmp_path: Path) -> None:
    """Scanners write 0.625 mm steps as 0.6 and 0.7."""
    made = phantoms.datasets(Phantom(spacing=(0.625, 0.8, 0.7), shape=(20, 16, 16)))
    for ds in made:
        ds.ImagePositionPatient = [f"{value:.2f}" for value in ds.ImagePositionPatient]
    assert read(made, tmp_path).volume.geometry.spacing[0] == pytest.approx(0.625, abs=1e-3)
