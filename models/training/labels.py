"""Lungs and body of a CT by classical means: thresholds, connected components, morphology."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Mask = NDArray[np.bool_]
Triple = tuple[float, float, float]

BACKGROUND, LEFT_LUNG, RIGHT_LUNG, BODY = 0, 1, 2, 3
NAMES = ("background", "left lung", "right lung", "body")

#: HU above which a voxel is tissue, and below which it is lung or gas.
TISSUE, GAS = -300, -400
#: HU that airways stay below and lung tissue does not (after smoothing).
AIRWAY = -940


def segment(hu: NDArray[Any], spacing: Triple) -> NDArray[np.uint8]:
    """Label a CT in orientation HPL (slices to the head, rows to posterior, columns to the left).

    `hu` has the axes (slice, row, column), `spacing` is in mm. Returns the label map: 0 background,
    1 left lung, 2 right lung, 3 body (all of the patient but the lungs, airways and bowel gas included).
    """
    body = body_mask(hu, spacing)
    gas = body & (hu < GAS)
    airways = trachea_and_bronchi(hu, gas, spacing)
    lungs = split_lungs(lung_candidates(gas & ~airways, body, spacing), spacing)
    lungs = close_vessels(lungs, spacing) * body
    lungs[airways] = 0
    return np.where(lungs > 0, lungs, np.where(body, BODY, BACKGROUND)).astype(np.uint8)


def disc(radius_mm: float, spacing: Triple) -> Mask:
    """A flat round structuring element in the axial plane."""
    return ball(radius_mm, (1e9, spacing[1], spacing[2]))


def ball(radius_mm: float, spacing: Triple) -> Mask:
    """A round structuring element in millimetres."""
    reach = [int(radius_mm // step) for step in spacing]
    axes = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    distance = sum((axis * step) ** 2 for axis, step in zip(axes, spacing, strict=True))
    return np.asarray(distance <= radius_mm**2)


def largest(mask: Mask) -> Mask:
    """The largest connected component."""
    names, count = ndimage.label(mask)
    if count == 0:
        return mask
    sizes = np.bincount(names.ravel())
    sizes[0] = 0
    return np.asarray(names == sizes.argmax())


def body_mask(hu: NDArray[Any], spacing: Triple) -> Mask:
    """The patient without table, blankets and the air around; lungs and gas inside are filled."""
    tissue = hu > TISSUE
    core = ndimage.binary_opening(tissue, disc(6.0, spacing))
    core = largest(core)
    near = ndimage.binary_dilation(core, disc(6.0, spacing)) & tissue
    closed = ndimage.binary_closing(np.pad(near, ((0, 0), (8, 8), (8, 8))), disc(5.0, spacing))[:, 8:-8, 8:-8]
    return np.stack([_fill(plane) for plane in closed])


def _fill(plane: Mask) -> Mask:
    """Fill holes of one axial plane, also where the body leaves the field of view on both sides."""
    return np.asarray(ndimage.binary_fill_holes(plane))


def trachea_and_bronchi(hu: NDArray[Any], gas: Mask, spacing: Triple) -> Mask:
    """Follow the windpipe from the highest plane that shows it down into the main bronchi."""
    smooth = ndimage.gaussian_filter(hu.astype(np.float32), [0.0, 1.0, 1.0])
    air = gas & (smooth < AIRWAY)
    found = np.zeros_like(gas)
    area = spacing[1] * spacing[2]
    previous: Mask | None = None
    for index in range(hu.shape[0] - 1, -1, -1):
        plane = _round_and_central(gas[index], area) if previous is None else None
        if previous is not None:
            plane = _continued(air[index], previous, area)
        if plane is not None:
            found[index] = plane
        elif previous is not None:
            break
        previous = plane if plane is not None else previous
    return ndimage.binary_dilation(found, disc(2.0, spacing)) & gas


def _round_and_central(gas: Mask, area: float) -> Mask | None:
    """The component of a plane that looks like a windpipe: 60 to 700 mm2, compact, near the middle column."""
    names, count = ndimage.label(gas)
    if count == 0:
        return None
    middle = gas.shape[1] / 2
    best: tuple[float, int] | None = None
    for number, box in enumerate(ndimage.find_objects(names), start=1):
        size = float((names[box] == number).sum()) * area
        height, width = box[0].stop - box[0].start, box[1].stop - box[1].start
        compact = size / (height * width * area)
        offset = abs((box[1].start + box[1].stop) / 2 - middle) * area**0.5
        if 60 <= size <= 700 and compact > 0.55 and offset < 50 and (best is None or offset < best[0]):
            best = (offset, number)
    return None if best is None else np.asarray(names == best[1])


def _continued(air: Mask, previous: Mask, area: float) -> Mask | None:
    """The parts of a plane's air that touch the airway of the plane above and have not leaked into lung."""
    names, _ = ndimage.label(air)
    touched = np.unique(names[ndimage.binary_dilation(previous, iterations=2)])
    kept = [number for number in touched if number and float((names == number).sum()) * area <= 700]
    plane = np.isin(names, kept)
    return plane if kept and float(plane.sum()) * area <= 1200 else None


def lung_candidates(gas: Mask, body: Mask, spacing: Triple) -> Mask:
    """Gas in the body that is lung: large, and reaching away from the skin; bowel gas is small."""
    voxel_ml = float(np.prod(spacing)) / 1000
    opened = ndimage.binary_opening(gas, disc(3.0, spacing))
    names, count = ndimage.label(opened)
    sizes = np.bincount(names.ravel(), minlength=count + 1) * voxel_ml
    sizes[0] = 0.0
    keep = sizes >= max(0.08 * sizes.max(initial=0.0), 60.0)
    seeds = keep[names]
    grown = ndimage.binary_dilation(seeds, disc(4.0, spacing)) & gas
    return grown & body


def split_lungs(lungs: Mask, spacing: Triple) -> NDArray[np.uint8]:
    """Tell left from right: erode until no component spans the midline, then grow back to the nearest."""
    radius, core = 0.0, lungs
    while radius < 16.0:
        core = lungs if radius == 0.0 else ndimage.distance_transform_edt(lungs, spacing) > radius
        sides = _sides(core, spacing)
        if sides is not None:
            return _nearest(lungs, sides, spacing)
        radius += 2.0
    columns = np.arange(lungs.shape[2])[None, None, :]
    middle = float((lungs * columns).sum() / max(lungs.sum(), 1))
    return np.where(columns > middle, LEFT_LUNG, RIGHT_LUNG).astype(np.uint8) * lungs


def _sides(core: Mask, spacing: Triple) -> NDArray[np.uint8] | None:
    """Components by side of the patient; None where one of them holds both lungs."""
    names, count = ndimage.label(core)
    if count == 0:
        return np.zeros(core.shape, np.uint8)
    sizes = np.bincount(names.ravel(), minlength=count + 1)
    sizes[0] = 0
    boxes = ndimage.find_objects(names)
    largest_width = (
        boxes[int(sizes.argmax()) - 1][2].stop - boxes[int(sizes.argmax()) - 1][2].start
    ) * spacing[2]
    if largest_width > 210.0:
        return None
    middle = _midline(names, sizes)
    centres = ndimage.center_of_mass(core, names, range(1, count + 1))
    side = np.zeros(count + 1, np.uint8)
    # Columns run to the patient's left, so the larger column index is the left lung.
    side[1:] = [LEFT_LUNG if centre[2] > middle else RIGHT_LUNG for centre in centres]
    return side[names]


def _midline(names: NDArray[np.int32], sizes: NDArray[np.int64]) -> float:
    """The column between the two largest components, or the image's middle where there is one only."""
    order = np.argsort(sizes)[::-1]
    boxes = ndimage.find_objects(names)
    first = boxes[order[0] - 1][2]
    centre = (first.start + first.stop) / 2
    if len(order) > 1 and sizes[order[1]] > 0.1 * sizes[order[0]]:
        second = boxes[order[1] - 1][2]
        return (centre + (second.start + second.stop) / 2) / 2
    return names.shape[2] / 2


def _nearest(lungs: Mask, sides: NDArray[np.uint8], spacing: Triple) -> NDArray[np.uint8]:
    """Give every lung voxel the side of the nearest core voxel."""
    if not sides.any():
        return sides
    if np.array_equal(lungs, sides > 0):
        return sides
    indices = ndimage.distance_transform_edt(sides == 0, spacing, return_distances=False, return_indices=True)
    return np.asarray(sides[tuple(indices)] * lungs, dtype=np.uint8)


def close_vessels(lungs: NDArray[np.uint8], spacing: Triple) -> NDArray[np.uint8]:
    """Take vessels and small nodules into the lung that surrounds them."""
    closed = lungs.copy()
    for side in (LEFT_LUNG, RIGHT_LUNG):
        padded = np.pad(lungs == side, ((0, 0), (20, 20), (20, 20)))
        full = ndimage.distance_transform_edt(~padded, spacing) <= 7.0
        shut = ndimage.distance_transform_edt(full, spacing) > 7.0
        mask = shut[:, 20:-20, 20:-20] | (lungs == side)
        mask = np.stack([ndimage.binary_fill_holes(plane) for plane in mask])
        closed[mask & (closed == 0)] = side
    return closed
