"""Files of one series -> a volume in patient coordinates, or a named reason why not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pydicom.dataset import Dataset

from dicom_node import (
    clip,
    elements,
    encoding,
    geometry,
    headers,
    moments,
    multiframe,
    pixels,
    selection,
    single_image,
    suv,
)
from dicom_node.decoding import Decoders
from dicom_node.encoding import Encoding
from dicom_node.errors import DataSetError, SeriesError
from dicom_node.geometry import Stack
from dicom_node.headers import ImageFile
from dicom_node.moments import Moment
from engines.volume import SUV, Values, Volume

#: UCUM code of the Hounsfield unit.
HOUNSFIELD = "[hnsf'U]"
#: Voxels of two moments are at one place where they are this near: positions are rounded in headers (mm).
_ONE_GRID_MM = 0.05


@dataclass(frozen=True, kw_only=True, eq=False)
class SeriesImages:
    """One series as a volume, and the headers that its results must agree with."""

    #: Rescaled voxels (HU for CT), float32 or int16, with the geometry of the files.
    volume: Volume
    #: Headers without pixel data, one per slice, in the order of the volume's first axis. That of a frame is a
    #: `FrameHeader`, which knows its number.
    datasets: tuple[Dataset, ...]
    #: What was odd but did not stop it, for people, e.g. "1 localizer image set aside".
    notes: tuple[str, ...] = ()
    #: What the volume's values are; unlike "source" they are not what the files hold.
    values: Values = "source"

    @property
    def instances(self) -> tuple[Dataset, ...]:
        """The header of each instance's first slice: each instance once."""
        first: dict[str, Dataset] = {}
        for ds in self.datasets:
            first.setdefault(str(ds.SOPInstanceUID), ds)
        return tuple(first.values())


def read_series(
    paths: Sequence[Path],
    *,
    planar: bool = False,
    values: Values = "source",
    frames: clip.Choice | None = None,
    wanted: moments.Wanted | None = None,
    threads: int = 2,
) -> SeriesImages:
    """Read the files of one CT, MR or PET series as a volume: classic images, or frames that are described.

    With `planar`, read the one image of a series of any kind as a volume of one slice (`single_image`), as displayed
    where `values` says so; with `frames` too, as a clip of those of its frames that it chooses (`clip`). With SUVbw
    in `values`, those of a PET are SUV by body weight (`suv`). With `wanted`, the series holds several volumes at one
    place, of which those are read (`moments`): the first is the volume, whose headers are given, and the others are
    its `further` arrays.

    Of a multi-frame image each frame is a slice, as if it had come as a classic one. The slices ascend along
    the normal of their orientation, row x column (PS3.3 C.7.6.2.1.1); Instance Number, frame numbers, file
    names and Patient Position say nothing. The volume's axes are (slice, row, column); its values are
    rescaled (HU for CT), int16 where that loses nothing, float32 otherwise.

    Raises SeriesError; its `reason` is one of "no-files", "not-dicom", "truncated", "no-pixel-data",
    "undecodable", "not-an-image", "multi-frame", "frame-count", "colour", "inverted-grey", "modality-lut",
    "mixed-patient", "mixed-study", "mixed-series", "mixed-frame-of-reference", "mixed-size",
    "mixed-orientation", "no-geometry", "repeated-instance", "repeated-position", "single-slice",
    "missing-slice", "irregular-spacing", "implausible-spacing", "gantry-tilt", "non-finite", "several-images",
    "no-suv", "too-few-moments", "unknown-moments", "unlike-moments".
    """
    with headers.quietly(), Decoders() as decoders:
        images, notes = _chosen(_opened(paths), decoders, planar=planar, clips=frames is not None)
        if planar:
            return _alone(images, notes, decoders, frames, values=values)
        if wanted is not None:
            chosen, said = moments.chosen(images, wanted, decoders)
            return _several(
                chosen, images, [*notes, *said], values=values, threads=threads, decoders=decoders
            )
        stack = geometry.stack([image.ds for image in images])
        images, copies = selection.without_copies(stack, images, decoders)
        if copies:
            stack = geometry.stack([image.ds for image in images])
        ordered = [images[plane.index] for plane in stack.planes]
        volume, value_notes = _volume(
            stack, ordered, ordered, values=values, threads=threads, decoders=decoders
        )
    return SeriesImages(
        volume=volume,
        datasets=tuple(image.ds for image in ordered),
        notes=(*notes, *copies, *value_notes),
        values=values,
    )


def _several(
    chosen: Sequence[Moment],
    images: Sequence[ImageFile],
    notes: Sequence[str],
    *,
    values: Values,
    threads: int,
    decoders: Decoders,
) -> SeriesImages:
    """The first moment as the volume and the others as its further arrays, decoded one after the other."""
    volumes: list[Volume] = []
    said = list(notes)
    for moment in chosen:
        ordered = [moment.images[plane.index] for plane in moment.stack.planes]
        volume, odd = _volume(
            moment.stack, ordered, images, values=values, threads=threads, decoders=decoders
        )
        said += [f"{moment.name}: {note}" for note in odd]
        if volumes and not volume.geometry.agrees_with(volumes[0].geometry, _ONE_GRID_MM):
            raise SeriesError(
                "unlike-moments",
                f"The slices of {moment.name} do not lie where those of {chosen[0].name} do: they were moved, or "
                "are of another size. Have each volume sent as a series of its own.",
            )
        volumes.append(volume)
    first = chosen[0]
    return SeriesImages(
        volume=replace(volumes[0], further=tuple(volume.array for volume in volumes[1:])),
        datasets=tuple(first.images[plane.index].ds for plane in first.stack.planes),
        notes=tuple(said),
        values=values,
    )


def _volume(
    stack: Stack,
    ordered: Sequence[ImageFile],
    series: Sequence[ImageFile],
    *,
    values: Values,
    threads: int,
    decoders: Decoders,
) -> tuple[Volume, list[str]]:
    """The grid first: it costs nothing, and most refusals are its."""
    encodings = encoding.of_all([image.ds for image in ordered])
    if values == "SUVbw":
        encodings = _as_suv(ordered, encodings, series)
    first = ordered[0].ds
    grid = geometry.geometry(
        stack,
        rows=encodings[0].rows,
        columns=encodings[0].columns,
        frame_of_reference_uid=elements.uid(first, "FrameOfReferenceUID") or None,
    )
    array, padded = pixels.read_volume(
        ordered, encodings, fill_padding=_is_ct(first), threads=threads, decoders=decoders
    )
    unit, notes = (SUV, []) if values == "SUVbw" else _unit(ordered, encodings)
    if padded:
        notes.append(f"{padded} padding voxels set to {pixels.PADDING_HU} HU")
    window = suv.WINDOW if values == "SUVbw" else None
    return Volume(array=array, geometry=grid, unit=unit, window=window), notes


def _as_suv(
    images: Sequence[ImageFile], encodings: Sequence[Encoding], series: Sequence[ImageFile]
) -> list[Encoding]:
    """Encodings that rescale to SUV: the slope is each slice's own, and so is the factor."""
    factors = suv.factors([image.ds for image in images], series=[image.ds for image in series])
    return [
        replace(one, slope=one.slope * factor, intercept=one.intercept * factor)
        for one, factor in zip(encodings, factors, strict=True)
    ]


def _alone(
    images: Sequence[ImageFile],
    notes: Sequence[str],
    decoders: Decoders,
    frames: clip.Choice | None,
    *,
    values: Values,
) -> SeriesImages:
    """The one image that is to be looked at."""
    image, aside = single_image.only(images)
    stored = encoding.of(image.ds)
    unit, unit_notes = _unit([image], [stored])
    if frames is not None:
        volume, odd = clip.read(
            image, stored, frames, unit=unit, displayed=values == "displayed", decoders=decoders
        )
    else:
        volume, odd = single_image.read(
            image,
            stored,
            unit=unit,
            fill_padding=_is_ct(image.ds),
            displayed=values == "displayed",
            decoders=decoders,
        )
    return SeriesImages(
        volume=volume, datasets=(image.ds,), notes=(*notes, *aside, *unit_notes, *odd), values=values
    )


def _opened(paths: Sequence[Path]) -> list[ImageFile]:
    if not paths:
        raise SeriesError("no-files", "The series has no files.")
    images = []
    for position, path in enumerate(paths, start=1):
        try:
            images.append(headers.read(path))
        except DataSetError as error:
            reason = "truncated" if isinstance(error, headers.Truncated) else "not-dicom"
            # A file name may hold a patient's name: count instead.
            raise SeriesError(
                reason, f"File {position} of {len(paths)} {error}. Send the series again, or remove the file."
            ) from error
    return images


def _chosen(
    opened: list[ImageFile], decoders: Decoders, *, planar: bool, clips: bool
) -> tuple[list[ImageFile], list[str]]:
    """The images that make the volume, and what was odd about the others."""
    notes = []
    repaired = sum([selection.with_uid(image) for image in opened])
    if repaired:
        notes.append(f"{repaired} images have no SOP UIDs; those of the file meta are used")
    images, localizers = selection.without_localizers(opened)
    # First what a file cut off at an unlucky place would look like: it lacks a patient, too.
    selection.refuse_unusable(images, planar=planar, clip=clips)
    selection.refuse_mixture(opened)
    images, single = selection.without_localizers(multiframe.split(images))
    images, repeats = selection.without_repeats(images, decoders)
    # Single images need not be comparable.
    frames = [] if planar else selection.one_frame_of_reference(images)
    unnumbered = sum(not elements.text(image.ds, "InstanceNumber") for image in images)
    if unnumbered and not planar:
        notes.append(f"{unnumbered} images have no Instance Number; positions order them anyway")
    return images, [*notes, *localizers, *single, *repeats, *frames]


def _is_ct(ds: Dataset) -> bool:
    return elements.text(ds, "Modality").upper() == "CT"


def _unit(images: Sequence[ImageFile], encodings: Sequence[Encoding]) -> tuple[str, list[str]]:
    """HU for CT that is rescaled to it (PS3.3 C.11.1.1.2), "1" for everything else."""
    if not _is_ct(images[0].ds):
        return "1", []
    types = {elements.text(image.ds, "RescaleType").upper() or "HU" for image in images}
    if types != {"HU"}:
        return "1", ["the rescale type is not HU: values are not Hounsfield units"]
    if not all(one.rescaled for one in encodings):
        return "1", ["no rescale slope and intercept: values are not known to be Hounsfield units"]
    return HOUNSFIELD, []
