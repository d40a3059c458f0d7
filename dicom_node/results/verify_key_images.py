"""The gate for key images: the colours lie where the mask has the segments, on the slices that are named."""

from __future__ import annotations

import math
from collections.abc import Collection

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import GateError
from dicom_node.results import key_images, key_slices, legend, references
from dicom_node.results.context import ResultContext
from dicom_node.results.key_slices import KeySlice
from engines import overlay
from engines.findings import Findings

#: How far a drawn outline may reach beyond its segment, or fall short of it: a pixel of the picture for the
#: drawing, and a voxel for the interpolation between voxels.
_PICTURE_PIXELS, _VOXELS = 1.5, 1.0

#: What is burned into the picture hides what lies under it.
_WORDS_WIDTH, _WORDS_HEIGHT = 140, 40


def check(ds: Dataset, context: ResultContext, findings: Findings, made: Collection[str]) -> None:
    """Compare key images, as read from disk, with the findings. GateError says what differs."""
    chosen = key_slices.choose(findings)
    slices = context.source_slices()
    named = [references.read_image(item) for item in ds.SourceImageSequence]
    if named != [slices[slice_.index] for slice_ in chosen]:
        raise GateError("the source images named are not the key slices")
    frames = _frames(ds)
    height, width = overlay.picture_shape(findings.geometry, key_images.size(context))
    if frames.shape != (len(chosen), height, width + legend.WIDTH, 3):
        raise GateError(
            f"pixels {frames.shape} are not {len(chosen)} pictures of {height} x {width} and words"
        )
    for frame, slice_ in zip(frames, chosen, strict=True):
        for colour, (name, region) in _regions(findings, slice_).items():
            if len(set(colour)) > 1:  # a grey cannot be told from the image
                _check_outline(frame[:, :width], region, colour, name)


def _regions(
    findings: Findings, chosen: KeySlice
) -> dict[tuple[int, int, int], tuple[str, NDArray[np.bool_]]]:
    """What is drawn in each colour: things of one colour cannot be told apart."""
    drawn = [
        (segment.colour, f"segment {segment.number}", findings.mask[chosen.index] == segment.number)
        for segment in (findings.segments[number - 1] for number in chosen.segments)
    ]
    for index in chosen.boxes:
        box, inside = findings.boxes[index], np.zeros(findings.geometry.shape[1:], bool)
        first = [max(0, math.floor(face + 0.5)) for face in box.low[1:]]
        last = [math.ceil(face - 0.5) + 1 for face in box.high[1:]]
        inside[first[0] : last[0], first[1] : last[1]] = True
        drawn.append((box.colour, f"box {index + 1}", inside))
    made: dict[tuple[int, int, int], tuple[str, NDArray[np.bool_]]] = {}
    for colour, name, region in drawn:
        first_name, known = made.get(colour, (name, np.zeros_like(region)))
        made[colour] = (first_name, known | region)
    return made


def _frames(ds: Dataset) -> NDArray[np.uint8]:
    """(frames, rows, columns, 3): native RGB by pixel (PS3.5 8.2)."""
    shape = (int(ds.get("NumberOfFrames", 1)), int(ds.Rows), int(ds.Columns), 3)
    data = np.frombuffer(ds.PixelData, dtype=np.uint8)
    if data.size < np.prod(shape):
        raise GateError("the pixel data is shorter than its frames")
    return data[: np.prod(shape)].reshape(shape)


def _check_outline(
    picture: NDArray[np.uint8], region: NDArray[np.bool_], colour: tuple[int, int, int], name: str
) -> None:
    """The pixels in a colour must span what its segments span on this slice."""
    drawn = (picture == np.array(colour, dtype=np.uint8)).all(axis=2)
    drawn[:_WORDS_HEIGHT, :_WORDS_WIDTH] = False
    scale = np.array(picture.shape[:2]) / region.shape
    first, last = _span(region)
    expected = np.concatenate([first * scale, (last + 1) * scale - 1])
    hidden = bool((expected[:2] < (_WORDS_HEIGHT, _WORDS_WIDTH)).all())
    if not drawn.any():
        if hidden:
            return
        raise GateError(f"{name} is not drawn on its key image")
    away = (np.concatenate(_span(drawn)) - expected) * (-1, -1, 1, 1)
    tolerance = np.tile(_PICTURE_PIXELS + _VOXELS * scale, 2)
    if (away > tolerance).any() or (not hidden and (away < -tolerance).any()):
        raise GateError(f"{name} is drawn elsewhere than the mask has it")


def _span(region: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First and last (row, column)."""
    at = np.argwhere(region)
    return at.min(axis=0), at.max(axis=0)
