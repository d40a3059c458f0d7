"""Where the slices of a series lie: their order, their distance, and the affine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node import elements
from dicom_node.errors import SeriesError
from engines.volume import Geometry

#: Two slices nearer than this are at one position (mm).
SAME_POSITION_MM = 0.01
#: Direction cosines may differ by this between slices (0.06 degrees); scanners round them differently.
_COSINE_TOLERANCE = 1e-3
#: Row and column directions must be perpendicular unit vectors to this (PS3.3 C.7.6.2.1.1).
_ORTHOGONAL_TOLERANCE = 1e-2
#: Pixel spacing may differ by this fraction between slices.
_SPACING_TOLERANCE = 1e-3
#: The stack may drift in the plane by this part of a pixel from first to last slice.
_DRIFT_PIXELS = 0.2
#: Pixels and slices of people are neither nearer nor further apart than this (mm).
_LEAST_SPACING_MM = 0.001
_MOST_SPACING_MM = 100.0
#: A gap may differ from the usual one by this part of it, and a slice from its regular place.
_GAP_TOLERANCE = 0.1
_PLACE_TOLERANCE = 0.25


@dataclass(frozen=True, kw_only=True, eq=False)
class Plane:
    """One slice in the patient."""

    #: Index of the slice in the caller's list.
    index: int
    #: LPS mm of the centre of the first pixel.
    position: NDArray[np.float64]
    #: Instance Number; None where the header has none.
    number: float | None
    #: For messages.
    name: str

    def __str__(self) -> str:
        x, y, z = self.position
        return f"{self.name} at ({x:.2f}, {y:.2f}, {z:.2f}) mm"


@dataclass(frozen=True, kw_only=True, eq=False)
class Stack:
    """Parallel slices in ascending order along row x column (never by number, name or Patient Position)."""

    planes: tuple[Plane, ...]
    #: Unit vectors: towards the next column, towards the next row, and their cross product.
    along_row: NDArray[np.float64]
    along_column: NDArray[np.float64]
    normal: NDArray[np.float64]
    #: mm between rows, mm between columns (PS3.3 10.7.1.3).
    pixel_spacing: tuple[float, float]

    @property
    def distances(self) -> NDArray[np.float64]:
        """Signed distance of each slice along the normal, mm, ascending."""
        return np.array([plane.position @ self.normal for plane in self.planes])

    def positions(self) -> list[list[Plane]]:
        """The slices at each position."""
        groups: list[list[Plane]] = []
        for plane, gap in zip(self.planes, np.diff(self.distances, prepend=-np.inf), strict=True):
            if gap < SAME_POSITION_MM:
                groups[-1].append(plane)
            else:
                groups.append([plane])
        return groups

    def repeated(self) -> list[list[Plane]]:
        """Groups of two or more slices at one position."""
        return [group for group in self.positions() if len(group) > 1]


def stack(datasets: Sequence[Dataset]) -> Stack:
    """Order slices by their position along the normal of their common orientation.

    Raises SeriesError: "no-geometry", "mixed-orientation", "mixed-size", "implausible-spacing".
    """
    orientation = _common_orientation(datasets)
    spacing = _common_spacing(datasets)
    along_row, along_column = orientation[:3], orientation[3:]
    normal = np.cross(along_row, along_column)
    planes = [_plane(ds, index) for index, ds in enumerate(datasets)]
    planes.sort(key=lambda plane: (float(plane.position @ normal), plane.number or 0, plane.index))
    return Stack(
        planes=tuple(planes),
        along_row=along_row,
        along_column=along_column,
        normal=normal,
        pixel_spacing=(float(spacing[0]), float(spacing[1])),
    )


def geometry(slices: Stack, *, rows: int, columns: int, frame_of_reference_uid: str | None) -> Geometry:
    """The grid of a stack whose slices lie evenly on one line (PS3.3 C.7.6.2.1.1, equation C.7.6.2.1-1).

    Axis 0 ascends along row x column, so that (row axis, column axis, slice axis) in the order
    columns, rows, slices is right-handed for every series, head first or feet first.
    Raises SeriesError: "single-slice", "gantry-tilt", "missing-slice", "irregular-spacing",
    "implausible-spacing".
    """
    if len(slices.planes) < 2:
        raise SeriesError(
            "single-slice",
            f"The series has one slice only ({slices.planes[0]}); a volume needs at least two. "
            "Check whether the rest was sent.",
        )
    _refuse_tilt(slices)
    _refuse_gaps(slices)
    _refuse_implausible(float(np.median(np.diff(slices.distances))), "The distance between slices")
    first, last = slices.planes[0].position, slices.planes[-1].position
    affine = np.eye(4)
    affine[:3, 0] = (last - first) / (len(slices.planes) - 1)
    affine[:3, 1] = slices.along_column * slices.pixel_spacing[0]
    affine[:3, 2] = slices.along_row * slices.pixel_spacing[1]
    affine[:3, 3] = first
    shape = (len(slices.planes), rows, columns)
    return Geometry(shape=shape, affine=affine, frame_of_reference_uid=frame_of_reference_uid)


def _plane(ds: Dataset, index: int) -> Plane:
    position = elements.numbers(ds, "ImagePositionPatient", 3)
    number = elements.number(ds, "InstanceNumber")
    assert position is not None  # _common_orientation has refused the series otherwise
    return Plane(index=index, position=position, number=number, name=elements.name(ds).lower())


def _common_orientation(datasets: Sequence[Dataset]) -> NDArray[np.float64]:
    """Six direction cosines (PS3.3 C.7.6.2.1.1) that all slices share."""
    wanting = [
        keyword
        for keyword, count in (
            ("ImagePositionPatient", 3),
            ("ImageOrientationPatient", 6),
            ("PixelSpacing", 2),
        )
        if any(elements.numbers(ds, keyword, count) is None for ds in datasets)
    ]
    if wanting:
        raise SeriesError(
            "no-geometry",
            f"At least one image has no valid {', '.join(wanting)}, so its place in the patient is unknown. "
            "Send the original images, not screen captures or secondary reconstructions.",
        )
    cosines = np.array([elements.numbers(ds, "ImageOrientationPatient", 6) for ds in datasets])
    _refuse_mixed_orientation(cosines)
    return _orthonormal(cosines[0])


def _orthonormal(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    row, column = cosines[:3], cosines[3:]
    lengths = np.array([np.linalg.norm(row), np.linalg.norm(column)])
    if (np.abs(lengths - 1) > _ORTHOGONAL_TOLERANCE).any() or abs(row @ column) > _ORTHOGONAL_TOLERANCE:
        raise SeriesError(
            "no-geometry",
            "ImageOrientationPatient does not hold two perpendicular unit vectors, so the directions of the "
            "image in the patient are unknown.",
        )
    return np.concatenate([row / lengths[0], column / lengths[1]])


def _refuse_mixed_orientation(cosines: NDArray[np.float64]) -> None:
    different: list[NDArray[np.float64]] = []
    counts: list[int] = []
    for one in cosines:
        known = [i for i, seen in enumerate(different) if np.abs(one - seen).max() <= _COSINE_TOLERANCE]
        if known:
            counts[known[0]] += 1
        else:
            different.append(one)
            counts.append(1)
    if len(different) > 1:
        raise SeriesError(
            "mixed-orientation",
            f"The series holds images of {len(different)} orientations "
            f"({', '.join(str(count) for count in counts)} images): it is a localizer, or several stacks in "
            "one series. Have each stack sent as a series of its own.",
        )


def _common_spacing(datasets: Sequence[Dataset]) -> NDArray[np.float64]:
    spacings = np.array([elements.numbers(ds, "PixelSpacing", 2) for ds in datasets])
    if (spacings <= 0).any():
        raise SeriesError("no-geometry", "PixelSpacing is zero or negative in at least one image.")
    if (np.abs(spacings / spacings[0] - 1) > _SPACING_TOLERANCE).any():
        low, high = spacings.min(axis=0), spacings.max(axis=0)
        raise SeriesError(
            "mixed-size",
            f"PixelSpacing differs within the series (from {low[0]:g} x {low[1]:g} to "
            f"{high[0]:g} x {high[1]:g} mm): several reconstructions share one series.",
        )
    first: NDArray[np.float64] = spacings[0]
    for spacing in first:
        _refuse_implausible(float(spacing), "PixelSpacing")
    return first


def _refuse_implausible(spacing: float, what: str) -> None:
    if not _LEAST_SPACING_MM <= spacing <= _MOST_SPACING_MM:
        raise SeriesError(
            "implausible-spacing",
            f"{what} is {spacing:g} mm; an image of a person has between {_LEAST_SPACING_MM:g} and "
            f"{_MOST_SPACING_MM:g} mm. Check the header at the sender.",
        )


def _refuse_tilt(slices: Stack) -> None:
    """A tilted gantry shifts each slice in its plane: the stack is a sheared box, not a grid."""
    positions = np.array([plane.position for plane in slices.planes])
    away = positions - positions[0]
    drift = away - np.outer(away @ slices.normal, slices.normal)
    furthest = float(np.linalg.norm(drift, axis=1).max())
    if furthest <= _DRIFT_PIXELS * min(slices.pixel_spacing):
        return
    height = float(slices.distances[-1] - slices.distances[0])
    angle = np.degrees(np.arctan2(float(np.linalg.norm(drift[-1])), height))
    raise SeriesError(
        "gantry-tilt",
        f"The slices drift by {furthest:.1f} mm in their plane over {height:.1f} mm (about {angle:.1f} "
        "degrees): the gantry was tilted, or several stacks share the series. Send a reconstruction "
        "without tilt.",
    )


def _refuse_gaps(slices: Stack) -> None:
    distances = slices.distances
    gaps = np.diff(distances)
    usual = float(np.median(gaps))
    multiples = np.rint(gaps / usual)
    off = np.abs(gaps / usual - multiples)
    holes = np.flatnonzero((multiples >= 2) & (off <= _GAP_TOLERANCE * multiples))
    uneven = np.abs(gaps / usual - 1) > _GAP_TOLERANCE
    if len(holes) and len(holes) == int(uneven.sum()) and len(holes) * 4 <= max(len(gaps), 4):
        _raise_missing(slices, holes=holes, lost=(multiples[holes] - 1).astype(int), usual=usual)
    regular = np.linspace(distances[0], distances[-1], len(distances))
    if uneven.any() or (np.abs(distances - regular) > _PLACE_TOLERANCE * usual).any():
        raise SeriesError(
            "irregular-spacing",
            f"The distance between slices varies from {gaps.min():.2f} to {gaps.max():.2f} mm (mostly "
            f"{usual:.2f} mm). Send a reconstruction with even spacing.",
        )


def _raise_missing(slices: Stack, *, holes: NDArray[np.intp], lost: NDArray[np.int_], usual: float) -> None:
    places = [
        f"{count} between {slices.planes[hole]} and {slices.planes[hole + 1]}"
        for hole, count in zip(holes[:3], lost[:3], strict=True)
    ]
    more = f", and {len(holes) - 3} more places" if len(holes) > 3 else ""
    total = int(lost.sum())
    raise SeriesError(
        "missing-slice",
        f"{total} slice{'s are' if total > 1 else ' is'} missing (spacing {usual:.2f} mm): "
        f"{', '.join(places)}{more}. Send the series again, complete.",
    )
