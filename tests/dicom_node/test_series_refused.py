"""What is no volume is refused by a stable word, and by a message without patient data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import ComprehensiveSRStorage, CTImageStorage

from dicom_node.errors import SeriesError
from dicom_node.series import read_series
from tests.support import phantoms
from tests.support.phantoms import Phantom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

PHANTOM = Phantom(patient_id="SECRET-7", patient_name="Secret^Name")


def refusal(paths: list[Path]) -> SeriesError:
    with pytest.raises(SeriesError) as caught:
        read_series(paths)
    message = str(caught.value)
    assert "SECRET" not in message.upper()
    assert message.endswith(".")
    return caught.value


def refused(made: list[Dataset], folder: Path) -> SeriesError:
    return refusal(phantoms.write(made, folder))


def each(change: Callable[[Dataset], None], images: slice = slice(None)) -> list[Dataset]:
    made = phantoms.datasets(PHANTOM)
    for ds in made[images]:
        change(ds)
    return made


def setting(**values: object) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


def alternating(keyword: str, *values: str) -> Callable[[Dataset], None]:
    """One value after the other, image by image."""

    def change(ds: Dataset) -> None:
        setattr(ds, keyword, values[int(ds.InstanceNumber) % len(values)])

    return change


def without(*keywords: str) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        for keyword in keywords:
            delattr(ds, keyword)

    return change


def shift(ds: Dataset, *, by: tuple[float, float, float]) -> None:
    ds.ImagePositionPatient = [float(a) + b for a, b in zip(ds.ImagePositionPatient, by, strict=True)]


ONE = slice(3, 4)
HALF = slice(6, None)
MANY: dict[str, tuple[str, Callable[[Dataset], None], slice]] = {
    "two patients": ("mixed-patient", setting(PatientID="SECRET-8"), HALF),
    "no patient on one": ("mixed-patient", without("PatientID"), ONE),
    "one ID of two issuers": (
        "mixed-patient",
        alternating("IssuerOfPatientID", "NORTH", "SOUTH"),
        slice(None),
    ),
    "one ID of two ages": ("mixed-patient", setting(PatientBirthDate="19990101"), HALF),
    "no ID and two names": (
        "mixed-patient",
        lambda ds: (setting(PatientID="")(ds), alternating("PatientName", "SECRET^A", "SECRET^B")(ds))[0],
        slice(None),
    ),
    "two studies": ("mixed-study", setting(StudyInstanceUID="1.2.3"), HALF),
    "two series": ("mixed-series", setting(SeriesInstanceUID="1.2.3"), ONE),
    "two frames of reference": ("mixed-frame-of-reference", setting(FrameOfReferenceUID="1.2.3"), HALF),
    "no position": ("no-geometry", without("ImagePositionPatient"), ONE),
    "empty position": ("no-geometry", setting(ImagePositionPatient=None), ONE),
    "no orientation": ("no-geometry", without("ImageOrientationPatient"), slice(None)),
    "no spacing": ("no-geometry", without("PixelSpacing"), slice(None)),
    "zero spacing": ("no-geometry", setting(PixelSpacing=[0, 0.7]), slice(None)),
    "tiny spacing": ("implausible-spacing", setting(PixelSpacing=[1e-9, 1e-9]), slice(None)),
    "huge spacing": ("implausible-spacing", setting(PixelSpacing=[0.7, 1000]), slice(None)),
    "two numbers of position": ("no-geometry", setting(ImagePositionPatient=[1, 2]), ONE),
    "no unit vectors": ("no-geometry", setting(ImageOrientationPatient=[2, 0, 0, 0, 1, 0]), slice(None)),
    "zero orientation": ("no-geometry", setting(ImageOrientationPatient=[0] * 6), slice(None)),
    "one turned slice": ("mixed-orientation", setting(ImageOrientationPatient=[0, 1, 0, -1, 0, 0]), ONE),
    "spacing of one differs": ("mixed-size", setting(PixelSpacing=[0.8, 0.8]), ONE),
    "many frames": ("multi-frame", setting(NumberOfFrames=2), slice(None)),
    "colour": ("colour", setting(SamplesPerPixel=3, PhotometricInterpretation="RGB"), slice(None)),
    "palette colour": ("colour", setting(PhotometricInterpretation="PALETTE COLOR"), ONE),
    "inverted": ("inverted-grey", setting(PhotometricInterpretation="MONOCHROME1"), slice(None)),
    "no pixels": ("no-pixel-data", without("PixelData"), ONE),
    "empty pixels": ("no-pixel-data", setting(PixelData=b""), ONE),
    "too few pixels": ("truncated", setting(PixelData=bytes(1000)), ONE),
    "more pixels than memory": (
        "truncated",
        setting(Rows=65535, Columns=65535, PixelData=bytes(512)),
        slice(None),
    ),
    "one bit": ("undecodable", setting(BitsAllocated=1, BitsStored=1, HighBit=0), slice(None)),
    "impossible bits": ("undecodable", setting(BitsStored=20), ONE),
    "no rows": ("undecodable", setting(Rows=0), ONE),
    "slope of zero": ("non-finite", setting(RescaleSlope=0), ONE),
    "infinite slope": ("non-finite", setting(RescaleSlope="1e308"), slice(None)),
}


@pytest.mark.parametrize("name", MANY)
def test_a_series_that_is_no_volume_is_refused_by_name(name: str, tmp_path: Path) -> None:
    reason, change, images = MANY[name]
    assert refused(each(change, images), tmp_path).reason == reason


def test_no_files() -> None:
    assert refusal([]).reason == "no-files"


def test_one_slice(tmp_path: Path) -> None:
    assert refused(phantoms.datasets(PHANTOM)[:1], tmp_path).reason == "single-slice"


def test_one_slice_and_its_localizers(tmp_path: Path) -> None:
    made = each(setting(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), slice(1, None))
    assert refused(made, tmp_path).reason == "single-slice"


def test_slices_that_lie_a_metre_apart(tmp_path: Path) -> None:
    made = phantoms.datasets(PHANTOM)
    for number, ds in enumerate(made):
        ds.ImagePositionPatient = [0, 0, 1000 * number]
    assert refused(made, tmp_path).reason == "implausible-spacing"


def test_missing_slices_are_placed_and_counted(tmp_path: Path) -> None:
    made = phantoms.datasets(Phantom(shape=(20, 16, 16)))
    del made[13], made[5:7]
    error = refused(made, tmp_path)
    assert error.reason == "missing-slice"
    message = str(error)
    assert "3 slices are missing (spacing 2.50 mm)" in message
    assert "2 between image 5 at (-30.00, -20.00, 110.00) mm and image 8 at" in message
    assert "1 between image 13" in message


def test_a_real_series_with_a_missing_slice(data: Path) -> None:
    error = refusal(sorted((data / "mr_missing_slice").glob("*.dcm")))
    assert error.reason == "missing-slice"
    assert "1 slice is missing" in str(error)
    assert "image 7" in str(error) and "image 5" in str(error)


def test_uneven_slices(tmp_path: Path) -> None:
    made = phantoms.datasets(PHANTOM)
    for index, ds in enumerate(made):
        shift(ds, by=(0, 0, 0.1 * index * index))
    assert refused(made, tmp_path).reason == "irregular-spacing"


def test_two_spacings_in_one_series(tmp_path: Path) -> None:
    """5 mm through the skull base, 10 mm above: not missing slices, but uneven ones."""
    made = phantoms.datasets(Phantom(spacing=(5.0, 0.8, 0.7)))
    for index, ds in enumerate(made):
        shift(ds, by=(0, 0, 5.0 * max(index - 6, 0)))
    assert refused(made, tmp_path).reason == "irregular-spacing"


def test_spacing_that_creeps(tmp_path: Path) -> None:
    """Each gap within its tolerance, but the slices far from where an even grid puts them."""
    made = phantoms.datasets(Phantom(shape=(60, 8, 8), spacing=(1.0, 0.8, 0.7)))
    for index, ds in enumerate(made):
        shift(ds, by=(0, 0, 0.0008 * index * index))
    assert refused(made, tmp_path).reason == "irregular-spacing"


def test_a_tilted_gantry(tmp_path: Path) -> None:
    """Slices stay vertical to the table's z while the table moves along z: they shear."""
    made = phantoms.datasets(Phantom(orientation=(1.0, 0.0, 0.0, 0.0, 0.9510565, -0.309017)))
    for index, ds in enumerate(made):
        ds.ImagePositionPatient = [-30, -20, 100 + 2.5 * index]
    error = refused(made, tmp_path)
    assert error.reason == "gantry-tilt"
    assert "18.0 degrees" in str(error)


def test_unlike_images_at_one_position(tmp_path: Path) -> None:
    made = phantoms.datasets(PHANTOM)
    second = phantoms.datasets(PHANTOM, phantoms.asymmetric(PHANTOM.shape) + np.int16(5))
    for first, ds in zip(made, second, strict=True):
        ds.StudyInstanceUID, ds.SeriesInstanceUID = first.StudyInstanceUID, first.SeriesInstanceUID
        ds.FrameOfReferenceUID = first.FrameOfReferenceUID
    error = refused([*made, *second], tmp_path)
    assert error.reason == "repeated-position"
    assert "12 of the series' positions" in str(error)


def test_unlike_images_of_one_uid(tmp_path: Path) -> None:
    made = phantoms.datasets(PHANTOM)
    made[7].SOPInstanceUID = made[3].SOPInstanceUID
    made[7].file_meta.MediaStorageSOPInstanceUID = made[3].SOPInstanceUID
    assert refused(made, tmp_path).reason == "repeated-instance"


def test_slices_of_unlike_size(tmp_path: Path) -> None:
    made = phantoms.datasets(PHANTOM)
    small = phantoms.datasets(Phantom(shape=(12, 16, 16)))[3]
    made[3].Rows, made[3].Columns, made[3].PixelData = 16, 16, small.PixelData
    error = refused(made, tmp_path)
    assert error.reason == "mixed-size"
    assert "11 of 32 x 40, 1 of 16 x 16" in str(error)


def test_a_report_among_images(tmp_path: Path) -> None:
    made = phantoms.datasets(PHANTOM)
    report = made[2]
    del report.PixelData, report.Rows, report.Columns, report.FrameOfReferenceUID
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = ComprehensiveSRStorage
    error = refused(made, tmp_path)
    assert error.reason == "not-an-image"
    assert "1 of 12" in str(error)


def test_a_lookup_table_in_place_of_slope_and_intercept(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType, table.LUTData = [2, 0, 16], "HU", b"\0\0\1\0"
    table["LUTDescriptor"].VR = "US"
    made = each(setting(ModalityLUTSequence=Sequence([table])))
    assert refused(made, tmp_path).reason == "modality-lut"


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\0" * 5000, b"\0" * 128 + b"DICM", b"\0" * 128 + b"DICMxyz" * 99]
)
def test_bytes_that_are_no_dicom(content: bytes, tmp_path: Path) -> None:
    paths = phantoms.write(phantoms.datasets(PHANTOM), tmp_path)
    paths[5].write_bytes(content)
    error = refusal(paths)
    assert error.reason in ("not-dicom", "truncated")
    assert "File 6 of 12" in str(error)


def test_a_missing_file(tmp_path: Path) -> None:
    assert refusal([tmp_path / "SECRET.dcm"]).reason == "not-dicom"


@pytest.mark.parametrize("kept", [0.2, 0.5, 0.99])
def test_a_file_that_is_cut_off(kept: float, tmp_path: Path) -> None:
    paths = phantoms.write(phantoms.datasets(PHANTOM), tmp_path)
    content = paths[5].read_bytes()
    paths[5].write_bytes(content[: int(len(content) * kept)])
    error = refusal(paths)
    assert error.reason == "truncated"
    assert "cut off" in str(error)


def test_phantoms_themselves_are_fine(tmp_path: Path) -> None:
    """So that every refusal above is owed to its own change."""
    images = read_series(phantoms.write(phantoms.datasets(PHANTOM), tmp_path))
    assert images.datasets[0].SOPClassUID == CTImageStorage
