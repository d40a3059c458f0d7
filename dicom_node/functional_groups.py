"""What a multi-frame image says of its frames: Shared and Per-Frame Functional Groups (PS3.3 C.7.6.16)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import read_sequence_item
from pydicom.tag import BaseTag
from pydicom.valuerep import VR

from dicom_node import elements
from dicom_node.errors import SeriesError
from dicom_node.frame_header import FrameHeader

_IMAGE_TYPE = BaseTag(0x00080008)
SHARED, PER_FRAME = BaseTag(0x52009229), BaseTag(0x52009230)

#: The macros whose attributes stand at the top level of a classic image, or tell frames apart. Later ones win.
_MACROS = tuple(
    BaseTag(tag)
    for tag in (
        0x00209170,  # Unassigned Shared Converted Attributes: legacy converted images keep the classic ones here
        0x00209171,  # Unassigned Per-Frame Converted Attributes
        0x00209071,  # Frame Anatomy
        0x00209111,  # Frame Content
        0x00209310,  # Temporal Position
        0x00189118,  # Cardiac Synchronization
        0x00189301,  # CT Acquisition Type
        0x00189304,  # CT Acquisition Details
        0x00189312,  # CT Geometry
        0x00189314,  # CT Reconstruction
        0x00189321,  # CT Exposure
        0x00189325,  # CT X-Ray Details
        0x00189006,  # MR Imaging Modifier
        0x00189042,  # MR Receive Coil
        0x00189112,  # MR Timing and Related Parameters
        0x00189114,  # MR Echo
        0x00189115,  # MR Modifier
        0x00189117,  # MR Diffusion
        0x00189119,  # MR Averages
        0x00189226,  # MR Image Frame Type
        0x00189329,  # CT Image Frame Type
        0x00189751,  # PET Frame Type
        0x00209113,  # Plane Position (Patient)
        0x00209116,  # Plane Orientation (Patient)
        0x00289110,  # Pixel Measures
        0x00289132,  # Frame VOI LUT
        0x00289145,  # Pixel Value Transformation
    )
)

#: Study to Instance Number; Frame of Reference UID; Image Pixel (PS3.3 C.7.6.3), but for its padding; Pixel Data.
_OF_INSTANCE = (
    (0x0020000D, 0x00200013),
    (0x00200052, 0x00200052),
    (0x00280002, 0x00280011),
    (0x00280100, 0x00280107),
    (0x7FE00000, 0xFFFFFFFF),
)


def are_in(ds: Dataset) -> bool:
    """Whether an image describes its frames one by one."""
    return PER_FRAME in ds


def frames(ds: Dataset) -> list[FrameHeader]:
    """A header for each frame, in the order of the frames.

    Raises SeriesError "frame-count" where the groups cannot be read, or are not as many as the frames.
    """
    groups = elements.value(ds, "PerFrameFunctionalGroupsSequence") or ()
    declared = elements.number(ds, "NumberOfFrames")
    if not len(groups) or len(groups) != declared:
        raise SeriesError(
            "frame-count",
            f"{elements.name(ds)} declares {'no number of' if declared is None else f'{declared:g}'} frames, and "
            f"describes {len(groups)}: which place each has is unknown. Send the series again.",
        )
    common = _common(ds)
    return [_header(ds, common, group, number) for number, group in enumerate(groups, start=1)]


def of_first_frame(ds: Dataset) -> Dataset:
    """What the groups say of the first frame, as far as they can be read; nothing where there are none.

    Only that frame's group is parsed: there may be thousands.
    """
    made = Dataset()
    _read_like(ds, made)
    with suppress(*elements.BROKEN, OSError):
        for group in (*_shared(ds), *_first(ds)):
            _flatten(group, made)
    return made


def _common(ds: Dataset) -> Dataset:
    """Everything but the groups, with what they say of all frames."""
    made = Dataset({tag: element for tag, element in ds._dict.items() if tag not in (SHARED, PER_FRAME)})
    for group in _shared(ds):
        _flatten(group, made)
    return made


def _header(ds: Dataset, common: Dataset, group: Dataset, number: int) -> FrameHeader:
    made = FrameHeader(dict(common._dict))
    _read_like(ds, made)
    made.file_meta = ds.file_meta
    _flatten(group, made)
    kinds = elements.words(made, "FrameType")
    if kinds:
        # That of an image of several kinds only says MIXED (PS3.3 C.8.16.1). The other frames keep their own.
        made.add_new(_IMAGE_TYPE, VR.CS, list(kinds))
    if elements.number(ds, "NumberOfFrames") != 1:
        made.frame_number = number
    return made


def _read_like(ds: Dataset, made: Dataset) -> None:
    """What `made` has of `ds` is decoded as it would be there."""
    implicit, little = ds.original_encoding
    made.set_original_encoding(implicit, little, ds.original_character_set)


def _shared(ds: Dataset) -> Sequence[Dataset]:
    return (elements.value(ds, "SharedFunctionalGroupsSequence") or ())[:1]


def _first(ds: Dataset) -> Iterator[Dataset]:
    """The first frame's group."""
    found = ds._dict.get(PER_FRAME)
    if isinstance(found, RawDataElement) and isinstance(found.value, bytes):
        implicit, little = found.is_implicit_VR, found.is_little_endian
        item = read_sequence_item(BytesIO(found.value), implicit, little, ds.original_character_set)
        if item is not None:
            yield item
    elif found is not None:
        yield from (elements.value(ds, "PerFrameFunctionalGroupsSequence") or ())[:1]


def _flatten(group: Dataset, target: Dataset) -> None:
    """Give `target` the attributes of the group's macros; whose image it is no macro can change."""
    for macro in _MACROS:
        if macro not in group:
            continue
        element = group[macro]
        for item in element.value[:1] if element.VR == VR.SQ else ():
            for tag, inner in item._dict.items():
                if not (_is_of_instance(tag) and tag in target._dict):
                    target._dict[tag] = inner


def _is_of_instance(tag: BaseTag) -> bool:
    """Whether an attribute is the whole image's: what it is, whose, of which study, and how its pixels lie."""
    return tag.group in (0x0008, 0x0010) or any(first <= tag <= last for first, last in _OF_INSTANCE)
