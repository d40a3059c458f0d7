"""A multi-frame image is the volume that its slices are as classic images."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dicom_node.frame_header import frame_number
from dicom_node.series import SeriesImages, read_series
from tests.support import enhanced, phantoms
from tests.support import results as cases
from tests.support.phantoms import Phantom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

#: An order of the frames that says nothing.
ORDER = (7, 2, 11, 0, 5, 9, 1, 10, 3, 8, 4, 6)


def shuffled(slices: Sequence[Dataset]) -> list[Dataset]:
    return [slices[index] for index in ORDER if index < len(slices)]


def read(made: list[Dataset], folder: Path) -> SeriesImages:
    return read_series(phantoms.write(made, folder))


@pytest.mark.parametrize("modality", ["CT", "MR"])
@pytest.mark.parametrize("lie", cases.LIES)
def test_the_volume_is_that_of_the_classic_series(lie: str, modality: str, tmp_path: Path) -> None:
    slices = phantoms.datasets(cases.LIES[lie])
    for ds in slices:
        ds.Modality = modality
    one = read([enhanced.image(shuffled(slices), modality)], tmp_path / "enhanced")
    many = read(slices, tmp_path / "classic")
    assert one.volume.array.dtype == many.volume.array.dtype
    assert np.array_equal(one.volume.array, many.volume.array)
    assert np.array_equal(one.volume.geometry.affine, many.volume.geometry.affine)
    assert one.volume.geometry.frame_of_reference_uid == many.volume.geometry.frame_of_reference_uid
    assert (one.volume.unit, one.notes) == (many.volume.unit, many.notes)


def test_each_slice_knows_its_frame(tmp_path: Path) -> None:
    slices = phantoms.datasets(Phantom())
    images = read([enhanced.image(shuffled(slices))], tmp_path)
    assert [frame_number(ds) for ds in images.datasets] == [ORDER.index(index) + 1 for index in range(12)]
    for ds, classic in zip(images.datasets, slices, strict=True):
        assert ds.ImagePositionPatient == classic.ImagePositionPatient
        assert ds.PixelSpacing == classic.PixelSpacing
        assert "PerFrameFunctionalGroupsSequence" not in ds
    assert len(images.instances) == 1


def test_the_parts_of_a_concatenation_are_one_volume(tmp_path: Path) -> None:
    slices = phantoms.datasets(Phantom())
    parts = enhanced.split(enhanced.image(slices), 5)
    images = read(parts[::-1], tmp_path / "parts")
    assert np.array_equal(images.volume.array, read(slices, tmp_path / "classic").volume.array)
    assert [frame_number(ds) for ds in images.datasets] == [*range(1, 6), *range(1, 8)]
    assert [ds.SOPInstanceUID for ds in images.instances] == [part.SOPInstanceUID for part in parts]


def test_files_of_one_frame_are_one_volume(tmp_path: Path) -> None:
    slices = phantoms.datasets(Phantom())
    images = read([enhanced.image([ds]) for ds in slices], tmp_path / "enhanced")
    assert np.array_equal(images.volume.array, read(slices, tmp_path / "classic").volume.array)
    # A reference to the instance is a reference to its only frame.
    assert {frame_number(ds) for ds in images.datasets} == {None}
    assert len(images.instances) == 12


def test_classic_images_beside_an_enhanced_one_are_one_volume(tmp_path: Path) -> None:
    slices = phantoms.datasets(Phantom())
    images = read([*slices[:5], enhanced.image(slices[5:])], tmp_path / "both")
    assert np.array_equal(images.volume.array, read(slices, tmp_path / "classic").volume.array)
    assert [frame_number(ds) for ds in images.datasets] == [None] * 5 + list(range(1, 8))
    assert len(images.instances) == 6


def test_each_frame_has_its_own_rescaling(tmp_path: Path) -> None:
    ds = enhanced.image(phantoms.datasets(Phantom()), "MR")
    [shared] = ds.SharedFunctionalGroupsSequence
    del shared.PixelValueTransformationSequence
    for number, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        group.PixelValueTransformationSequence = [
            enhanced.item(RescaleSlope=0.5 + number, RescaleIntercept=-number, RescaleType="US")
        ]
    array = read([ds], tmp_path).volume.array
    stored = ds.pixel_array.astype(np.float32)
    for number in range(12):
        assert np.array_equal(array[number], stored[number] * (0.5 + number) - number)


def test_a_file_sent_twice_counts_once(tmp_path: Path) -> None:
    ds = enhanced.image(phantoms.datasets(Phantom()))
    images = read([ds, ds], tmp_path)
    assert images.volume.array.shape[0] == 12
    assert images.notes == ("12 images left out: sent twice",)


def test_localizer_frames_are_set_aside(tmp_path: Path) -> None:
    slices = phantoms.datasets(Phantom())
    [scout] = phantoms.datasets(Phantom(shape=(1, 32, 40), orientation=phantoms.CORONAL))
    ds = enhanced.image([scout, *slices])
    [shared] = ds.SharedFunctionalGroupsSequence
    kinds = shared.CTImageFrameTypeSequence[0]
    del shared.CTImageFrameTypeSequence
    for number, group in enumerate(ds.PerFrameFunctionalGroupsSequence):
        own = enhanced.item(FrameType=kinds.FrameType)
        if not number:
            own.FrameType = ["ORIGINAL", "PRIMARY", "LOCALIZER", "NONE"]
        group.CTImageFrameTypeSequence = [own]
    images = read([ds], tmp_path)
    assert [frame_number(ds) for ds in images.datasets] == list(range(2, 14))
    assert images.notes == ("1 localizer image set aside",)


def as_implicit(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def as_deflated(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def as_big_endian(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()


def compressed(syntax: UID) -> Callable[[Dataset], None]:
    def encode(ds: Dataset) -> None:
        ds.compress(syntax, generate_instance_uid=False)

    return encode


def in_fragments(syntax: UID, *, table: bool, each: int) -> Callable[[Dataset], None]:
    """Of `each` fragments for a frame, and with or without a Basic Offset Table."""

    def encode(ds: Dataset) -> None:
        ds.compress(syntax, generate_instance_uid=False)
        frames = list(generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames))
        ds.PixelData = encapsulate(frames, fragments_per_frame=each, has_bot=table)

    return encode


def with_extended_table(ds: Dataset) -> None:
    ds.compress(JPEGLSLossless, generate_instance_uid=False)
    frames = list(generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames))
    ds.PixelData, ds.ExtendedOffsetTable, ds.ExtendedOffsetTableLengths = encapsulate_extended(frames)


ENCODINGS: dict[str, Callable[[Dataset], None]] = {
    "implicit": as_implicit,
    "deflated": as_deflated,
    "big endian": as_big_endian,
    "RLE": compressed(RLELossless),
    "JPEG-LS": compressed(JPEGLSLossless),
    "JPEG 2000": compressed(JPEG2000Lossless),
    "RLE without table": in_fragments(RLELossless, table=False, each=1),
    "JPEG-LS without table": in_fragments(JPEGLSLossless, table=False, each=1),
    "JPEG-LS in pieces": in_fragments(JPEGLSLossless, table=True, each=3),
    "JPEG-LS in pieces without table": in_fragments(JPEGLSLossless, table=False, each=3),
    "JPEG 2000 in pieces without table": in_fragments(JPEG2000Lossless, table=False, each=2),
    "extended table": with_extended_table,
}


def noise(shape: tuple[int, int, int]) -> NDArray[np.int16]:
    return np.random.default_rng(3).integers(-1024, 3071, shape).astype(np.int16)


@pytest.mark.parametrize("name", ENCODINGS)
def test_every_transfer_syntax(name: str, tmp_path: Path) -> None:
    phantom = Phantom(shape=(5, 32, 40))
    values = noise(phantom.shape)
    ds = enhanced.image(phantoms.datasets(phantom, values))
    ENCODINGS[name](ds)
    [path] = phantoms.write([ds], tmp_path)
    array = read_series([path]).volume.array
    assert np.array_equal(array, values)
    assert np.array_equal(array, pydicom.dcmread(path).pixel_array.astype(int) - 1024)


def test_values_are_those_of_another_reader(tmp_path: Path) -> None:
    ds = enhanced.image(shuffled(phantoms.datasets(Phantom(), noise((12, 32, 40)))))
    [path] = phantoms.write([ds], tmp_path)
    ours = read_series([path]).volume
    theirs = (
        highdicom.imread(path)
        .get_volume(apply_real_world_transform=False)
        .match_geometry(
            highdicom.Volume(
                array=ours.array,
                affine=ours.geometry.affine,
                coordinate_system="PATIENT",
                frame_of_reference_uid=ours.geometry.frame_of_reference_uid,
            )
        )
    )
    assert np.array_equal(ours.array, theirs.array)


def test_images_of_an_old_converter_are_read(tmp_path: Path) -> None:
    """A file may hold nothing but what is needed, in groups of undefined length."""
    slices = phantoms.datasets(Phantom())
    ds = enhanced.image(slices)
    for keyword in ("DimensionIndexSequence", "DimensionOrganizationSequence", "AcquisitionContextSequence"):
        delattr(ds, keyword)
    transformed = ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence
    ds.SharedFunctionalGroupsSequence = []
    for group in ds.PerFrameFunctionalGroupsSequence:
        del group.FrameContentSequence
        group.PixelValueTransformationSequence = transformed
        group.is_undefined_length_sequence_item = True
    ds["PerFrameFunctionalGroupsSequence"].is_undefined_length = True
    images = read([ds], tmp_path / "enhanced")
    assert np.array_equal(images.volume.array, read(slices, tmp_path / "classic").volume.array)


def test_a_legacy_converted_image_of_another_writer(data: Path) -> None:
    path = data / "legacy_converted_ct" / "mf.dcm"
    images = read_series([path])
    assert np.array_equal(images.volume.array, pydicom.dcmread(path).pixel_array)
    assert images.volume.geometry.spacing == pytest.approx((2.5, 0.7, 0.7))
    assert [frame_number(ds) for ds in images.datasets] == [1, 2, 3]
    # Its converter says that nothing is known of its values (Rescale Type US).
    assert images.volume.unit == "1"
    assert images.notes == ("the rescale type is not HU: values are not Hounsfield units",)


@pytest.mark.parametrize("name", ["implicit", "RLE", "JPEG-LS in pieces"])
def test_memory_is_that_of_the_volume(name: str, tmp_path: Path) -> None:
    phantom = Phantom(shape=(64, 256, 256))
    ds = enhanced.image(phantoms.datasets(phantom, np.broadcast_to(noise((1, 256, 256)), phantom.shape)))
    ENCODINGS[name](ds)
    paths = phantoms.write([ds], tmp_path)
    del ds
    tracemalloc.start()
    array = read_series(paths).volume.array
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Beyond the volume: the headers, and a few frames on their way.
    assert peak < array.nbytes + 3_000_000
