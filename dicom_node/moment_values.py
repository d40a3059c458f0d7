"""What headers say of the moment that an image is of: when, with which b-value, at which echo."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC
from itertools import pairwise

from pydicom.dataset import Dataset

from dicom_node import elements, scan_times
from dicom_node.headers import ImageFile
from engines.volume import MomentsBy


@dataclass(frozen=True, kw_only=True)
class Sign:
    """An attribute that tells moments apart."""

    #: For messages.
    name: str
    #: The value in the unit of what it tells (s, s/mm2, ms); None where an image lacks it.
    read: Callable[[Dataset], float | None]
    #: A time: unlike ordinal numbers it has a unit, and each slice may have its own.
    is_clock: bool = False
    #: Whether it only counts.
    counts: bool = False


def of_groups(
    images: Sequence[ImageFile], groups: Sequence[Sequence[int]], sign: Sign | None, *, by: MomentsBy
) -> list[float | None]:
    """The value of each group of images: seconds since the first, s/mm2 or ms; None for all where it is unknown."""
    if by == "time":
        return _seconds(images, groups)
    if sign is None or sign.counts:
        return [None] * len(groups)
    return [sign.read(images[group[0]].ds) for group in groups]


def in_words(value: float, by: MomentsBy) -> str:
    """ "61.2 s", "b 800" or "2.3 ms"."""
    if by == "b-value":
        return f"b {value:g}"
    return f"{round(value, 1):g} {'s' if by == 'time' else 'ms'}"


def _seconds(images: Sequence[ImageFile], groups: Sequence[Sequence[int]]) -> list[float | None]:
    """By the first clock that all images have and that goes forward from group to group."""
    for sign in SIGNS["time"]:
        read = [sign.read(image.ds) for image in images] if sign.is_clock else [None]
        known = [value for value in read if value is not None]
        if len(known) < len(images):
            continue
        began = [min(known[index] for index in group) for group in groups]
        if all(earlier < later for earlier, later in pairwise(began)):
            return [round(value - began[0], 3) for value in began]
    return [None] * len(groups)


def _number(keyword: str, per_unit: float = 1.0) -> Callable[[Dataset], float | None]:
    """A number in units of which one of ours has `per_unit`."""

    def read(ds: Dataset) -> float | None:
        found = elements.number(ds, keyword)
        return None if found is None else found / per_unit

    return read


def _date_time(keyword: str) -> Callable[[Dataset], float | None]:
    """A date and time as seconds; of one device, so that its zone says nothing."""

    def read(ds: Dataset) -> float | None:
        found = scan_times.date_time(elements.text(ds, keyword))
        return None if found is None else found.replace(tzinfo=UTC).timestamp()

    return read


def _acquired(ds: Dataset) -> float | None:
    found = scan_times.moment(ds, "Acquisition")
    return None if found is None else found.replace(tzinfo=UTC).timestamp()


def _b_value(ds: Dataset) -> float | None:
    """Diffusion b-value; that of an image without diffusion weighting may be left out (PS3.3 C.8.13.5.9)."""
    found = elements.number(ds, "DiffusionBValue")
    if found is None and elements.text(ds, "DiffusionDirectionality") == "NONE":
        return 0.0
    return found


def _private(group: int, creator: str, element: int) -> Callable[[Dataset], float | None]:
    """The first number of a vendor's private attribute."""

    def read(ds: Dataset) -> float | None:
        try:
            found = ds.private_block(group, creator)[element].value
            many = found.split("\\") if isinstance(found, str) else found
            first = many if isinstance(many, int | float) else many[0]
            # GE adds 10^9 in some releases.
            return float(first) % 1e9
        except elements.BROKEN:
            return None

    return read


#: What tells moments apart, the plainest first. Which of them a sender fills differs from vendor to vendor.
SIGNS: Mapping[MomentsBy, Sequence[Sign]] = {
    "time": (
        Sign(name="Temporal Position Index", read=_number("TemporalPositionIndex"), counts=True),
        Sign(name="Temporal Position Identifier", read=_number("TemporalPositionIdentifier"), counts=True),
        Sign(name="Temporal Position Time Offset", read=_number("TemporalPositionTimeOffset"), is_clock=True),
        Sign(name="Trigger Time", read=_number("TriggerTime", 1000), is_clock=True),
        Sign(name="Frame Reference Time", read=_number("FrameReferenceTime", 1000), is_clock=True),
        Sign(name="Frame Acquisition DateTime", read=_date_time("FrameAcquisitionDateTime"), is_clock=True),
        Sign(name="Acquisition DateTime", read=_date_time("AcquisitionDateTime"), is_clock=True),
        Sign(name="Acquisition Date and Time", read=_acquired, is_clock=True),
        Sign(name="Acquisition Number", read=_number("AcquisitionNumber"), counts=True),
    ),
    "b-value": (
        Sign(name="Diffusion b-value", read=_b_value),
        # As their conformance statements have it, for images from before the standard had one.
        Sign(name="Siemens' (0019,xx0C)", read=_private(0x0019, "SIEMENS MR HEADER", 0x0C)),
        Sign(name="GE's (0043,xx39)", read=_private(0x0043, "GEMS_PARM_01", 0x39)),
        Sign(name="Philips' (2001,xx03)", read=_private(0x2001, "Philips Imaging DD 001", 0x03)),
    ),
    "echo-time": (
        Sign(name="Effective Echo Time", read=_number("EffectiveEchoTime")),
        Sign(name="Echo Time", read=_number("EchoTime")),
        Sign(name="Echo Numbers", read=_number("EchoNumbers"), counts=True),
    ),
}
