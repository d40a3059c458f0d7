"""What a multi-frame image says of its frames: Shared and Per-Frame Functional Groups (PS3.3 C.7.6.16)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from io import BytesIO

import pydicom
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
_MACROS = (
    # Legacy converted images keep the classic attributes in these.
    "UnassignedSharedConvertedAttributesSequence",
    "UnassignedPerFrameConvertedAttributesSequence",
    "FrameAnatomySequence",
    "FrameContentSequence",
    "TemporalPositionSequence",
    "CardiacSynchronizationSequence",
    "CTAcquisitionTypeSequence",
    "CTAcquisitionDetailsSequence",
    "CTGeometrySequence",
    "CTReconstructionSequence",
    "CTExposureSequence",
    "CTXRayDetailsSequence",
    "MRImagingModifierSequence",
    "MRReceiveCoilSequence",
    "MRTimingAndRelatedParametersSequence",
    "MREchoSequence",
    "MRModifierSequence",
    "MRDiffusionSequence",
    "MRAveragesSequence",
    "MRImageFrameTypeSequence",
    "CTImageFrameTypeSequence",
    "PETFrameTypeSequence",
    "PlanePositionSequence",
    "PlaneOrientationSequence",
    "PixelMeasuresSequence",
    "FrameVOILUTSequence",
    "PixelValueTransformationSequence",
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
    groups = _items(ds, "PerFrameFunctionalGroupsSequence")
    declared = elements.number(ds, "NumberOfFrames")
    if not len(groups) or len(groups) != declared:
        raise SeriesError(
            "frame-count",
            f"{elements.name(ds)} declares {'no number of' if declared is None else f'{declared:g}'} frames, and "
            f"describes {len(groups)}: which place each has is unknown. Send the series again.",
        )
    common = _common(ds)
    return [_header(ds, common, group, number) for number, group in enumerate(groups, start=1)]


def with_first_frame(ds: Dataset) -> Dataset:
    """The header, with what its groups say of the first frame at the top level, as far as that can be read.

    Only that frame's group is parsed: there may be thousands.
    """
    if not are_in(ds):
        return ds
    made = _common(ds)
    with suppress(*elements.BROKEN, OSError):
        for group in _first(ds):
            _flatten(ds, group, made)
    return made


def _common(ds: Dataset) -> Dataset:
    """Everything but the groups, with what they say of all frames."""
    made = Dataset({tag: element for tag, element in ds._dict.items() if tag not in (SHARED, PER_FRAME)})
    _read_like(ds, made)
    for group in _items(ds, "SharedFunctionalGroupsSequence")[:1]:
        _flatten(ds, group, made)
    return made


def _header(ds: Dataset, common: Dataset, group: Dataset, number: int) -> FrameHeader:
    made = FrameHeader(dict(common._dict))
    _read_like(ds, made)
    made.file_meta = ds.file_meta
    _flatten(ds, group, made)
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


def _first(ds: Dataset) -> Iterator[Dataset]:
    """The first frame's group."""
    found = ds._dict.get(PER_FRAME)
    if isinstance(found, RawDataElement) and isinstance(found.value, bytes):
        implicit, little = found.is_implicit_VR, found.is_little_endian
        item = read_sequence_item(BytesIO(found.value), implicit, little, ds.original_character_set)
        if item is not None:
            yield item
    elif found is not None:
        yield from _items(ds, "PerFrameFunctionalGroupsSequence")[:1]


def _flatten(ds: Dataset, group: Dataset, target: Dataset) -> None:
    """Give `target` the attributes of the group's macros; whose image it is, no macro of `ds` can change."""
    for macro in _MACROS:
        for item in _items(group, macro)[:1]:
            for tag, inner in item._dict.items():
                if not (_is_of_instance(tag) and tag in ds._dict):
                    target._dict[tag] = inner


def _items(ds: Dataset, keyword: str) -> Sequence[Dataset]:
    """The items of a sequence; none where it is missing, or no sequence that can be read."""
    found = elements.value(ds, keyword)
    return found if isinstance(found, pydicom.Sequence) else ()


def _is_of_instance(tag: BaseTag) -> bool:
    """Whether an attribute is the whole image's: what it is, whose, of which study, and how its pixels lie."""
    return tag.group in (0x0008, 0x0010) or any(first <= tag <= last for first, last in _OF_INSTANCE)
