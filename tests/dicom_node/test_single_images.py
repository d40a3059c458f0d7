"""Single images as volumes of one slice: values against an independent computation, sizes, and refusals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import apply_color_lut
from pydicom.uid import ExplicitVRLittleEndian, JPEG2000Lossless, RLELossless, generate_uid

from dicom_node.errors import SeriesError
from dicom_node.series import SeriesImages, read_series
from engines.volume import Scale
from tests.support import phantoms, planar

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

DATA = Path(__file__).parent.parent / "data" / "single_images"
MARKER = planar.marker().astype(np.float64)
#: The coloured marker's luminance, written out from ITU-R BT.601.
LUMINANCE = planar.coloured() @ np.array([0.299, 0.587, 0.114])


def read(ds: Dataset, folder: Path) -> SeriesImages:
    return read_series(phantoms.write([ds], folder), planar=True)


def refused(made: list[Dataset], folder: Path, *, as_planar: bool = True) -> SeriesError:
    with pytest.raises(SeriesError) as caught:
        read_series(phantoms.write(made, folder), planar=as_planar)
    assert "Phantom" not in str(caught.value) and str(caught.value).endswith(".")
    return caught.value


def changed(ds: Dataset, **changes: Any) -> Dataset:
    """The data set with other values; None takes an element away."""
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
        if value is None:
            delattr(ds, keyword)
    return ds


# Values -------------------------------------------------------------------------------------------

VALUES: dict[str, NDArray[Any]] = {
    "CR": 1023 - MARKER * 4,
    "DX": 4095 - MARKER * 16,
    "MG": MARKER * 16,
    "US": MARKER,
    "OP": LUMINANCE,
    "SC": LUMINANCE,
    "CT": MARKER * 4 - 600,
}


@pytest.mark.parametrize("modality", planar.ALL)
def test_the_values_are_bright_where_the_image_is_bright(modality: str, tmp_path: Path) -> None:
    volume = read(planar.ALL[modality](), tmp_path).volume
    assert volume.array.shape == (1, planar.ROWS, planar.COLUMNS)
    np.testing.assert_allclose(volume.array[0], VALUES[modality], atol=1e-4)
    assert volume.unit == ("[hnsf'U]" if modality == "CT" else "1")


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_colour_has_the_same_values(syntax: pydicom.uid.UID, tmp_path: Path) -> None:
    ds = planar.op()
    if syntax == JPEG2000Lossless:
        ds.PhotometricInterpretation = "YBR_RCT"  # the encoder's own transformation of colours
    plugin = "pylibjpeg" if syntax == JPEG2000Lossless else "pydicom"
    ds.compress(syntax, planar.coloured()[None][0], encoding_plugin=plugin, generate_instance_uid=False)
    np.testing.assert_allclose(read(ds, tmp_path).volume.array[0], LUMINANCE, atol=1e-4)


def test_colours_of_sixteen_bits_have_the_same_grey(tmp_path: Path) -> None:
    ds = planar.op()
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds["PixelData"].VR, ds.PixelData = "OW", (planar.coloured().astype("<u2") * 257).tobytes()
    np.testing.assert_allclose(read(ds, tmp_path).volume.array[0], LUMINANCE, atol=1e-3)


def ybr(colours: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB as YBR_FULL, written out from PS3.3 C.7.6.3.1.2."""
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    return np.asarray(np.rint(np.clip(colours @ matrix.T + [0, 128, 128], 0, 255)), dtype=np.uint8)


def test_luminance_and_colour_differences_become_luminance(tmp_path: Path) -> None:
    stored = ybr(planar.coloured())
    by_pixel = planar.colour(planar.us(), stored, "YBR_FULL")
    by_plane = planar.colour(planar.us(), stored, "YBR_FULL")
    by_plane.PlanarConfiguration, by_plane.PixelData = 1, stored.transpose(2, 0, 1).tobytes()
    for index, ds in enumerate((by_pixel, by_plane)):
        found = read(ds, tmp_path / str(index)).volume.array[0]
        # To red, green and blue and back, in whole numbers; what has no colour in eight bits is cut off.
        np.testing.assert_allclose(found, LUMINANCE, atol=2)


def test_halved_colour_differences_are_taken_apart(tmp_path: Path) -> None:
    # Two luminances, then one pair of differences that are none: grey (PS3.3 C.7.6.3.1.2)
    stored = np.full((planar.ROWS, planar.COLUMNS // 2, 4), 128, np.uint8)
    stored[..., :2] = planar.marker().reshape(planar.ROWS, -1, 2)
    ds = planar.us()
    ds.PhotometricInterpretation, ds.PixelData = "YBR_FULL_422", stored.tobytes()
    np.testing.assert_allclose(read(ds, tmp_path).volume.array[0], MARKER, atol=1)


def with_table(entries: NDArray[Any], *, first: int, bits: int = 16) -> Dataset:
    """A CR whose values are given by a Modality LUT (PS3.3 C.11.1)."""
    table = Dataset()
    table.LUTDescriptor = [len(entries) % 65536, first, bits]
    table.ModalityLUTType = "OD"
    table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    return changed(planar.cr(), ModalityLUTSequence=[table], PhotometricInterpretation="MONOCHROME2")


def test_a_modality_lut_is_applied(tmp_path: Path) -> None:
    entries = np.arange(300, dtype=np.uint16)[::-1] * 7 + 11
    images = read(with_table(entries, first=100), tmp_path)
    index = np.clip(MARKER.astype(int) * 4 - 100, 0, 299)
    np.testing.assert_array_equal(images.volume.array[0], entries[index])
    assert "values are those of the Modality LUT (type OD)" in images.notes
    # MONOCHROME1 turns over what the table gives
    turned = changed(with_table(entries, first=100), PhotometricInterpretation="MONOCHROME1")
    np.testing.assert_array_equal(
        read(turned, tmp_path / "turned").volume.array[0], 65535 - entries[index].astype(int)
    )


def test_a_modality_lut_of_more_than_is_kept_of_other_elements_is_applied(tmp_path: Path) -> None:
    entries = (np.arange(65536) // 3 + 5).astype(np.uint16)
    path = tmp_path / "a.dcm"
    with_table(entries, first=0).save_as(path, enforce_file_format=True)
    images = read_series([path], planar=True)
    np.testing.assert_array_equal(images.volume.array[0], entries[MARKER.astype(int) * 4])


def test_a_voi_lut_is_not_applied(tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor = [1024, 0, 8]
    table.add_new("LUTData", "OW", np.zeros(1024, "<u2").tobytes())
    ds = changed(planar.cr(), VOILUTSequence=[table])
    np.testing.assert_array_equal(read(ds, tmp_path).volume.array[0], VALUES["CR"])


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    ds = planar.sc()
    ds.GreenPaletteColorLookupTableData = b"\0\0"
    error = refused([ds], tmp_path)
    assert error.reason == "undecodable" and "palette" in str(error)


@pytest.mark.parametrize(("name", "most"), [("dx_monochrome1", 255), ("us_palette_rle", 254.01)])
def test_real_images_have_the_values_that_pydicom_gives(name: str, most: float) -> None:
    ds = pydicom.dcmread(DATA / f"{name}.dcm")
    stored = ds.pixel_array
    if name == "dx_monochrome1":
        expected = 255 - stored.astype(np.float64)
    else:
        expected = apply_color_lut(stored, ds) @ np.array([0.299, 0.587, 0.114]) / 257
    found = read_series([DATA / f"{name}.dcm"], planar=True).volume.array[0]
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert found.max() <= most


# How it is shown, and what is said ----------------------------------------------------------------


def test_the_window_goes_with_the_values(tmp_path: Path) -> None:
    def window(ds: Dataset, name: str) -> tuple[float, float] | None:
        return read(ds, tmp_path / name).volume.window

    assert window(planar.mg(), "as it is") == (500, 3500)
    assert window(planar.dx(), "turned over") == (4095 - 3500, 4095 - 500)
    assert window(planar.us(), "colour") == (0, 255)
    assert window(changed(planar.mg(), WindowCenter=None, WindowWidth=None), "none") is None
    grey = planar.grey(changed(planar.sc(), WindowCenter=None), planar.marker(), bits=8)
    assert window(grey, "eight bits") == (0, 255)


def test_the_notes_say_what_became_of_the_values(tmp_path: Path) -> None:
    said = "\n".join(read(planar.dx(), tmp_path / "dx").notes)
    assert "MONOCHROME1: the values are turned over (4095 less the value)" in said
    assert "Pixel Intensity Relationship is LOG, sign -1" in said
    assert "that at the detector" in said
    assert "colour was turned into grey (luminance)" in read(planar.op(), tmp_path / "op").notes


# Size and place -----------------------------------------------------------------------------------

#: Scale, and millimetres between rows and columns.
SIZES: dict[str, tuple[Scale, tuple[float, float]]] = {
    "CR": (Scale.PLANE, (0.2, 0.25)),
    "DX": (Scale.PLANE, (0.2, 0.25)),
    "MG": (Scale.PLANE, (0.08, 0.08)),
    "US": (Scale.PLANE, (0.5, 0.4)),
    "OP": (Scale.NONE, (1, 1)),
    "SC": (Scale.NONE, (1, 1)),
    "CT": (Scale.VOLUME, (0.8, 0.7)),
}


@pytest.mark.parametrize("modality", planar.ALL)
def test_the_size_is_what_the_header_knows_and_no_more(modality: str, tmp_path: Path) -> None:
    ds = planar.ALL[modality]()
    geometry = read(ds, tmp_path).volume.geometry
    scale, spacing = SIZES[modality]
    assert geometry.scale is scale
    assert geometry.spacing[1:] == pytest.approx(spacing)
    assert geometry.pixel_area_mm2 == (None if scale is Scale.NONE else pytest.approx(np.prod(spacing)))
    assert geometry.in_patient == (modality == "CT")
    assert geometry.frame_of_reference_uid == (ds.FrameOfReferenceUID if modality == "CT" else None)
    assert (geometry.voxel_volume_mm3 is None) == (modality != "CT")


def test_a_slice_of_a_scan_lies_where_its_header_says(tmp_path: Path) -> None:
    phantom = phantoms.Phantom(shape=(1, 30, 41), orientation=phantoms.CORONAL)
    geometry = read(phantoms.datasets(phantom)[0], tmp_path).volume.geometry
    np.testing.assert_allclose(geometry.affine, phantoms.affine(phantom), atol=1e-9)


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "FrameOfReferenceUID"])
def test_a_slice_without_its_place_is_taken_as_a_plane(keyword: str, tmp_path: Path) -> None:
    geometry = read(changed(planar.ct(), **{keyword: None}), tmp_path).volume.geometry
    assert not geometry.in_patient and geometry.frame_of_reference_uid is None
    assert geometry.scale is Scale.PLANE and geometry.spacing[1:] == pytest.approx((0.8, 0.7))


def test_a_slice_that_does_not_say_how_thick_it_is_has_no_volume(tmp_path: Path) -> None:
    images = read(changed(planar.ct(), SliceThickness=None), tmp_path)
    assert images.volume.geometry.scale is Scale.PLANE
    assert images.volume.geometry.voxel_volume_mm3 is None
    assert any("how thick" in note for note in images.notes)


@pytest.mark.parametrize(
    ("changes", "spacing", "words"),
    [
        ({"PixelSpacing": [0.2, 0.25]}, (0.2, 0.25), "at the detector"),
        ({"PixelSpacing": [0.15, 0.2]}, (0.15, 0.2), "is calibrated: it differs"),
        (
            {"PixelSpacing": [0.2, 0.25], "PixelSpacingCalibrationType": "FIDUCIAL"},
            (0.2, 0.25),
            "is calibrated (FIDUCIAL)",
        ),
        ({"PixelSpacing": [0.2, 0.25], "ImagerPixelSpacing": None}, (0.2, 0.25), "nobody says"),
        ({"PixelSpacing": [0, 0]}, (0.2, 0.25), "at the detector"),
        ({"EstimatedRadiographicMagnificationFactor": "2"}, (0.1, 0.125), "magnification of 2"),
        ({"EstimatedRadiographicMagnificationFactor": "0"}, (0.2, 0.25), "at the detector"),
        ({"ImagerPixelSpacing": [0, 0]}, None, "how large its pixels are"),
    ],
)
def test_which_pixel_spacing_an_x_ray_has(
    changes: dict[str, Any], spacing: tuple[float, float] | None, words: str, tmp_path: Path
) -> None:
    images = read(changed(planar.dx(), **changes), tmp_path)
    geometry = images.volume.geometry
    assert geometry.scale is (Scale.NONE if spacing is None else Scale.PLANE)
    assert spacing is None or geometry.spacing[1:] == pytest.approx(spacing)
    assert any(words in note for note in images.notes)


@pytest.mark.parametrize(
    ("regions", "known"),
    [
        ([planar.region(), planar.region(RegionDataType=2)], True),
        ([planar.region(), planar.region(RegionSpatialFormat=4, PhysicalUnitsXDirection=4)], True),
        ([planar.region(), planar.region(PhysicalDeltaX=0.08)], False),
        ([planar.region(), planar.region(RegionSpatialFormat=3, PhysicalUnitsYDirection=7)], False),
        ([planar.region(PhysicalUnitsXDirection=0)], False),
        ([planar.region(PhysicalDeltaX=0.0)], False),
        ([planar.region(PhysicalDeltaY=-0.05)], True),
    ],
)
def test_which_pixel_spacing_an_ultrasound_image_has(
    regions: list[Dataset], known: bool, tmp_path: Path
) -> None:
    images = read(changed(planar.us(), SequenceOfUltrasoundRegions=regions), tmp_path)
    geometry = images.volume.geometry
    assert geometry.scale is (Scale.PLANE if known else Scale.NONE)
    assert not known or geometry.spacing[1:] == pytest.approx((0.5, 0.4))


def test_a_real_ultrasound_image_is_measured_by_its_region() -> None:
    images = read_series([DATA / "us_palette_rle.dcm"], planar=True)
    assert images.volume.geometry.spacing[1:] == pytest.approx((0.3305, 0.3305), abs=1e-4)
    assert any(
        note.startswith("pixel spacing is that of the calibrated region (columns ") for note in images.notes
    )


# Which image --------------------------------------------------------------------------------------


def views(make: Callable[[], Dataset] = planar.mg) -> list[Dataset]:
    """Two images of one series."""
    first, second = make(), make()
    for keyword in ("StudyInstanceUID", "SeriesInstanceUID"):
        setattr(second, keyword, first[keyword].value)
    second.InstanceNumber = 2
    return [first, second]


def test_several_images_are_refused_with_what_to_do(tmp_path: Path) -> None:
    error = refused(views(), tmp_path)
    assert error.reason == "several-images"
    assert "2 images" in str(error) and "series of its own" in str(error)


def test_an_image_for_processing_is_set_aside(tmp_path: Path) -> None:
    first, second = views()
    second.PresentationIntentType = "FOR PROCESSING"
    images = read_series(phantoms.write([first, second], tmp_path), planar=True)
    assert images.datasets[0].SOPInstanceUID == first.SOPInstanceUID
    assert "1 FOR PROCESSING images set aside" in images.notes
    # Alone it is taken
    alone = read(second, tmp_path / "alone")
    assert alone.datasets[0].SOPInstanceUID == second.SOPInstanceUID


def test_one_image_sent_twice_is_one_image(tmp_path: Path) -> None:
    ds = planar.op()
    images = read_series(phantoms.write([ds, ds], tmp_path), planar=True)
    assert "1 image left out: sent twice" in images.notes


@pytest.mark.parametrize(
    ("modality", "changes", "reason"),
    [
        ("US", {"NumberOfFrames": 30}, "multi-frame"),
        ("DX", {"PixelData": None}, "no-pixel-data"),
        ("DX", {"PixelData": bytes(100)}, "truncated"),
        ("OP", {"PixelData": bytes(100)}, "undecodable"),
        ("SC", {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0}, "undecodable"),
        ("OP", {"SamplesPerPixel": 4}, "undecodable"),
        ("OP", {"PhotometricInterpretation": "MONOCHROME2"}, "undecodable"),
        ("CR", {"PhotometricInterpretation": "HSV"}, "undecodable"),
        ("CT", {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no-geometry"),
    ],
)
def test_what_cannot_be_read_is_named(
    modality: str, changes: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    assert refused([changed(planar.ALL[modality](), **changes)], tmp_path).reason == reason


@pytest.mark.parametrize(
    ("modality", "reason"),
    [
        ("CR", "inverted-grey"),
        ("DX", "inverted-grey"),
        ("MG", "no-geometry"),
        ("US", "colour"),
        ("OP", "colour"),
        ("SC", "colour"),
        ("CT", "single-slice"),
    ],
)
def test_a_model_of_volumes_gets_none_of_them(modality: str, reason: str, tmp_path: Path) -> None:
    assert refused([planar.ALL[modality]()], tmp_path, as_planar=False).reason == reason


def test_a_series_of_slices_is_no_single_image(tmp_path: Path) -> None:
    assert refused(phantoms.datasets(phantoms.Phantom()), tmp_path).reason == "several-images"


def test_a_file_of_two_patients_is_still_a_mix_up(tmp_path: Path) -> None:
    first, second = views()
    second.PatientID, second.SOPInstanceUID = "OTHER", generate_uid()
    assert second.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert refused([first, second], tmp_path).reason == "mixed-patient"
