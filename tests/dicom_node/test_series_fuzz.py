"""Whatever bytes come, only a named refusal comes out."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dicom_node.attributes import read_attributes
from dicom_node.errors import DataSetError, SeriesError
from dicom_node.series import read_series
from tests.support import phantoms, planar
from tests.support.phantoms import Phantom

DATA = Path(__file__).parents[1] / "data"

#: Flips: (place as a part of the file, new byte); then what part of the file is kept.
DAMAGE = st.tuples(
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=12),
    st.one_of(st.just(1.0), st.floats(0, 1)),
)
STEADY = settings(
    max_examples=150,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def damage(content: bytes, flips: list[tuple[float, int]], kept: float) -> bytes:
    changed = bytearray(content)
    for place, byte in flips:
        changed[int(place * len(changed))] = byte
    return bytes(changed[: int(kept * len(changed))])


@STEADY
@given(damaged=DAMAGE)
def test_a_damaged_slice_is_read_or_refused_by_name(
    damaged: tuple[list[tuple[float, int]], float], tmp_path: Path
) -> None:
    # Few pixels: most of the damage hits the header.
    paths = phantoms.write(phantoms.datasets(Phantom(shape=(4, 16, 16))), tmp_path)
    read_damaged(paths, damaged, which=1)


def read_damaged(
    paths: list[Path], damaged: tuple[list[tuple[float, int]], float], *, which: int = 0
) -> None:
    """Damage one of the files, and read all: they make a volume, or are refused by name."""
    paths[which].write_bytes(damage(paths[which].read_bytes(), *damaged))
    try:
        images = read_series(paths)
    except SeriesError as error:
        assert error.reason and str(error)
    else:
        assert images.volume.array.shape == images.volume.geometry.shape


@pytest.mark.parametrize("modality", planar.ALL)
@settings(STEADY, max_examples=25)
@given(damaged=DAMAGE)
def test_a_damaged_single_image_is_read_or_refused_by_name(
    modality: str, damaged: tuple[list[tuple[float, int]], float], tmp_path: Path
) -> None:
    [path] = phantoms.write([planar.ALL[modality]()], tmp_path)
    # Half of the damage hits the header, whatever the pixels take up.
    content = path.read_bytes()
    header = len(content) - planar.ROWS * planar.COLUMNS
    flips, kept = damaged
    path.write_bytes(damage(content[:header], flips, 1.0) + damage(content[header:], flips, kept))
    try:
        images = read_series([path], planar=True)
    except SeriesError as error:
        assert error.reason and str(error)
    else:
        assert images.volume.array.shape == images.volume.geometry.shape


@pytest.mark.parametrize(
    "name",
    [
        "dirty/nested_priv_SQ",
        "dirty/rtstruct",
        "charsets/chrH32",
        "charsets/chrSQEncoding",
        "legacy_converted_ct/mf",
    ],
)
@STEADY
@given(damaged=DAMAGE)
def test_attributes_of_a_damaged_file_are_plain_or_refused(
    name: str, damaged: tuple[list[tuple[float, int]], float], tmp_path: Path
) -> None:
    path = tmp_path / "file.dcm"
    path.write_bytes(damage((DATA / f"{name}.dcm").read_bytes(), *damaged))
    with contextlib.suppress(DataSetError):
        json.dumps(read_attributes(path), allow_nan=False, ensure_ascii=False).encode("utf-8")
