"""A series of several volumes at one place -> the images of each: over time, b-values or echo times."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dicom_node import elements, geometry, moment_values, selection
from dicom_node.decoding import Decoders
from dicom_node.errors import SeriesError
from dicom_node.geometry import Stack
from dicom_node.headers import ImageFile
from dicom_node.moment_values import Sign
from engines.errors import VolumeError
from engines.volume import MomentsBy

#: What helps where a moment has several unlike images at one place.
_REMEDY = "have each volume sent as a series of its own, or correct what tells them apart"

#: Given the value of each moment, None where it is unknown, the indices of those that are wanted, in their order.
Choice = Callable[[Sequence[float | None]], Sequence[int]]


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which volumes of a series are to be read."""

    by: MomentsBy
    choice: Choice


@dataclass(frozen=True, kw_only=True, eq=False)
class Moment:
    """The images of one volume."""

    #: For messages, e.g. "moment 2 of 5 (61.2 s)".
    name: str
    images: tuple[ImageFile, ...]
    #: Of `images`, in their order.
    stack: Stack


def chosen(images: Sequence[ImageFile], wanted: Wanted, decoders: Decoders) -> tuple[list[Moment], list[str]]:
    """The moments that are wanted, each with one image at each place, and what is to be said of them.

    Ordered by their time, b-value or echo time. Those that are not wanted need not be complete.

    Raises what `geometry.stack` raises, and SeriesError: "too-few-moments", "unknown-moments" where the headers do not
    say which image is of which, "repeated-position" where a moment has unlike images at one place, and
    "missing-slice" where it lacks one that another has.
    """
    images, aside = _without_directions(images) if wanted.by == "b-value" else (images, [])
    places = _places(geometry.stack([image.ds for image in images]))
    groups, sign = _told_apart(images, places, wanted.by)
    values = moment_values.of_groups(images, groups, sign, by=wanted.by)
    try:
        numbers = wanted.choice(values)
    except VolumeError as error:
        raise SeriesError("too-few-moments", f"T{str(error)[1:]}.") from error
    names = _names(values, wanted.by)
    _refuse_incomplete(images, places, {names[number]: groups[number] for number in numbers})
    made, notes = [], aside
    for number in numbers:
        moment, copies = _moment(names[number], [images[index] for index in groups[number]], decoders)
        made.append(moment)
        notes += copies
    said = ", ".join(moment.name.removeprefix("moment ") for moment in made)
    return made, [f"looked at by {wanted.by}: {said}", *notes]


def _without_directions(images: Sequence[ImageFile]) -> tuple[Sequence[ImageFile], list[str]]:
    """Set images of single diffusion directions aside where there is a trace image at each of their places.

    Some scanners send both in one series, told apart by Diffusion Directionality (PS3.3 C.8.13.5.9).
    """
    kinds = [elements.text(image.ds, "DiffusionDirectionality") for image in images]
    single = {index for index, kind in enumerate(kinds) if kind == "DIRECTIONAL"}
    signs = moment_values.SIGNS["b-value"]
    spots = [
        (elements.text(image.ds, "ImagePositionPatient"), *(sign.read(image.ds) for sign in signs))
        for image in images
    ]
    traced = {spots[index] for index, kind in enumerate(kinds) if kind == "ISOTROPIC"}
    if not single or not {spots[index] for index in single} <= traced:
        return images, []
    kept = [image for index, image in enumerate(images) if index not in single]
    return kept, [f"{len(single)} images of single diffusion directions set aside: there are trace images"]


def _names(values: Sequence[float | None], by: MomentsBy) -> list[str]:
    """What to call each moment."""
    said = ["" if value is None else f" ({moment_values.in_words(value, by)})" for value in values]
    return [f"moment {number} of {len(said)}{value}" for number, value in enumerate(said, start=1)]


def _places(stack: Stack) -> NDArray[np.int_]:
    """The number of each image's place along the normal, in the order of the images."""
    found = np.zeros(len(stack.planes), np.int_)
    for place, group in enumerate(stack.positions()):
        found[[plane.index for plane in group]] = place
    return found


def _told_apart(
    images: Sequence[ImageFile], places: NDArray[np.int_], by: MomentsBy
) -> tuple[list[list[int]], Sign | None]:
    """The indices of each moment's images, in order, and what told them apart; None for a series of one.

    There are as many moments as any place has images. What tells so many apart, one image at each place, is
    believed; else what tells most apart, which leaves unlike images at one place to be refused.
    """
    most = int(np.bincount(places).max())
    if most == 1:
        return _alone(images, by)
    best: tuple[list[list[int]], Sign] | None = None
    for sign in moment_values.SIGNS[by]:
        values = [sign.read(image.ds) for image in images]
        groups = _grouped(values)
        if not sign.is_clock and _are_moved(groups, most):
            raise SeriesError(
                "unlike-moments",
                f"The series has {len(groups)} volumes by {sign.name}, and at most {most} images at one place: some "
                "were moved against the others. Have each volume sent as a series of its own.",
            )
        if not 2 <= len(groups) <= most:
            groups = _ranked(values, places, most) if sign.is_clock else []
        if len(groups) == most and all(len(set(places[group])) == len(group) for group in groups):
            return groups, sign
        if len(groups) > (len(best[0]) if best else 1):
            best = groups, sign
    if best is None:
        raise _unknown(most, by)
    return best


def _alone(images: Sequence[ImageFile], by: MomentsBy) -> tuple[list[list[int]], Sign | None]:
    """One image at each place: one volume, unless a b-value or an echo time says that they are of several."""
    for sign in moment_values.SIGNS[by]:
        groups = _grouped([sign.read(image.ds) for image in images])
        if groups and by != "time" and not sign.counts:
            return groups, sign
    return [list(range(len(images)))], None


def _are_moved(groups: Sequence[Sequence[int]], most: int) -> bool:
    """Whether these are volumes of equally many slices, some of which do not lie where those of others do."""
    sizes = {len(group) for group in groups}
    return most < len(groups) and len(sizes) == 1 and min(sizes) > 1


def _grouped(values: Sequence[float | None]) -> list[list[int]]:
    """The indices of equal values, ascending; none where one is unknown."""
    found: dict[float, list[int]] = defaultdict(list)
    for index, value in enumerate(values):
        if value is None:
            return []
        found[round(value, 3)].append(index)
    return [found[value] for value in sorted(found)]


def _ranked(values: Sequence[float | None], places: NDArray[np.int_], most: int) -> list[list[int]]:
    """Where each slice has a time of its own: the first image of every place, then the second, and so on.

    No moments where a place has fewer images than others: which moment lacks one would be a guess.
    """
    known = [value for value in values if value is not None]
    if len(known) < len(values) or (np.bincount(places) != most).any():
        return []
    order = np.lexsort((np.array(known), places)).reshape(-1, most)
    if (np.diff(np.array(known)[order], axis=1) <= 0).any():
        return []
    return [sorted(order[:, rank].tolist()) for rank in range(most)]


def _unknown(most: int, by: MomentsBy) -> SeriesError:
    needed = " or ".join(sign.name for sign in moment_values.SIGNS[by])
    return SeriesError(
        "unknown-moments",
        f"The series has up to {most} images at one place, and its headers do not tell them apart by {by}: that takes "
        f"{needed} in every image, with as many values as moments. Send the original images, complete, or have each "
        "volume sent as a series of its own.",
    )


def _refuse_incomplete(
    images: Sequence[ImageFile], places: NDArray[np.int_], groups: dict[str, list[int]]
) -> None:
    """Raise SeriesError where one of these moments lacks a slice that any moment of the series has."""
    held = {name: set(places[group].tolist()) for name, group in groups.items()}
    whole = set(places.tolist())
    for name, own in held.items():
        lost = sorted(whole - own)
        if lost:
            uid = images[0].ds.get("SeriesInstanceUID", "")
            at = ", ".join(_position(images[int(np.flatnonzero(places == place)[0])]) for place in lost[:3])
            raise SeriesError(
                "missing-slice",
                f"Series {uid}: {name} lacks {len(lost)} of {len(whole)} slices: {at}"
                f"{', and more' if len(lost) > 3 else ''}. Send the series again, complete.",
            )


def _position(image: ImageFile) -> str:
    x, y, z = image.ds.ImagePositionPatient
    return f"that at ({x:.2f}, {y:.2f}, {z:.2f}) mm"


def _moment(name: str, images: Sequence[ImageFile], decoders: Decoders) -> tuple[Moment, list[str]]:
    """One moment without copies of its images. Raises SeriesError "repeated-position" where they differ."""
    stack = geometry.stack([image.ds for image in images])
    try:
        kept, copies = selection.without_copies(stack, images, decoders, remedy=_REMEDY)
    except SeriesError as error:
        raise SeriesError(error.reason, f"{name.capitalize()}: {error}") from error
    if copies:
        stack = geometry.stack([image.ds for image in kept])
    return Moment(name=name, images=tuple(kept), stack=stack), [f"{name}: {copy}" for copy in copies]
