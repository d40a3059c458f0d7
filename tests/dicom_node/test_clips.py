"""A cine loop as a model of clips sees it: the frames that it wants, read as single images are."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels import compress
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEGLSLossless,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
)

from dicom_node import series
from dicom_node.errors import SeriesError
from tests.support import phantoms, planar

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

COUNT = 7


def _moments() -> NDArray[np.uint8]:
    """(frames, rows, columns): the marker, in each frame darker by so much."""
    return np.stack([planar.marker() // (1 + index) for index in range(COUNT)])


def _clip(moments: NDArray[np.uint8] | None = None, **changes: Any) -> Dataset:
    """A grey cine loop of ultrasound."""
    frames = _moments() if moments is None else moments
    ds = planar.us()
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = UltrasoundMultiFrameImageStorage
    ds.NumberOfFrames, ds.FrameIncrementPointer, ds.FrameTime = len(frames), 0x00181063, 33
    del ds.PixelData, ds.PlanarConfiguration
    planar.grey(ds, frames[0], bits=8)
    ds.PixelData = frames.tobytes() + b"\0" * (frames.size % 2)
    for keyword, value in changes.items():
        setattr(ds, keyword, value)
    return ds


def _read(folder: Path, ds: Dataset, chosen: Sequence[int] = range(COUNT)) -> series.SeriesImages:
    paths = phantoms.write([ds], folder)
    return series.read_series(
        paths, planar=True, frames=lambda count: [index for index in chosen if index < count]
    )


def test_the_frames_are_those_that_were_asked_for_in_that_order(tmp_path: Path) -> None:
    found = _read(tmp_path, _clip(), (0, 2, 2, 5))
    assert found.volume.frames is not None
    np.testing.assert_array_equal(found.volume.frames, _moments()[[0, 2, 2, 5]])
    # What is shown, and what results lie on, is the middle one of them
    np.testing.assert_array_equal(found.volume.array, _moments()[[2]])
    assert found.volume.geometry.shape == (1, planar.ROWS, planar.COLUMNS)
    assert found.volume.geometry.spacing[1:] == pytest.approx((0.5, 0.4))
    assert len(found.datasets) == 1 and found.datasets[0].NumberOfFrames == COUNT
    assert "3 of 7 frames were looked at" in found.notes


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless, DeflatedExplicitVRLittleEndian])
def test_it_does_not_matter_how_the_frames_are_compressed(tmp_path: Path, syntax: UID) -> None:
    ds = _clip()
    if syntax == DeflatedExplicitVRLittleEndian:
        ds.file_meta.TransferSyntaxUID = syntax
    else:
        compress(ds, syntax, generate_instance_uid=False)
    found = _read(tmp_path, ds, (1, 3, 6))
    assert found.volume.frames is not None
    np.testing.assert_array_equal(found.volume.frames, _moments()[[1, 3, 6]])


def test_a_loop_in_colour_becomes_grey(tmp_path: Path) -> None:
    ds = _clip()
    del ds.PixelData
    planar.colour(ds, np.repeat(_moments()[0][..., None], 3, axis=2), "RGB")
    ds.PixelData = np.repeat(_moments()[..., None], 3, axis=3).tobytes()
    found = _read(tmp_path, ds)
    assert found.volume.frames is not None
    np.testing.assert_allclose(found.volume.frames, _moments(), atol=1e-3)
    assert "colour was turned into grey (luminance)" in found.notes


def test_a_single_image_is_a_clip_of_one(tmp_path: Path) -> None:
    ds = _clip(_moments()[:1])
    del ds.NumberOfFrames, ds.FrameIncrementPointer
    found = _read(tmp_path, ds, (0, 0, 0))
    assert found.volume.frames is not None and found.volume.frames.shape == (3, planar.ROWS, planar.COLUMNS)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        # Slice Location Vector: a stack, not a clip
        ({"FrameIncrementPointer": 0x00182005}, "multi-frame"),
        ({"FrameIncrementPointer": [0x00181063, 0x00540010]}, "multi-frame"),
        ({"NumberOfFrames": COUNT + 1}, "truncated"),
        ({"NumberOfFrames": COUNT - 1}, "frame-count"),
    ],
)
def test_what_is_no_clip_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    with pytest.raises(SeriesError) as caught:
        _read(tmp_path, _clip(**changes))
    assert caught.value.reason == reason


def test_a_model_of_single_images_still_refuses_a_clip(tmp_path: Path) -> None:
    paths = phantoms.write([_clip()], tmp_path)
    with pytest.raises(SeriesError) as caught:
        series.read_series(paths, planar=True)
    assert caught.value.reason == "multi-frame"


def test_a_frame_vector_of_times_is_a_clip(tmp_path: Path) -> None:
    ds = _clip(FrameIncrementPointer=0x00181065, FrameTimeVector=[0, *[33] * (COUNT - 1)])
    assert ds.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    found = _read(tmp_path, ds)
    assert found.volume.frames is not None and len(found.volume.frames) == COUNT
