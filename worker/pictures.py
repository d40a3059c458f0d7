"""Overlay pictures of a job's mask on its source, for the job page and the demo's report."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from engines import labels, overlay
from engines.findings import Findings
from engines.volume import Volume

#: Display window of a CT: lung and soft tissue are both visible. HU.
_CT_WINDOW = (-1150.0, 350.0)
#: The one that is drawn last.
LAST = "sagittal"
#: Longer side of a picture, pixels.
_SIZE = 512


def draw(volume: Volume, findings: Findings, folder: Path) -> list[Path]:
    """Write three axial, one coronal and one sagittal PNG into `folder`; return their paths.

    Of a single image write it alone, as it was acquired. Of an image that the model made show that.

    The planes go through what the model segmented, or through its most certain box: at its quarter, middle and
    three quarters, so that a picture never shows an empty part of the scan.
    """
    folder.mkdir(parents=True, exist_ok=True)
    volume = findings.image or volume
    window = _window(volume)
    sizes = labels.counts(findings.mask, len(findings.segments))
    frame = labels.surrounding(sizes)
    shared: dict[str, Any] = {
        "window": window,
        "size": _SIZE,
        "unfilled": frame,
        "boxes": findings.boxes,
    }
    if volume.geometry.shape[0] == 1:
        picture = overlay.slice_overlay(volume, findings.mask, findings.segments, index=0, **shared)
        return [_save(picture, folder / "image.png")]
    written = []
    for name, plane, position in _planes(findings, sizes, frame):
        picture = overlay.overlay(
            volume, findings.mask, findings.segments, plane=plane, position=position, **shared
        )
        written.append(_save(picture, folder / f"{name}.png"))
    return written


def _save(picture: NDArray[np.uint8], path: Path) -> Path:
    """Write a picture, which appears whole: pages and the demo show what is there."""
    unfinished = path.with_suffix(".part")
    Image.fromarray(picture).save(unfinished, format="PNG")
    unfinished.replace(path)
    return path


def _window(volume: Volume) -> tuple[float, float]:
    """Display window: the source's, else fixed for Hounsfield units, the middle 98 % of other values."""
    if volume.window is not None:
        return volume.window
    if volume.unit == "[hnsf'U]":
        return _CT_WINDOW
    sample = volume.array[:: max(1, volume.array.shape[0] // 16), ::4, ::4]
    low, high = np.percentile(sample, (1, 99))
    return (float(low), float(max(high, low + 1)))


Plane = Literal["axial", "coronal", "sagittal"]


def _planes(
    findings: Findings, sizes: NDArray[np.int64], frame: set[int]
) -> Iterator[tuple[str, Plane, float]]:
    """Name, plane and position (0..1 along the plane's patient direction) of each picture."""
    wanted = (sizes > 0) & ~np.isin(np.arange(sizes.size), [0, *frame])
    whole = tuple((0, length - 1) for length in findings.geometry.shape)
    found = labels.extents(findings.mask, wanted) or _first_box(findings) or whole
    low, high = _span(findings, found, "FH")
    for index, part in enumerate((0.25, 0.5, 0.75), start=1):
        yield f"axial-{index}", "axial", low + part * (high - low)
    low, high = _span(findings, found, "AP")
    yield "coronal", "coronal", (low + high) / 2
    low, high = _span(findings, found, "RL")
    # A quarter, not the middle: the middle of a body shows neither lung.
    yield LAST, "sagittal", low + (high - low) / 4


def _first_box(findings: Findings) -> tuple[tuple[int, int], ...] | None:
    """First and last index along each axis of the most certain box, as `labels.extents` says it."""
    if not findings.boxes:
        return None
    box = findings.boxes[0]
    faces = zip(box.low, box.high, findings.geometry.shape, strict=True)
    return tuple(
        (max(0, math.floor(low + 0.5)), min(length - 1, math.ceil(high - 0.5))) for low, high, length in faces
    )


def _span(findings: Findings, found: tuple[tuple[int, int], ...], directions: str) -> tuple[float, float]:
    """An extent along a pair of patient directions, as fractions of the volume."""
    geometry = findings.geometry
    axis = next(index for index, letter in enumerate(geometry.orientation) if letter in directions)
    last = max(1, geometry.shape[axis] - 1)
    low, high = found[axis][0] / last, found[axis][1] / last
    return (low, high) if geometry.orientation[axis] == directions[1] else (1 - high, 1 - low)
