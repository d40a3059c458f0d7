"""A derived image -> classic images, one for each slice of the source, in one new series."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from highdicom import _standard_utils as tables
from highdicom.base import SOPClass
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    EnhancedCTImageStorage,
    EnhancedMRImageStorage,
    EnhancedPETImageStorage,
    ExplicitVRLittleEndian,
    LegacyConvertedEnhancedCTImageStorage,
    LegacyConvertedEnhancedMRImageStorage,
    LegacyConvertedEnhancedPETImageStorage,
    MRImageStorage,
    PositronEmissionTomographyImageStorage,
    SecondaryCaptureImageStorage,
)
from pydicom.valuerep import DS

from dicom_node import display, elements
from dicom_node.frame_header import frame_number
from dicom_node.results import codes, header, source, stored_values, verify_standard
from dicom_node.results.context import ResultContext
from dicom_node.results.stored_values import Range, Rescale
from engines import printing
from engines.findings import Findings
from engines.volume import Volume

KIND = "image-series"

#: The classes that are written, by those of sources; what else there is becomes a Secondary Capture, which
#: may have a place in the patient as well (PS3.3 A.8.1).
_CLASSES: Mapping[str, str] = {
    CTImageStorage: CTImageStorage,
    EnhancedCTImageStorage: CTImageStorage,
    LegacyConvertedEnhancedCTImageStorage: CTImageStorage,
    MRImageStorage: MRImageStorage,
    EnhancedMRImageStorage: MRImageStorage,
    LegacyConvertedEnhancedMRImageStorage: MRImageStorage,
    PositronEmissionTomographyImageStorage: PositronEmissionTomographyImageStorage,
    EnhancedPETImageStorage: PositronEmissionTomographyImageStorage,
    LegacyConvertedEnhancedPETImageStorage: PositronEmissionTomographyImageStorage,
    ComputedRadiographyImageStorage: ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation: DigitalXRayImageStorageForPresentation,
}

#: Modules of a source that hold for what is derived from it: how and where it was acquired. Patient and study are
#: copied as for every result; series, equipment, pixels and display are ours.
_ACQUIRED = (
    "frame-of-reference", "synchronization", "image-plane", "general-acquisition", "contrast-bolus", "ct-image",
    "mr-image", "pet-series", "pet-isotope", "pet-multi-gated-acquisition", "nm-pet-patient-orientation",
    "pet-image", "cr-series", "cr-image", "dx-series", "dx-anatomy-imaged", "dx-image", "dx-detector",
    "dx-positioning", "x-ray-collimator", "x-ray-acquisition-dose", "x-ray-generation", "x-ray-filtration",
    "x-ray-grid", "acquisition-context",
)  # fmt: skip
_ALSO = (
    "PatientPosition", "BodyPartExamined", "Laterality", "ImageLaterality", "PatientOrientation",
    "BurnedInAnnotation", "LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod",
)  # fmt: skip

#: Of these modules, what says how pixels are stored and shown: ours are others.
_OURS = frozenset(
    (
        "Modality", "SeriesDate", "SeriesTime", "ImageType", "SamplesPerPixel", "PhotometricInterpretation",
        "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleIntercept", "RescaleSlope",
        "RescaleType", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "VOILUTSequence",
        "PresentationLUTShape", "FrameOfReferenceUID", "SmallestImagePixelValue", "LargestImagePixelValue",
        "PixelPaddingValue", "PixelPaddingRangeLimit", "ReferencedPerformedProcedureStepSequence",
    )
)  # fmt: skip

#: Percentiles shown black and white where the values are of another unit than the source's.
_CONTRAST = (1.0, 99.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """How all slices of one derived image are written."""

    sop_class_uid: str
    rescale: Rescale
    #: The ends of the window where nothing says which it is to be.
    contrast: tuple[float, float]


def excessive(findings: Findings) -> str:
    """Why an image cannot be stored; "" where it can, or where there is none."""
    if findings.image is None or stored_values.measured(findings.image).finite:
        return ""
    return "the derived image has values that are no numbers"


def each(context: ResultContext, findings: Findings) -> Iterator[Dataset]:
    """The images, in slice order, one at a time; none where there is no derived image."""
    image = findings.image
    if image is None:
        return
    made = plan(context, image)
    base = _base(context, findings, made)
    for index in range(len(image.array)):
        yield _slice(context, image, made, base, index)


def uid(context: ResultContext, index: int) -> str:
    """The SOP Instance UID of a slice."""
    return context.uid(KIND, "instance", str(index + 1))


def middle(context: ResultContext) -> int:
    """The slice that stands for all where one must: a reader who opens it sees more than air."""
    return len(context.source.datasets) // 2


def plan(context: ResultContext, image: Volume) -> Plan:
    """The source's own class where its headers have what that demands and its rules let the values be stored."""
    range_ = stored_values.measured(image)
    sop_class = _CLASSES.get(str(context.source.datasets[0].SOPClassUID), "")
    # Of SUV, or of what a viewer shows, the source's header would say what its own values are.
    own = _own_unit(context, image) and context.source.values == "source"
    rescale = _rescale(sop_class, range_, own_unit=own)
    if rescale is None or not all(_has_demanded(ds, sop_class) for ds in context.source.datasets):
        sop_class, rescale = str(SecondaryCaptureImageStorage), stored_values.rescale(range_)
    return Plan(sop_class_uid=sop_class, rescale=rescale, contrast=_contrast(image))


def _own_unit(context: ResultContext, image: Volume) -> bool:
    """Whether the values mean what the source's mean."""
    return image.unit == context.source.volume.unit


def _rescale(sop_class: str, range_: Range, *, own_unit: bool) -> Rescale | None:
    """How a class may store such values; None where it may not."""
    if sop_class == PositronEmissionTomographyImageStorage:
        # Units (0054,1001) of its series says what they are.
        return stored_values.through_zero(range_) if own_unit else None
    if sop_class == DigitalXRayImageStorageForPresentation:
        return stored_values.whole(range_) if own_unit else None
    return stored_values.rescale(range_)


@lru_cache
def _copied(sop_class: str) -> tuple[str, ...]:
    """Keywords that are copied from the source's header."""
    iod = tables.get_sop_class_iod_map()[sop_class]
    modules = [entry["key"] for entry in tables.get_iod_module_map()[iod] if entry["key"] in _ACQUIRED]
    listed = [
        row["keyword"]
        for module in modules
        for row in tables.get_module_attribute_map()[module]
        if not row["path"] and row["keyword"] not in _OURS
    ]
    return tuple(dict.fromkeys((*listed, *_ALSO)))


@lru_cache
def _demanded(sop_class: str) -> tuple[str, ...]:
    """Those of them that the class demands with a value."""
    demanded = verify_standard.demanded(sop_class)
    return tuple(
        keyword for keyword in _copied(sop_class) if keyword in demanded and demanded[keyword].type == "1"
    )


def _has_demanded(ds: Dataset, sop_class: str) -> bool:
    """Whether a header has what an image of the class must say of its acquisition."""
    return bool(sop_class) and all(ds.get(keyword) not in (None, "", []) for keyword in _demanded(sop_class))


def _base(context: ResultContext, findings: Findings, made: Plan) -> Dataset:
    """What all slices have in common."""
    ds: Dataset = SOPClass(
        study_instance_uid=str(context.header.StudyInstanceUID),
        sop_class_uid=made.sop_class_uid,
        modality=elements.text(context.header, "Modality") or "OT",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **header.constructor(context, KIND),
    )
    header.finish(ds, context, header.describe(context, [findings.image_label or "derived"]))
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = 16, 16, 15
    ds.PixelRepresentation = int(made.rescale.signed)
    image = findings.image
    assert image is not None
    ds.Rows, ds.Columns = image.array.shape[1:]
    ds.RescaleSlope, ds.RescaleIntercept = made.rescale.slope, made.rescale.intercept
    ds.RescaleType = "HU" if image.unit == "[hnsf'U]" else "US"
    unit = printing.unit(image.unit)
    ds.DerivationDescription = (
        f"{findings.image_label or 'Image'}: made by an AI model of the source image; stored values differ from the "
        f"model's by {made.rescale.error:.3g}{f' {unit}' if unit else ''} at most"
    )
    if made.sop_class_uid == SecondaryCaptureImageStorage:
        ds.ConversionType, ds.PatientOrientation = "WSD", None
    if made.sop_class_uid == DigitalXRayImageStorageForPresentation:
        ds.PresentationLUTShape = "IDENTITY"
    # Slices share the elements: what differs between them must not be among these.
    del ds.SOPInstanceUID, ds.InstanceNumber
    return ds


def _slice(context: ResultContext, image: Volume, made: Plan, base: Dataset, index: int) -> Dataset:
    """One image."""
    ds, origin = Dataset(), context.source.datasets[index]
    ds.update(base)
    ds.file_meta = copy.deepcopy(base.file_meta)
    ds.SOPInstanceUID = UID(uid(context, index))
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    ds.InstanceNumber = instance_number(context, index)
    _take_over(ds, context, source.header(origin), made.sop_class_uid)
    _derived(ds, context, origin)
    low, high = _window(context, image, made, index)
    # Without a VOI LUT Function: OHIF 3.13 draws no image that names one, and older viewers ignore what it names.
    ds.WindowCenter, ds.WindowWidth = (
        DS(value, auto_format=True) for value in ((low + high) / 2, high - low)
    )
    # An even number of bytes, whatever the shape: they come in pairs.
    ds.add_new("PixelData", "OW", made.rescale.store(image.array[index]).tobytes())
    return ds


def instance_number(context: ResultContext, index: int) -> int:
    """That of the source's image, so that both are leafed through the same way; its place where these do not tell."""
    numbers = [elements.number(ds, "InstanceNumber") for ds in context.source.datasets]
    own = numbers[index]
    return (
        int(own)
        if own is not None and None not in numbers and len(set(numbers)) == len(numbers)
        else index + 1
    )


def _window(context: ResultContext, image: Volume, made: Plan, index: int) -> tuple[float, float]:
    """Values shown black and white: the source's where the unit is its own, else the same for the whole series."""
    if not _own_unit(context, image):
        return made.contrast
    asked = image.window or context.source.volume.window
    return asked or display.window(context.source.datasets[index]) or made.contrast


def _contrast(image: Volume) -> tuple[float, float]:
    """The ends of a window for nearly all of a volume's values, by a sample of them.

    A window of n values has n - 1 steps, so that it ends 1 beyond the value that is white (PS3.3 C.11.2.1.2.1).
    """
    sample = image.array[:: max(1, len(image.array) // 16), ::4, ::4]
    low, high = np.percentile(sample, _CONTRAST)
    return float(low), float(high if high > low else low + 1) + 1


def _take_over(ds: Dataset, context: ResultContext, origin: Dataset, sop_class: str) -> None:
    """How and where the source image was acquired; what is of type 2 and nobody knows stays empty (PS3.5 7.4.3)."""
    for keyword in _copied(sop_class):
        if keyword in origin:
            ds[keyword] = origin[keyword]
    geometry = context.source.volume.geometry
    if context.frame_of_reference_uid:
        ds.FrameOfReferenceUID = context.frame_of_reference_uid
        ds.PositionReferenceIndicator = origin.get("PositionReferenceIndicator")
    elif not geometry.in_patient:
        for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PositionReferenceIndicator"):
            ds.pop(keyword, None)
    if origin.get("PhotometricInterpretation") == "MONOCHROME1" and "PixelIntensityRelationshipSign" in ds:
        # Its values were turned over.
        ds.PixelIntensityRelationshipSign = -int(origin.PixelIntensityRelationshipSign)
    for keyword, attribute in verify_standard.demanded(sop_class).items():
        if attribute.type == "2" and keyword not in ds:
            setattr(ds, keyword, [] if dictionary_VR(keyword) == "SQ" else None)
    header.body_part(ds, context)


def _derived(ds: Dataset, context: ResultContext, origin: Dataset) -> None:
    """What it is derived from (PS3.3 C.7.6.1.1.2, C.12.4), and that it is no original."""
    named = list(origin.get("ImageType") or ())[2:3]
    second = "PRIMARY" if ds.SOPClassUID == PositronEmissionTomographyImageStorage else "SECONDARY"
    ds.ImageType = ["DERIVED", second, *named]
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = origin.SOPClassUID, origin.SOPInstanceUID
    if (number := frame_number(origin)) is not None:
        item.ReferencedFrameNumber = number
    item.PurposeOfReferenceCodeSequence = [codes.concept(codes.SOURCE_IMAGE)]
    ds.SourceImageSequence = [item]
