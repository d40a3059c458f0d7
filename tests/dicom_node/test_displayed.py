"""A single image as a viewer shows it: window or table, black for white where it says so, 0 to 1."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_voi_lut

from dicom_node.errors import SeriesError
from dicom_node.series import SeriesImages, read_series
from tests.dicom_node.test_single_images import DATA
from tests.support import phantoms, planar

MARKER = planar.marker().astype(np.float64)


def read(ds: Dataset, folder: Path) -> SeriesImages:
    return read_series(phantoms.write([ds], folder), planar=True, values="displayed")


def shown(ds: Dataset, folder: Path) -> NDArray[np.float32]:
    found = read(ds, folder)
    assert found.volume.array.dtype == np.float32
    assert (found.volume.unit, found.volume.window, found.values) == ("1", (0, 1), "displayed")
    assert 0 <= found.volume.array.min() <= found.volume.array.max() <= 1
    return found.volume.array[0]


def mammogram(values: NDArray[Any] = MARKER * 16, **changes: Any) -> Dataset:
    """One of 12 bits, MONOCHROME2, with these elements instead; None takes one away."""
    ds = planar.grey(planar.mg(), values.astype(np.uint16), bits=12)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
        if value is None:
            delattr(ds, keyword)
    return ds


def linear(values: NDArray[Any], centre: float, width: float) -> NDArray[Any]:
    """PS3.3 C.11.2.1.2.1, written out, onto 0 to 1."""
    ramp = (values - (centre - 0.5)) / (width - 1) + 0.5
    ramp[values <= centre - 0.5 - (width - 1) / 2] = 0
    ramp[values > centre - 0.5 + (width - 1) / 2] = 1
    return ramp


def test_a_window_is_applied(tmp_path: Path) -> None:
    found = shown(mammogram(WindowCenter="2000", WindowWidth="3000"), tmp_path)
    np.testing.assert_allclose(found, linear(MARKER * 16, 2000, 3000), atol=1e-6)
    assert np.count_nonzero((found > 0) & (found < 1)) > 0


def test_the_first_of_several_windows_is_applied(tmp_path: Path) -> None:
    found = shown(mammogram(WindowCenter=["1800", "99"], WindowWidth=["1000", "5"]), tmp_path)
    np.testing.assert_allclose(found, linear(MARKER * 16, 1800, 1000), atol=1e-6)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        ("LINEAR_EXACT", np.clip((MARKER * 16 - 1500) / 1000, 0, 1)),
        ("SIGMOID", 1 / (1 + np.exp(-4 * (MARKER * 16 - 2000) / 1000))),
    ],
)
def test_the_function_is_the_one_that_the_header_names(
    tmp_path: Path, function: str, expected: NDArray[Any]
) -> None:
    ds = mammogram(WindowCenter="2000", WindowWidth="1000", VOILUTFunction=function)
    np.testing.assert_allclose(shown(ds, tmp_path), expected, atol=1e-6)


def test_it_is_what_pydicom_shows(tmp_path: Path) -> None:
    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        ds = mammogram(WindowCenter="1900", WindowWidth="1700", VOILUTFunction=function)
        expected = apply_voi_lut(ds.pixel_array, ds) / 4095
        np.testing.assert_allclose(shown(ds, tmp_path / function), expected, atol=1e-6)


def test_a_window_of_one_value_is_a_step(tmp_path: Path) -> None:
    found = shown(mammogram(WindowCenter="2000", WindowWidth="1"), tmp_path)
    np.testing.assert_array_equal(found, MARKER * 16 > 1999.5)


def test_a_table_goes_before_a_window(tmp_path: Path) -> None:
    # Of more than is kept of other elements: 128 KiB.
    entries = np.sqrt(np.arange(65536) / 65535) * 4095
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [0, 0, 12])
    table.add_new("LUTData", "OW", entries.astype("<u2").tobytes())
    ds = mammogram(VOILUTSequence=[table], WindowCenter="5", WindowWidth="5")
    expected = entries.astype(int)[MARKER.astype(int) * 16] / 4095
    np.testing.assert_allclose(shown(ds, tmp_path), expected, atol=1e-6)
    assert "shown by its VOI LUT" in read(ds, tmp_path / "again").notes


def test_a_broken_table_is_named(tmp_path: Path) -> None:
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 13])
    ds = mammogram(VOILUTSequence=[table])
    with pytest.raises(SeriesError, match="VOI LUT that cannot be read"):
        read(ds, tmp_path)


@pytest.mark.parametrize(
    ("photometric", "shape", "turned"),
    [
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME2", None, False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
    ],
)
def test_black_is_white_where_the_header_says_so_once_or_twice(
    tmp_path: Path, photometric: str, shape: str | None, turned: bool
) -> None:
    ds = mammogram(PhotometricInterpretation=photometric, PresentationLUTShape=shape)
    ds.WindowCenter, ds.WindowWidth = "2000", "3000"
    plain = linear(MARKER * 16, 2000, 3000)
    np.testing.assert_allclose(shown(ds, tmp_path), 1 - plain if turned else plain, atol=1e-6)


def test_without_a_window_the_range_is_shown_and_it_is_said(tmp_path: Path) -> None:
    ds = mammogram(WindowCenter=None, WindowWidth=None)
    np.testing.assert_allclose(shown(ds, tmp_path), (MARKER * 16 - 160) / (4000 - 160), atol=1e-6)
    assert "the header names no window: 160 is shown black, and 4000 white" in read(ds, tmp_path / "2").notes


def test_padding_is_not_what_white_is_measured_by(tmp_path: Path) -> None:
    values = MARKER * 10
    values[:3] = 4095
    ds = mammogram(values, WindowCenter=None, WindowWidth=None)
    ds.add_new("PixelPaddingValue", "US", 4095)
    found = shown(ds, tmp_path)
    np.testing.assert_allclose(found[3:], (MARKER[3:] * 10 - 100) / 2400, atol=1e-6)
    assert (found[:3] == 1).all()


def test_eight_bits_are_shown_as_they_are(tmp_path: Path) -> None:
    ds = planar.grey(planar.mg(), planar.marker(), bits=8)
    del ds.WindowCenter, ds.WindowWidth
    np.testing.assert_allclose(shown(ds, tmp_path), MARKER / 255, atol=1e-6)


def test_colour_is_its_luminance(tmp_path: Path) -> None:
    np.testing.assert_allclose(shown(planar.us(), tmp_path), MARKER / 255, atol=1e-6)


def test_a_real_radiograph_is_shown_as_pydicom_shows_it() -> None:
    path = DATA / "dx_monochrome1.dcm"
    ds = pydicom.dcmread(path)
    found = read_series([path], planar=True, values="displayed").volume.array[0]
    # Of eight bits and without a window: as it is, black for white.
    np.testing.assert_allclose(found, 1 - ds.pixel_array / 255, atol=1e-6)


def test_the_models_values_are_the_sources_without_the_wish(tmp_path: Path) -> None:
    ds = mammogram(WindowCenter="2000", WindowWidth="3000")
    plain = read_series(phantoms.write([ds], tmp_path), planar=True)
    np.testing.assert_array_equal(plain.volume.array[0], MARKER * 16)
    assert plain.values == "source"
