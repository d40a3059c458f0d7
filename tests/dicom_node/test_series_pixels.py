"""Whatever the transfer syntax and the bits, the stored values come out as they went in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from dicom_node import headers
from dicom_node.errors import SeriesError
from dicom_node.series import SeriesImages, read_series
from tests.support import phantoms
from tests.support.phantoms import Phantom

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

SHAPE = (3, 32, 40)


def stored(dtype: type[np.generic], low: int, high: int) -> NDArray[np.generic]:
    values = np.random.default_rng(5).integers(low, high, SHAPE, endpoint=True).astype(dtype)
    values[0, 0, :2] = low, high
    return values


def series(values: NDArray[np.generic], *, bits_stored: int, modality: str = "MR") -> list[Dataset]:
    made = phantoms.datasets(Phantom(shape=SHAPE, modality=modality))
    for ds, pixels in zip(made, values, strict=True):
        ds.BitsAllocated = values.dtype.itemsize * 8
        ds.BitsStored, ds.HighBit = bits_stored, bits_stored - 1
        ds.PixelRepresentation = int(values.dtype.kind == "i")
        ds.RescaleSlope, ds.RescaleIntercept = 1, 0
        ds.PixelData = pixels.tobytes()
        ds["PixelData"].VR = "OW" if values.dtype.itemsize > 1 else "OB"
    return made


def read(made: list[Dataset], folder: Path) -> SeriesImages:
    return read_series(phantoms.write(made, folder))


@pytest.mark.parametrize(
    ("dtype", "bits", "low", "high", "kind"),
    [
        (np.uint8, 8, 0, 255, np.int16),
        (np.int8, 8, -128, 127, np.int16),
        (np.uint16, 12, 0, 4095, np.int16),
        (np.int16, 12, -2048, 2047, np.int16),
        (np.int16, 16, -32768, 32767, np.int16),
        (np.uint16, 16, 0, 32767, np.int16),
        (np.uint16, 16, 0, 65535, np.float32),
        (np.uint32, 24, 0, (1 << 24) - 1, np.float32),
        (np.int32, 32, -5000, 5000, np.int16),
    ],
)
def test_stored_values_of_every_width(
    dtype: type[np.generic], bits: int, low: int, high: int, kind: type[np.generic], tmp_path: Path
) -> None:
    values = stored(dtype, low, high)
    array = read(series(values, bits_stored=bits), tmp_path).volume.array
    assert array.dtype == kind
    assert np.array_equal(array, values)


@pytest.mark.parametrize("intercept", [-1024, 1024, -32768])
def test_int16_is_left_when_the_intercept_leads_out_of_it(intercept: int, tmp_path: Path) -> None:
    values = stored(np.int16, -32768, 32767)
    made = series(values, bits_stored=16)
    for ds in made:
        ds.RescaleIntercept = intercept
    array = read(made, tmp_path).volume.array
    assert array.dtype == np.float32
    assert np.array_equal(array, values.astype(np.int32) + intercept)


@pytest.mark.parametrize(("dtype", "low", "high"), [(np.uint16, 0, 4095), (np.int16, -2048, 2047)])
def test_foreign_bits_are_not_part_of_the_value(
    dtype: type[np.generic], low: int, high: int, tmp_path: Path
) -> None:
    """PS3.5 8.1.1: the bits above High Bit may hold an overlay, or garbage."""
    values = stored(dtype, low, high)
    bits = values.astype(np.uint16) & 0x0FFF
    made = series(values, bits_stored=12)
    for ds, pixels in zip(made, bits, strict=True):
        ds.PixelData = (pixels | 0xA000).astype(np.uint16).tobytes()
    assert np.array_equal(read(made, tmp_path / "above").volume.array, values)
    for ds, pixels in zip(made, bits, strict=True):
        ds.HighBit = 15
        ds.PixelData = (pixels << 4 | 0x5).astype(np.uint16).tobytes()
    assert np.array_equal(read(made, tmp_path / "below").volume.array, values)


def as_implicit(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian


def as_deflated(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian


def as_big_endian(ds: Dataset) -> None:
    ds.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    ds.PixelData = np.frombuffer(ds.PixelData, "<u2").astype(">u2").tobytes()


def as_rle(ds: Dataset) -> None:
    ds.compress(RLELossless, generate_instance_uid=False)


def as_jpeg_ls(ds: Dataset) -> None:
    ds.compress(JPEGLSLossless, generate_instance_uid=False)


def as_jpeg_2000(ds: Dataset) -> None:
    ds.compress(JPEG2000Lossless, generate_instance_uid=False)


@pytest.mark.parametrize(
    "encode", [as_implicit, as_deflated, as_big_endian, as_rle, as_jpeg_ls, as_jpeg_2000]
)
@pytest.mark.parametrize("signed", [False, True])
def test_lossless_transfer_syntaxes(encode: Callable[[Dataset], None], signed: bool, tmp_path: Path) -> None:
    values = stored(np.int16, -2048, 2047) if signed else stored(np.uint16, 0, 4095)
    made = series(values, bits_stored=12)
    for ds in made:
        encode(ds)
    images = read(made, tmp_path)
    assert images.datasets[0].file_meta.TransferSyntaxUID == made[0].file_meta.TransferSyntaxUID
    assert np.array_equal(images.volume.array, values)


def test_near_lossless_is_near(tmp_path: Path) -> None:
    values = stored(np.uint16, 0, 4095)
    made = series(values, bits_stored=12)
    for ds in made:
        ds.compress(JPEGLSNearLossless, jls_error=2, generate_instance_uid=False)
    array = read(made, tmp_path).volume.array
    assert 0 < np.abs(array - values.astype(np.int32)).max() <= 2


def test_jpeg_baseline(tmp_path: Path) -> None:
    ramp = np.broadcast_to(np.arange(40, dtype=np.uint8) * 4, SHAPE)
    made = series(ramp, bits_stored=8)
    for ds, pixels in zip(made, ramp, strict=True):
        code = BytesIO()
        Image.fromarray(pixels).save(code, "JPEG", quality=95)
        ds.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
        ds.PixelData = encapsulate([code.getvalue()])
        ds["PixelData"].is_undefined_length = True
    assert np.abs(read(made, tmp_path).volume.array - ramp.astype(np.int32)).max() <= 4


@pytest.mark.parametrize("syntax", ["jpeg-lossless", "jpeg-ls", "j2k"])
def test_files_of_other_writers_in_four_syntaxes_are_one_volume(syntax: str, data: Path) -> None:
    rle = read_series(sorted((data / "mr_compressed" / "rle").glob("*.dcm"))).volume
    other = read_series(sorted((data / "mr_compressed" / syntax).glob("*.dcm"))).volume
    assert np.array_equal(other.array, rle.array)
    assert other.geometry.agrees_with(rle.geometry)
    assert other.array.max() == 254


def test_high_throughput_jpeg_2000(data: Path, tmp_path: Path) -> None:
    """The digest is that of the JPEG 2000 original's pixels."""
    ds = pydicom.dcmread(data / "ct_htj2k" / "CT2_HTJ2KLossless.dcm")
    first = read_pair(ds, tmp_path).volume.array[0]
    digest = hashlib.sha256(first.astype("<i2").tobytes()).hexdigest()
    assert digest == "ddaf7fb6a05bf7ac8b2b29e29cca3204e426179cce2888eeff3a270c1927d73d"


def read_pair(ds: Dataset, folder: Path) -> SeriesImages:
    """A series of an image and the same one 5 mm further."""
    paths = phantoms.write([ds], folder / "first")
    ds.SOPInstanceUID += ".1"
    x, y, z = ds.ImagePositionPatient
    ds.ImagePositionPatient = [x, y, z + 5]
    return read_series([*paths, *phantoms.write([ds], folder / "second")])


@pytest.mark.parametrize(
    "syntax", ["1.2.840.10008.1.2.4.55", "1.2.840.10008.1.2.4.53", "1.2.840.99999.1.2.4.80"]
)
def test_a_syntax_without_decoder_is_named(syntax: str, tmp_path: Path) -> None:
    made = series(stored(np.uint16, 0, 4095), bits_stored=12)
    for ds in made:
        as_jpeg_ls(ds)
    paths = phantoms.write(made, tmp_path)
    for path in paths:
        path.write_bytes(path.read_bytes().replace(JPEGLSLossless.encode(), syntax.encode()))
    with pytest.raises(SeriesError) as caught:
        read_series(paths)
    assert caught.value.reason == "undecodable"
    assert syntax in str(caught.value)


def test_a_code_stream_of_another_syntax_is_undecodable(tmp_path: Path) -> None:
    made = series(stored(np.uint16, 0, 4095), bits_stored=12)
    as_jpeg_ls(made[1])
    made[1].file_meta.TransferSyntaxUID = JPEG2000Lossless
    with pytest.raises(SeriesError) as caught:
        read(made, tmp_path)
    assert caught.value.reason == "undecodable"


def test_compressed_pixels_under_an_uncompressed_syntax(tmp_path: Path) -> None:
    made = series(stored(np.uint16, 0, 4095), bits_stored=12)
    for ds in made:
        as_jpeg_ls(ds)
    paths = phantoms.write(made, tmp_path)
    for path in paths:
        old, new = JPEGLSLossless.encode(), ExplicitVRLittleEndian.encode().ljust(22, b"\0")
        path.write_bytes(path.read_bytes().replace(old, new))
    with pytest.raises(SeriesError) as caught:
        read_series(paths)
    assert caught.value.reason == "undecodable"


@pytest.mark.parametrize("encode", [as_deflated, as_rle, as_jpeg_ls, as_jpeg_2000])
@pytest.mark.parametrize("kept", [0.85, 0.99])
def test_compressed_files_that_are_cut_off(
    encode: Callable[[Dataset], None], kept: float, tmp_path: Path
) -> None:
    made = series(stored(np.uint16, 0, 4095), bits_stored=12)
    for ds in made:
        encode(ds)
    paths = phantoms.write(made, tmp_path)
    content = paths[1].read_bytes()
    paths[1].write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(SeriesError) as caught:
        read_series(paths)
    assert caught.value.reason == "truncated"


def test_a_deflated_bomb_stops_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = series(np.zeros(SHAPE, np.uint16), bits_stored=12)
    for ds in made:
        as_deflated(ds)
    paths = phantoms.write(made, tmp_path)
    monkeypatch.setattr(headers, "_INFLATED_LIMIT", 2000)
    with pytest.raises(SeriesError) as caught:
        read_series(paths)
    assert caught.value.reason == "not-dicom"
    assert "more than an image can need" in str(caught.value)


class TestPadding:
    """Scanners fill the corners outside the field of view with a value below air."""

    @staticmethod
    def padded(value: int, *, declared: int, vr: str, limit: int | None = None) -> list[Dataset]:
        values = stored(np.int16, -900, 900)
        values[:, 0, :5] = value
        made = series(values, bits_stored=16, modality="CT")
        for ds in made:
            ds.RescaleType = "HU"
            ds.add_new("PixelPaddingValue", vr, declared)
            if limit is not None:
                ds.add_new("PixelPaddingRangeLimit", vr, limit)
        return made

    @pytest.mark.parametrize(("declared", "vr"), [(-2000, "SS"), (63536, "US")])
    def test_padding_becomes_air(self, declared: int, vr: str, tmp_path: Path) -> None:
        images = read(self.padded(-2000, declared=declared, vr=vr), tmp_path)
        assert (images.volume.array[:, 0, :5] == -1024).all()
        assert images.volume.array.min() == -1024
        assert images.notes == ("15 padding voxels set to -1024 HU",)

    def test_a_range_of_padding_becomes_air(self, tmp_path: Path) -> None:
        images = read(self.padded(-2500, declared=-3000, limit=-2000, vr="SS"), tmp_path)
        assert (images.volume.array[:, 0, :5] == -1024).all()

    def test_a_padding_value_that_tissue_has_too_stays(self, tmp_path: Path) -> None:
        images = read(self.padded(0, declared=0, vr="SS"), tmp_path)
        assert (images.volume.array[:, 0, :5] == 0).all()
        assert images.notes == ()

    def test_other_modalities_keep_their_padding(self, tmp_path: Path) -> None:
        made = self.padded(-2000, declared=-2000, vr="SS")
        for ds in made:
            ds.Modality = "MR"
        images = read(made, tmp_path)
        assert (images.volume.array[:, 0, :5] == -2000).all()
