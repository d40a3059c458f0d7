"""The gate's part that is every Segmentation's: its segments are described, and its frames lie, as they should."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag

from dicom_node.errors import GateError
from dicom_node.results import codes, references, segments
from dicom_node.results.context import ResultContext
from engines.findings import Code, Findings, Segment
from engines.volume import Geometry

#: How far, in voxels along any axis, a frame's corner may be from where the mask's grid has it. The grid is a
#: fit: the series reader takes a slice that is a quarter of a gap off its even place. A flip, a shift or a swap
#: is off by whole voxels.
TOLERANCE_VOXELS = 0.3

#: How far, in mm, a frame may be from the source image that it lies on: what viewers allow.
TOLERANCE_MM = 1e-3

#: The macros that say where a frame lies, and how large its pixels are.
_PLACING = ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, eq=False)
class Frames:
    """What a Segmentation's functional groups say of its frames."""

    #: None where they lie on the source image and nowhere else.
    place: Place | None
    #: Referenced Segment Number of each; 0 where a frame holds all segments.
    segments: NDArray[np.int64]
    #: SOP Instance UID and frame number of the source image of each; None where it names none.
    sources: list[tuple[str, int | None] | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class Place:
    """Where frames lie in the patient."""

    #: (frames, 3): Image Position (Patient), LPS mm.
    positions: NDArray[np.float64]
    #: Directions along a row and down a column, and spacing (rows, columns), mm.
    along_row: NDArray[np.float64]
    down_column: NDArray[np.float64]
    spacing: tuple[float, float]


def check(ds: Dataset, context: ResultContext, findings: Findings) -> tuple[Frames, NDArray[np.int64]]:
    """Compare what a Segmentation says of its segments and of its place with the findings.

    Returns its frames and the mask's slice that each lies on. Raises GateError that says what differs.
    """
    _check_segments(ds, context, findings)
    return check_place(ds, context, findings)


def check_place(ds: Dataset, context: ResultContext, findings: Findings) -> tuple[Frames, NDArray[np.int64]]:
    """Compare what a multi-frame image says of its place with the findings' grid and the source images.

    Returns its frames and the slice that each lies on. Raises GateError that says what differs.
    """
    geometry = findings.geometry
    if not geometry.agrees_with(context.source.volume.geometry):
        raise GateError("the mask is not on the source volume's grid")
    if str(ds.get("FrameOfReferenceUID", "")) != context.frame_of_reference_uid:
        raise GateError("FrameOfReferenceUID is not the source's")
    if (ds.Rows, ds.Columns) != geometry.shape[1:]:
        raise GateError(
            f"{ds.Rows} x {ds.Columns} pixels, the mask has {geometry.shape[1]} x {geometry.shape[2]}"
        )
    frames = read_frames(ds)
    _check_instances(ds, context)
    if not geometry.in_patient:
        _check_unplaced(ds, frames, context)
        return frames, np.zeros(len(frames.sources), dtype=np.int64)
    if frames.place is None:
        raise GateError("its frames have no place in the patient")
    slices = located(frames.place, geometry)
    _check_sources(frames.sources, slices, context)
    _check_distance(frames.place, slices, context)
    return frames, slices


def read_frames(ds: Dataset) -> Frames:
    """The functional groups as arrays (PS3.3 C.7.6.16)."""
    shared = ds.SharedFunctionalGroupsSequence[0]
    groups = list(ds.PerFrameFunctionalGroupsSequence)
    # With a single segment the macro may be shared (PS3.3 C.8.20.3.1).
    owners = [group if "SegmentIdentificationSequence" in group else shared for group in groups]
    placed = "PlaneOrientationSequence" in shared
    return Frames(
        place=_place(shared, groups) if placed else None,
        segments=np.array(_each(owners, "SegmentIdentificationSequence", _segment), dtype=np.int64),
        sources=_each(groups, "DerivationImageSequence", _source),
    )


def _place(shared: Dataset, groups: Sequence[Dataset]) -> Place:
    """Plane Position, Plane Orientation and Pixel Measures (PS3.3 C.7.6.16.2)."""
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, dtype=np.float64)
    measures = shared.PixelMeasuresSequence[0].PixelSpacing
    positions = np.array(_each(groups, "PlanePositionSequence", _position), dtype=np.float64)
    return Place(
        positions=positions.reshape(-1, 3),
        along_row=orientation[:3],
        down_column=orientation[3:],
        spacing=(float(measures[0]), float(measures[1])),
    )


def _each(groups: Sequence[Dataset], macro: str, read: Callable[[Dataset], _T]) -> list[_T]:
    """What `read` finds in each group, macros of the same bytes read once.

    The frames of one slice say the same of it, and pydicom is slow with sequences.
    """
    tag = Tag(macro)
    known: dict[bytes, _T] = {}
    found = []
    for group in groups:
        encoded = group.get_item(tag).value if tag in group else None
        # What is decoded already, or not there, has no bytes.
        if not isinstance(encoded, bytes):
            found.append(read(group))
            continue
        if encoded not in known:
            known[encoded] = read(group)
        found.append(known[encoded])
    return found


def _position(group: Dataset) -> list[float]:
    """Image Position (Patient), LPS mm."""
    return [float(value) for value in group.PlanePositionSequence[0].ImagePositionPatient]


def _segment(group: Dataset) -> int:
    """The segment that a frame shows; 0 where it names none."""
    identified = group.get("SegmentIdentificationSequence")
    return int(identified[0].ReferencedSegmentNumber) if identified else 0


def _source(group: Dataset) -> tuple[str, int | None] | None:
    """The one source image that a frame says it was derived from; None where there is not exactly one."""
    images = [
        image for item in group.get("DerivationImageSequence") or () for image in item.SourceImageSequence
    ]
    return references.read_image(images[0]) if len(images) == 1 else None


def located(frames: Place, geometry: Geometry) -> NDArray[np.int64]:
    """The mask's slice that each frame lies on.

    Three corners of every frame, by PS3.3 equation C.7.6.2.1-1, must be those of a slice of the
    mask. Raises GateError where a frame lies elsewhere.
    """
    rows, columns = geometry.shape[1:]
    across = frames.along_row * frames.spacing[1] * (columns - 1)
    down = frames.down_column * frames.spacing[0] * (rows - 1)
    corners = np.stack([frames.positions, frames.positions + across, frames.positions + down], axis=1)
    index = geometry.to_index(corners)
    slices = np.rint(index[:, 0, 0]).astype(np.int64)
    expected = np.zeros_like(index)
    expected[..., 0] = slices[:, None]
    expected[:, 1, 2], expected[:, 2, 1] = columns - 1, rows - 1
    away = np.abs(index - expected).max(axis=(1, 2))
    wrong = np.flatnonzero((away > TOLERANCE_VOXELS) | (slices < 0) | (slices >= geometry.shape[0]))
    if wrong.size:
        first = int(wrong[0])
        raise GateError(f"frame {first + 1} is not on the mask's grid: {away[first]:.2f} voxels from a slice")
    return slices


def _check_unplaced(ds: Dataset, frames: Frames, context: ResultContext) -> None:
    """Each frame must lie on the one source image, pixel on pixel, and claim no place or size of its own."""
    groups = [*ds.SharedFunctionalGroupsSequence, *ds.PerFrameFunctionalGroupsSequence]
    if any(macro in group for group in groups for macro in _PLACING):
        raise GateError("its frames claim a place or a size, which they have from their source image alone")
    _check_sources(frames.sources, np.zeros(len(frames.sources), dtype=np.int64), context)
    [image] = context.source.datasets
    sources = [
        source
        for group in ds.PerFrameFunctionalGroupsSequence
        for item in group.DerivationImageSequence
        for source in item.SourceImageSequence
    ]
    if {str(source.ReferencedSOPClassUID) for source in sources} != {str(image.SOPClassUID)}:
        raise GateError("a frame names its source image by another class")
    if {str(source.get("SpatialLocationsPreserved")) for source in sources} != {"YES"}:
        raise GateError("a frame does not say that it lies on its source image, pixel on pixel")


def _check_sources(
    sources: Sequence[tuple[str, int | None] | None], slices: NDArray[np.int64], context: ResultContext
) -> None:
    """Each frame must name the source image of its own slice."""
    expected = context.source_slices()
    for number, (source, index) in enumerate(zip(sources, slices.tolist(), strict=True), start=1):
        if source != expected[index]:
            raise GateError(f"frame {number} lies on slice {index + 1} and names another source image")


def _check_distance(frames: Place, slices: NDArray[np.int64], context: ResultContext) -> None:
    """Each frame must lie exactly on its source image."""
    images = np.array([ds.ImagePositionPatient for ds in context.source.datasets], dtype=np.float64)
    away = np.abs(frames.positions - images[slices]).max(axis=1)
    wrong = np.flatnonzero(away > TOLERANCE_MM)
    if wrong.size:
        first = int(wrong[0])
        raise GateError(f"frame {first + 1} is {away[first]:.3f} mm off its source image")


def _check_instances(ds: Dataset, context: ResultContext) -> None:
    """Where readers look for the whole source, each of its instances must stand once."""
    by_series = [_uids(series.ReferencedInstanceSequence) for series in ds.ReferencedSeriesSequence]
    looked_at = [[str(image.SOPInstanceUID) for image in series] for series in context.looked_at()]
    if by_series != looked_at or _uids(ds.SourceImageSequence) != context.source_uids():
        raise GateError("the source instances named are not the series'")
    slices = set(context.source_slices())
    for item in ds.SourceImageSequence:
        numbers = item.get("ReferencedFrameNumber")
        listed = [numbers] if isinstance(numbers, int) else list(numbers or ())
        frames = {(str(item.ReferencedSOPInstanceUID), number) for number in listed}
        if not frames <= slices:
            raise GateError("the source frames named are not the volume's")


def _uids(items: Sequence[Dataset]) -> list[str]:
    """The SOP Instance UIDs of references."""
    return [str(item.ReferencedSOPInstanceUID) for item in items]


def _check_segments(ds: Dataset, context: ResultContext, findings: Findings) -> None:
    """The described segments must be the findings', in number, label, codes and identity."""
    read = [_described(item) for item in ds.SegmentSequence]
    expected = [_expected(context, segment) for segment in findings.segments]
    if [item[0] for item in read] != [item[0] for item in expected]:
        raise GateError(f"segments {[item[0] for item in read]} instead of {[item[0] for item in expected]}")
    for found, wanted in zip(read, expected, strict=True):
        if found != wanted:
            raise GateError(f"segment {wanted[0]} is described with another label, code or Tracking UID")


def _described(item: Dataset) -> tuple[int, str, Code, Code, Code | None, str]:
    """A segment as the object describes it."""
    regions = item.get("AnatomicRegionSequence")
    return (
        int(item.SegmentNumber),
        str(item.SegmentLabel),
        codes.read(item.SegmentedPropertyCategoryCodeSequence[0]),
        codes.read(item.SegmentedPropertyTypeCodeSequence[0]),
        codes.read(regions[0]) if regions else None,
        str(item.TrackingUID),
    )


def _expected(context: ResultContext, segment: Segment) -> tuple[int, str, Code, Code, Code | None, str]:
    """A segment as the findings have it."""
    return (
        segment.number,
        segment.label,
        segment.category,
        segment.type,
        segment.anatomic_region,
        segments.tracking_uid(context, segment.number),
    )
