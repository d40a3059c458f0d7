"""An array that never travels without its geometry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engines.errors import VolumeError

#: Patient directions of the LPS axes, (negative, positive): right/left, anterior/posterior, foot/head
#: (PS3.3 C.7.6.1.1.1).
_DIRECTIONS = (("R", "L"), ("A", "P"), ("F", "H"))

#: A box of voxels: first and one-past-last along (slice, row, column).
Region = tuple[slice, slice, slice]
WHOLE: Region = (slice(None), slice(None), slice(None))

#: What a model looks at: the source's own values, a single image as it is displayed (0 black to 1 white), or
#: a PET's standardised uptake value by body weight.
Values = Literal["source", "displayed", "SUVbw"]

#: What tells the volumes of one series apart: when they were acquired (s since the first), the strength of their
#: diffusion weighting (s/mm2), or their echo time (ms).
MomentsBy = Literal["time", "b-value", "echo-time"]

#: UCUM code of SUVbw (PS3.16 CID 85).
SUV = "g/ml{SUVbw}"


#: (slice, row, column), in voxels; whole numbers are voxel centres.
Point = tuple[float, float, float]


class Scale(StrEnum):
    """Along which axes the millimetres between voxels are known."""

    VOLUME = "volume"
    #: Rows and columns; nobody says how thick the one slice is.
    PLANE = "plane"
    NONE = "none"


@dataclass(frozen=True, kw_only=True, eq=False)
class Geometry:
    """Where the voxels of an array lie in the patient.

    The array's axes are (slice, row, column). `affine` maps the homogeneous index
    (slice, row, column, 1) of a voxel centre to LPS millimetres: x to the patient's left,
    y to posterior, z to the head (PS3.3 C.7.6.2.1.1). A single image may be without a place in the patient,
    and even without a size: there `in_patient` and `scale` say what the affine's numbers are not.
    """

    #: Voxels along (slice, row, column).
    shape: tuple[int, int, int]
    #: 4 x 4, float64, LPS mm.
    affine: NDArray[np.float64]
    #: Frame of Reference UID; None where the source has none.
    frame_of_reference_uid: str | None = None
    #: False for a projection or a photograph: the affine's x runs along a row, and its y down a column.
    in_patient: bool = True
    #: An axis whose millimetres are unknown counts voxels.
    scale: Scale = Scale.VOLUME

    def __post_init__(self) -> None:
        affine = np.array(self.affine, dtype=np.float64)
        if affine.shape != (4, 4) or not np.isfinite(affine).all():
            raise VolumeError(f"the affine must be a finite 4 x 4 matrix, not {affine.shape}")
        if len(self.shape) != 3 or min(self.shape) < 1:
            raise VolumeError(f"a volume needs three axes of at least one voxel, not {self.shape}")
        if abs(np.linalg.det(affine[:3, :3])) < 1e-9:
            raise VolumeError("the affine is singular: two axes of the volume coincide")
        if self.scale is not Scale.VOLUME and self.shape[0] > 1:
            raise VolumeError("slices whose distance is unknown make no volume")
        affine.setflags(write=False)
        object.__setattr__(self, "affine", affine)

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Distance between voxel centres along (slice, row, column), mm; 1 where `scale` leaves it unknown."""
        lengths = np.linalg.norm(self.affine[:3, :3], axis=0)
        return (float(lengths[0]), float(lengths[1]), float(lengths[2]))

    @property
    def voxel_volume_mm3(self) -> float | None:
        """Volume of one voxel, mm3; None where that is unknown."""
        return float(abs(np.linalg.det(self.affine[:3, :3]))) if self.scale is Scale.VOLUME else None

    @property
    def pixel_area_mm2(self) -> float | None:
        """Area of one pixel of a slice, mm2; None where that is unknown."""
        return self.spacing[1] * self.spacing[2] if self.scale is not Scale.NONE else None

    @property
    def orientation(self) -> str:
        """Three letters: the patient direction nearest to each axis, e.g. "HPL" for an axial CT."""
        return "".join(_DIRECTIONS[lps][positive] for lps, positive in self._nearest_axes())

    def _nearest_axes(self) -> list[tuple[int, bool]]:
        """For each array axis the LPS axis nearest to it, each LPS axis used once, and its sign."""
        cosines = self.affine[:3, :3] / np.linalg.norm(self.affine[:3, :3], axis=0)
        strength = np.abs(cosines)
        chosen: dict[int, int] = {}
        for flat in np.argsort(-strength, axis=None, kind="stable"):
            lps, axis = divmod(int(flat), 3)
            if axis not in chosen and lps not in chosen.values():
                chosen[axis] = lps
        return [(chosen[axis], bool(cosines[chosen[axis], axis] > 0)) for axis in range(3)]

    def to_patient(self, index: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Map voxel indices (..., 3) in (slice, row, column) order to LPS mm (..., 3)."""
        return np.asarray(index @ self.affine[:3, :3].T + self.affine[:3, 3], dtype=np.float64)

    def to_index(self, point: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
        """Map LPS mm (..., 3) to continuous voxel indices (..., 3) in (slice, row, column) order."""
        inverse = np.linalg.inv(self.affine)
        return np.asarray(point @ inverse[:3, :3].T + inverse[:3, 3], dtype=np.float64)

    def reoriented(self, orientation: str) -> tuple[Geometry, tuple[int, int, int], tuple[bool, bool, bool]]:
        """The same voxels with axes that run towards `orientation`, without resampling.

        Returns the new geometry, the permutation and the flips (both in the new axis order) that
        bring an array of this geometry there: `array.transpose(permutation)`, then flip.
        Raises VolumeError where `orientation` does not name one direction of each pair R/L, A/P, F/H, and
        where there is no patient.
        """
        if not self.in_patient:
            raise VolumeError("the image has no place in the patient: nobody knows which way it is turned")
        wanted = [_direction(letter) for letter in orientation]
        if sorted(lps for lps, _ in wanted) != [0, 1, 2]:
            raise VolumeError(f'"{orientation}" is not an orientation; write e.g. "HPL"')
        own = self._nearest_axes()
        source = [next(axis for axis in range(3) if own[axis][0] == lps) for lps, _ in wanted]
        flips = [own[axis][1] != positive for axis, (_, positive) in zip(source, wanted, strict=True)]
        affine = np.eye(4)
        affine[:3, 3] = self.affine[:3, 3]
        for new_axis, (axis, flip) in enumerate(zip(source, flips, strict=True)):
            step = self.affine[:3, axis]
            affine[:3, new_axis] = -step if flip else step
            if flip:
                affine[:3, 3] += step * (self.shape[axis] - 1)
        shape = (self.shape[source[0]], self.shape[source[1]], self.shape[source[2]])
        geometry = replace(self, shape=shape, affine=affine)
        return geometry, (source[0], source[1], source[2]), (flips[0], flips[1], flips[2])

    def within(self, region: Region) -> Geometry:
        """The grid of the voxels in `region` alone, each at its place."""
        ends = [part.indices(length)[:2] for part, length in zip(region, self.shape, strict=True)]
        (first, end), (top, bottom), (left, right) = ends
        affine = self.affine.copy()
        affine[:3, 3] = self.to_patient(np.array([first, top, left], dtype=np.float64))
        return replace(self, shape=(end - first, bottom - top, right - left), affine=affine)

    def around(self, shape: tuple[int, int, int], region: Region) -> Geometry:
        """The grid of `shape` of which this is the `region`."""
        affine = self.affine.copy()
        affine[:3, 3] = self.to_patient(np.array([-float(part.start) for part in region]))
        return replace(self, shape=shape, affine=affine)

    def agrees_with(self, other: Geometry, tolerance_mm: float = 1e-3) -> bool:
        """Whether both place every voxel at the same point, to `tolerance_mm`."""
        if self.shape != other.shape:
            return False
        corners = np.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)], dtype=np.float64)
        corners *= np.array(self.shape) - 1
        return bool(np.abs(self.to_patient(corners) - other.to_patient(corners)).max() <= tolerance_mm)


def _direction(letter: str) -> tuple[int, bool]:
    """The LPS axis and sign that a patient direction letter names."""
    for lps, pair in enumerate(_DIRECTIONS):
        if letter in pair:
            return lps, pair.index(letter) == 1
    raise VolumeError(f'"{letter}" is not a patient direction; use L, R, A, P, H or F')


@dataclass(frozen=True, kw_only=True, eq=False)
class Volume:
    """Voxels with the place and the meaning of each.

    `array` has the axes (slice, row, column) of `geometry`; its values are in `unit`, a UCUM code
    ("[hnsf'U]" for CT; "1" where the values have no unit).
    """

    array: NDArray[Any]
    geometry: Geometry
    unit: str = "1"
    #: Values that the source wants shown black and white; None where it does not say so of the whole volume.
    window: tuple[float, float] | None = None
    #: Of a clip: (frames, rows, columns), of which `array` is the middle one; None for what does not move.
    frames: NDArray[Any] | None = None
    #: The same voxels at further moments, of which `array` is the first: arrays of its shape, each of its own dtype.
    further: tuple[NDArray[Any], ...] = ()

    def __post_init__(self) -> None:
        for array in self.further:
            if array.shape != self.array.shape:
                raise VolumeError(
                    f"a further moment {array.shape} and array {self.array.shape} differ in shape"
                )
        if self.frames is not None and self.frames.shape[1:] != self.array.shape[1:]:
            raise VolumeError(f"frames {self.frames.shape} and array {self.array.shape} differ in shape")
        if self.array.shape != self.geometry.shape:
            raise VolumeError(f"array {self.array.shape} and geometry {self.geometry.shape} differ in shape")

    def reoriented(self, orientation: str) -> Volume:
        """The same voxels with axes that run towards `orientation` (a view, not a copy)."""
        geometry, permutation, flips = self.geometry.reoriented(orientation)
        flipped = tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)

        def turned(array: NDArray[Any]) -> NDArray[Any]:
            return array.transpose(permutation)[flipped]

        further = tuple(map(turned, self.further))
        return replace(self, array=turned(self.array), geometry=geometry, further=further)

    def within(self, region: Region) -> Volume:
        """The voxels in `region` alone (a view, not a copy)."""
        further = tuple(array[region] for array in self.further)
        return replace(self, array=self.array[region], geometry=self.geometry.within(region), further=further)
