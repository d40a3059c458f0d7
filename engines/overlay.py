"""Pictures of a mask on its image, the way a radiologist looks at them."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines import box_overlay
from engines.errors import VolumeError
from engines.findings import Box, Segment
from engines.resampling import axis_weights
from engines.volume import Geometry, Volume

Plane = Literal["axial", "coronal", "sagittal"]

#: Where (slice, row, column) run in each picture: the patient's right on the image's left and the head
#: up; anterior up in an axial picture, and on the left in a sagittal one.
_ORIENTATIONS: dict[Plane, str] = {"axial": "HPL", "coronal": "PFL", "sagittal": "LFP"}

#: How much of the segment's colour its fill has; its contour has all of it.
_FILL = 0.3

#: Percentiles of the plane that are shown black and white where no window is asked for.
_CONTRAST = (1.0, 99.0)


def overlay(
    volume: Volume,
    mask: NDArray[Any],
    segments: Sequence[Segment],
    *,
    plane: Plane,
    position: float,
    window: tuple[float, float] | None = None,
    size: int = 512,
    unfilled: Collection[int] = (),
    boxes: Sequence[Box] = (),
) -> NDArray[np.uint8]:
    """One plane of `volume` with `mask` (a label map on its grid) drawn over it: RGB (height, width, 3).

    `position` runs from 0 to 1: from foot to head (axial), front to back (coronal) and right to left
    (sagittal). `window` holds the values shown black and white, in the volume's unit; None takes them
    from the plane. The longer side has `size` pixels, the other follows from the voxels' spacing. The
    segments numbered in `unfilled` get a contour only; `boxes` are drawn where they touch the plane.
    Raises VolumeError where mask and volume differ in shape.
    """
    if mask.shape != volume.array.shape:
        raise VolumeError(f"mask {mask.shape} and volume {volume.array.shape} differ in shape")
    image = volume.reoriented(_ORIENTATIONS[plane])
    labels = replace(volume, array=mask).reoriented(_ORIENTATIONS[plane]).array
    index = round(min(max(position, 0.0), 1.0) * (image.array.shape[0] - 1))
    turned = [box_overlay.reoriented(box, volume.geometry, _ORIENTATIONS[plane]) for box in boxes]
    return slice_overlay(
        image, labels, segments, index=index, window=window, size=size, unfilled=unfilled, boxes=turned
    )


def slice_overlay(
    volume: Volume,
    mask: NDArray[Any],
    segments: Sequence[Segment],
    *,
    index: int,
    window: tuple[float, float] | None = None,
    size: int = 512,
    unfilled: Collection[int] = (),
    boxes: Sequence[Box] = (),
) -> NDArray[np.uint8]:
    """Slice `index` of `volume`, as it was acquired, drawn like `overlay`: RGB (height, width, 3).

    Its longer side has `size` pixels and the other follows from the spacing (`picture_shape`).
    """
    shape = picture_shape(volume.geometry, size)
    grey = _enlarged(volume.array[index].astype(np.float32), shape)
    picture = np.repeat(_windowed(grey, window)[..., None], 3, axis=2)
    thickness = max(1, round(size / 400))
    least = _least(mask.shape[1:], shape)
    for segment in segments:
        inside = _enlarged((mask[index] == segment.number).astype(np.float32), shape) > least
        fill = 0.0 if segment.number in unfilled else _FILL
        _draw(picture, inside, colour=segment.colour, thickness=thickness, fill=fill)
    own = volume.geometry.shape[1:]
    return box_overlay.draw(np.rint(picture).astype(np.uint8), box_overlay.on(boxes, index), own)


def _least(own: tuple[int, ...], shape: tuple[int, int]) -> float:
    """How much of a picture's pixel a segment must fill to be drawn there: half.

    Less in a smaller picture, where a voxel fills but a part of a pixel, and of two where it lies between
    them: a speck must not vanish.
    """
    parts = (
        wanted / (2 * length) if wanted < length else 1.0 for length, wanted in zip(own, shape, strict=True)
    )
    return 0.5 * math.prod(parts)


def picture_shape(geometry: Geometry, size: int) -> tuple[int, int]:
    """(height, width) of a slice's picture, in the aspect ratio of its millimetres."""
    height_mm, width_mm = (
        length * spacing for length, spacing in zip(geometry.shape[1:], geometry.spacing[1:], strict=True)
    )
    scale = size / max(height_mm, width_mm)
    return max(1, round(height_mm * scale)), max(1, round(width_mm * scale))


def _enlarged(plane: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.float32]:
    """The plane interpolated to `shape`."""
    rows, columns = (
        axis_weights(own, wanted, antialias=True) for own, wanted in zip(plane.shape, shape, strict=True)
    )
    tall = plane if rows is None else np.asarray(rows @ plane)
    return tall if columns is None else np.asarray((columns @ tall.T).T)


def _windowed(grey: NDArray[np.float32], window: tuple[float, float] | None) -> NDArray[np.float32]:
    """Grey values 0..255."""
    low, high = window if window is not None else np.percentile(grey, _CONTRAST)
    shown = (grey - np.float32(low)) * np.float32(255 / max(high - low, 1e-6))
    return np.asarray(np.clip(shown, 0, 255), dtype=np.float32)


def _draw(
    picture: NDArray[np.float32],
    inside: NDArray[np.bool_],
    *,
    colour: tuple[int, int, int],
    thickness: int,
    fill: float,
) -> None:
    """Tint the inside of a region and draw the inner edge of its outline."""
    paint = np.array(colour, dtype=np.float32)
    core = inside
    for _ in range(thickness):
        core = _eroded(core)
    picture[core] = (1 - fill) * picture[core] + fill * paint
    picture[inside & ~core] = paint


def _eroded(region: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The region without the pixels that touch its outside; beyond the picture is outside."""
    padded = np.pad(region, 1)
    return region & padded[2:, 1:-1] & padded[:-2, 1:-1] & padded[1:-1, 2:] & padded[1:-1, :-2]
