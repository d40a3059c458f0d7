"""What is wrong with a multi-frame image is said by a stable word, as for classic images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.tag import Tag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, JPEGLSLossless, RLELossless

from dicom_node.series import read_series
from tests.dicom_node.test_series_fuzz import DAMAGE, STEADY, read_damaged
from tests.dicom_node.test_series_refused import PHANTOM
from tests.dicom_node.test_series_refused import refusal as refused
from tests.support import enhanced, phantoms
from tests.support.phantoms import Phantom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


def made(phantom: Phantom = PHANTOM) -> Dataset:
    return enhanced.image(phantoms.datasets(phantom))


def groups(ds: Dataset) -> Any:
    return ds.PerFrameFunctionalGroupsSequence


def drop_frame(ds: Dataset, index: int) -> None:
    size = ds.Rows * ds.Columns * 2
    ds.PixelData = ds.PixelData[: index * size] + ds.PixelData[(index + 1) * size :]
    del groups(ds)[index]
    ds.NumberOfFrames -= 1


def move(ds: Dataset, index: int, by: float) -> None:
    position = groups(ds)[index].PlanePositionSequence[0]
    x, y, z = position.ImagePositionPatient
    position.ImagePositionPatient = [x, y, z + by]


def turn(ds: Dataset) -> None:
    groups(ds)[3].PlaneOrientationSequence[0].ImageOrientationPatient = [0, 1, 0, -1, 0, 0]


def tilt(ds: Dataset) -> None:
    for index, group in enumerate(groups(ds)):
        position = group.PlanePositionSequence[0]
        x, y, z = position.ImagePositionPatient
        position.ImagePositionPatient = [x, y + index, z]


def widen(ds: Dataset) -> None:
    groups(ds)[5].PixelMeasuresSequence[0].PixelSpacing = [0.9, 0.9]


def without(macro: str, index: int) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        delattr(groups(ds)[index], macro)

    return change


def without_values(ds: Dataset) -> None:
    ds.SharedFunctionalGroupsSequence[0].PixelValueTransformationSequence[0].RescaleSlope = 0


def setting(**values: object) -> Callable[[Dataset], None]:
    def change(ds: Dataset) -> None:
        for keyword, value in values.items():
            setattr(ds, keyword, value)

    return change


def without_groups(ds: Dataset) -> None:
    del ds.PerFrameFunctionalGroupsSequence


def half_the_pixels(ds: Dataset) -> None:
    ds.PixelData = ds.PixelData[: len(ds.PixelData) // 2]


def twice_the_pixels(ds: Dataset) -> None:
    ds.PixelData *= 2


def fragments(ds: Dataset, count: int, *, syntax: str, bad: bool = False) -> None:
    """Compressed pixels of other fragments than there are frames; `bad`: none ends as a code stream does."""
    ds.compress(syntax, generate_instance_uid=False)
    codes = list(generate_frames(ds.PixelData, number_of_frames=ds.NumberOfFrames))
    codes = (codes * 2)[:count]
    ds.PixelData = encapsulate([code[:-12] if bad else code for code in codes], has_bot=False)


REFUSED: dict[str, tuple[str, Callable[[Dataset], object]]] = {
    "a frame is missing": ("missing-slice", lambda ds: drop_frame(ds, 4)),
    "a frame is off its place": ("irregular-spacing", lambda ds: move(ds, 4, 1.0)),
    "two frames at one place": ("repeated-position", lambda ds: move(ds, 3, 2.5)),
    "one frame is turned": ("mixed-orientation", turn),
    "a tilted gantry": ("gantry-tilt", tilt),
    "one frame has larger pixels": ("mixed-size", widen),
    "no place of one frame": ("no-geometry", without("PlanePositionSequence", 3)),
    "no orientation of one frame": ("no-geometry", without("PlaneOrientationSequence", 0)),
    "no spacing of one frame": ("no-geometry", without("PixelMeasuresSequence", 11)),
    "slope of zero": ("non-finite", without_values),
    "more frames than groups": ("frame-count", setting(NumberOfFrames=13)),
    "fewer frames than groups": ("frame-count", setting(NumberOfFrames=11)),
    "no number of frames": ("frame-count", setting(NumberOfFrames=None)),
    "frames of a negative number": ("frame-count", setting(NumberOfFrames=-12)),
    "empty groups": ("frame-count", setting(PerFrameFunctionalGroupsSequence=[])),
    "no groups": ("multi-frame", without_groups),
    "pixels of half the frames": ("truncated", half_the_pixels),
    "pixels of twice the frames": ("frame-count", twice_the_pixels),
    "no pixels": ("no-pixel-data", setting(PixelData=b"")),
    "many more pixels than there are": ("truncated", setting(Rows=65535, Columns=65535)),
    "more RLE fragments than frames": ("frame-count", lambda ds: fragments(ds, 13, syntax=RLELossless)),
    "fewer RLE fragments than frames": ("frame-count", lambda ds: fragments(ds, 11, syntax=RLELossless)),
    "more code streams than frames": ("frame-count", lambda ds: fragments(ds, 13, syntax=JPEGLSLossless)),
    "fragments without an end": (
        "frame-count",
        lambda ds: fragments(ds, 24, syntax=JPEGLSLossless, bad=True),
    ),
    "colour": ("colour", setting(SamplesPerPixel=3, PhotometricInterpretation="RGB")),
    "one bit": ("undecodable", setting(BitsAllocated=1, BitsStored=1, HighBit=0)),
    "a segmentation": ("not-an-image", setting(SOPClassUID="1.2.840.10008.5.1.4.1.1.66.7")),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_image_that_is_no_volume_is_refused_by_name(name: str, tmp_path: Path) -> None:
    reason, change = REFUSED[name]
    ds = made()
    change(ds)
    assert refused(phantoms.write([ds], tmp_path)).reason == reason


def test_a_single_frame(tmp_path: Path) -> None:
    paths = phantoms.write([enhanced.image(phantoms.datasets(PHANTOM)[:1])], tmp_path)
    assert refused(paths).reason == "single-slice"


def test_frames_are_named_in_messages(tmp_path: Path) -> None:
    ds = made()
    drop_frame(ds, 4)
    said = str(refused(phantoms.write([ds], tmp_path)))
    assert "between frame 4 of image 1 at (-30.00, -20.00, 107.50) mm and frame 5 of image 1" in said


def test_a_concatenation_without_its_last_part(tmp_path: Path) -> None:
    parts = enhanced.split(made(), 7)
    error = refused(phantoms.write(parts[:1], tmp_path))
    assert error.reason == "missing-slice"
    assert "1 of the 2 files that one image was divided into are missing" in str(error)


def in_macro(macro: str, **values: object) -> Callable[[Dataset], None]:
    def change(group: Dataset) -> None:
        setattr(group, macro, [enhanced.item(**values)])

    return change


#: What tells the second half of the frames from the first, and what the refusal calls it.
SECOND = {
    "points in time": in_macro("TemporalPositionSequence", TemporalPositionTimeOffset=2.0),
    "echoes": in_macro("MREchoSequence", EffectiveEchoTime=50.0),
    "b-values": in_macro("MRDiffusionSequence", DiffusionBValue=1000.0),
    "cardiac phases": in_macro("CardiacSynchronizationSequence", NominalCardiacTriggerDelayTime=300.0),
}
FIRST = {
    "points in time": in_macro("TemporalPositionSequence", TemporalPositionTimeOffset=0.0),
    "echoes": in_macro("MREchoSequence", EffectiveEchoTime=5.0),
    "b-values": in_macro("MRDiffusionSequence", DiffusionBValue=0.0),
    "cardiac phases": in_macro("CardiacSynchronizationSequence", NominalCardiacTriggerDelayTime=100.0),
}


def of_two(phantom: Phantom = PHANTOM) -> Dataset:
    """Frames of two unlike images at each position."""
    first = phantoms.datasets(phantom)
    second = phantoms.datasets(phantom, phantoms.asymmetric(phantom.shape) + np.int16(5))
    ds = enhanced.image([*first, *second], "MR")
    del ds.SharedFunctionalGroupsSequence[0].MREchoSequence
    return ds


@pytest.mark.parametrize("what", SECOND)
def test_what_frames_at_one_position_differ_in_is_named(what: str, tmp_path: Path) -> None:
    ds = of_two()
    for index, group in enumerate(groups(ds)):
        (FIRST if index < 12 else SECOND)[what](group)
    error = refused(phantoms.write([ds], tmp_path))
    assert error.reason == "repeated-position"
    assert f"The series mixes several {what}: have them sent" in str(error)


def test_a_dimension_that_only_the_indices_have_is_named(tmp_path: Path) -> None:
    ds = of_two()
    ds.DimensionIndexSequence[1].DimensionIndexPointer = Tag("InversionTimes")
    for index, group in enumerate(groups(ds)):
        group.FrameContentSequence[0].DimensionIndexValues = [1, 1 + index // 12]
    assert "several values of Inversion Times: have" in str(refused(phantoms.write([ds], tmp_path)))


@pytest.mark.parametrize("syntax", [None, DeflatedExplicitVRLittleEndian, RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("kept", [0.2, 0.7, 0.99])
def test_a_file_that_is_cut_off(kept: float, syntax: str | None, tmp_path: Path) -> None:
    ds = made()
    if syntax == DeflatedExplicitVRLittleEndian:
        ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    elif syntax is not None:
        ds.compress(syntax, generate_instance_uid=False)
    [path] = phantoms.write([ds], tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    assert refused([path]).reason in ("truncated", "not-dicom", "no-pixel-data")


@pytest.mark.parametrize("compressed", [False, True])
def test_pixels_of_another_form_than_their_syntax(compressed: bool, tmp_path: Path) -> None:
    ds = made()
    if compressed:
        ds.compress(JPEGLSLossless, generate_instance_uid=False)
    [path] = phantoms.write([ds], tmp_path)
    old, new = str(ds.file_meta.TransferSyntaxUID).encode(), ExplicitVRLittleEndian.encode()
    if not compressed:
        old, new = old.ljust(20, b"\0"), b"1.2.840.10008.1.2.5".ljust(20, b"\0")
    path.write_bytes(path.read_bytes().replace(old, new.ljust(len(old), b"\0"), 1))
    assert refused([path]).reason == "undecodable"


def test_groups_cannot_say_whose_image_it_is(tmp_path: Path) -> None:
    ds = made()
    for group in groups(ds):
        group.FrameContentSequence[0].PatientID = "SECRET-8"
        group.FrameContentSequence[0].StudyInstanceUID = "1.2.3"
    images = read_series(phantoms.write([ds], tmp_path))
    assert {header.PatientID for header in images.datasets} == {"SECRET-7"}
    assert {header.StudyInstanceUID for header in images.datasets} == {ds.StudyInstanceUID}


SMALL = Phantom(shape=(4, 16, 16))


@STEADY
@given(damaged=DAMAGE)
def test_a_damaged_image_is_read_or_refused_by_name(
    damaged: tuple[list[tuple[float, int]], float], tmp_path: Path
) -> None:
    read_damaged(phantoms.write([made(SMALL)], tmp_path), damaged)


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@settings(STEADY, max_examples=25)
@given(damaged=DAMAGE)
def test_a_damaged_compressed_image_is_read_or_refused_by_name(
    syntax: str, damaged: tuple[list[tuple[float, int]], float], tmp_path: Path
) -> None:
    ds = made(SMALL)
    ds.compress(syntax, generate_instance_uid=False)
    read_damaged(phantoms.write([ds], tmp_path), damaged)
