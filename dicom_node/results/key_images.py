"""Findings -> pictures for any viewer: key slices with their overlay and legend, as a Secondary Capture."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from highdicom.base import SOPClass
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.tag import Tag
from pydicom.uid import (
    ExplicitVRLittleEndian,
    MultiFrameTrueColorSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
)

from dicom_node import elements
from dicom_node.frame_header import frame_number
from dicom_node.results import boxes, codes, header, key_slices, legend
from dicom_node.results.context import ResultContext
from dicom_node.results.key_slices import KeySlice
from engines import labels, overlay
from engines.findings import Findings

#: Longer side of a picture, pixels: not below the slice's own where that is of this size.
_LEAST, _MOST = 512, 1024


def build(context: ResultContext, findings: Findings, made: Mapping[str, Dataset]) -> Dataset | None:
    """The key slices as they were acquired, in colour, with words: one frame each (PS3.3 A.8.5).

    A single one is a Secondary Capture of one frame (PS3.3 A.8.1), which more viewers take. None where
    there is nothing to draw or to say: the report says so.
    """
    chosen = key_slices.choose(findings)
    if not chosen:
        return None
    ds: Dataset = SOPClass(
        study_instance_uid=str(context.header.StudyInstanceUID),
        sop_class_uid=(
            SecondaryCaptureImageStorage
            if len(chosen) == 1
            else MultiFrameTrueColorSecondaryCaptureImageStorage
        ),
        modality="OT",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **header.constructor(context, "key-images"),
    )
    frame = labels.surrounding(labels.counts(findings.mask, len(findings.segments)))
    _image(ds, np.stack([_picture(context, findings, slice_, frame) for slice_ in chosen]))
    if len(chosen) > 1:
        _frames(ds, context, chosen)
    _derived(ds, context, chosen)
    _taken_over(ds, context)
    shown = [findings.segments[number - 1].label for number in key_slices.shown(chosen)]
    shown += [box.label for box, _ in boxes.counted(findings)]
    header.finish(ds, context, header.describe(context, ["key images", *shown]))
    return ds


def size(context: ResultContext) -> int:
    """Pixels along the longer side of a picture."""
    return min(max(_LEAST, *context.source.volume.geometry.shape[1:]), _MOST)


def _picture(
    context: ResultContext, findings: Findings, chosen: KeySlice, unfilled: set[int]
) -> NDArray[np.uint8]:
    """One frame."""
    picture = drawn(context, findings, chosen, unfilled, size=size(context))
    place = elements.name(context.source.datasets[chosen.index])
    count = context.source.volume.geometry.shape[0]
    if count > 1:
        place = f"{place} (slice {chosen.index + 1} of {count})"
    return legend.beside(picture, context, findings, chosen, place)


def drawn(
    context: ResultContext, findings: Findings, chosen: KeySlice, unfilled: set[int], *, size: int
) -> NDArray[np.uint8]:
    """A key slice with its segments and boxes drawn over it, without a legend: RGB, the longer side of `size` pixels.

    The segments numbered in `unfilled` get a contour only.
    """
    return overlay.slice_overlay(
        context.source.volume,
        findings.mask,
        [findings.segments[number - 1] for number in chosen.segments],
        index=chosen.index,
        window=key_slices.window(context, chosen.index),
        size=size,
        unfilled=unfilled,
        boxes=[findings.boxes[index] for index in chosen.boxes],
    )


def _image(ds: Dataset, frames: NDArray[np.uint8]) -> None:
    """General Image, Image Pixel and SC Equipment (PS3.3 C.7.6.1, C.7.6.3, C.8.6.1)."""
    ds.ConversionType = "WSD"
    ds.ImageType = ["DERIVED", "SECONDARY"]
    ds.PatientOrientation = None
    ds.SamplesPerPixel, ds.PhotometricInterpretation, ds.PlanarConfiguration = 3, "RGB", 0
    ds.Rows, ds.Columns = frames.shape[1:3]
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 8, 8, 7, 0
    data = frames.tobytes()
    ds.add_new("PixelData", "OB", data + b"\0" * (len(data) % 2))


def _frames(ds: Dataset, context: ResultContext, chosen: tuple[KeySlice, ...]) -> None:
    """Multi-frame and SC Multi-frame Vector (PS3.3 C.7.6.6, C.8.6.5): frames step by place along the normal."""
    spacing = context.source.volume.geometry.spacing[0]
    ds.NumberOfFrames = len(chosen)
    ds.FrameIncrementPointer = Tag("SliceLocationVector")
    ds.SliceLocationVector = [f"{slice_.index * spacing:.10g}" for slice_ in chosen]


def _derived(ds: Dataset, context: ResultContext, chosen: tuple[KeySlice, ...]) -> None:
    """Which source images, or frames of them, the frames are of, in their order (PS3.3 C.7.6.1, C.12.4)."""
    ds.DerivationDescription = "Key slices with an AI result drawn over them"
    items = []
    for slice_ in chosen:
        image = context.source.datasets[slice_.index]
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
        if (number := frame_number(image)) is not None:
            item.ReferencedFrameNumber = number
        item.PurposeOfReferenceCodeSequence = [codes.concept(codes.SOURCE_IMAGE)]
        items.append(item)
    ds.SourceImageSequence = items


def _taken_over(ds: Dataset, context: ResultContext) -> None:
    """What a picture has from its source: the side of the body, what is burned in, what compression has lost."""
    source = context.header
    # What we burn in identifies neither the patient nor the date (PS3.3 Table C.7-9), as slices of a scan do not.
    # A single image may: a captured screen with a name on it.
    if source.get("BurnedInAnnotation") or context.source.volume.geometry.in_patient:
        ds.BurnedInAnnotation = source.get("BurnedInAnnotation") or "NO"
    header.body_part(ds, context)
    # Once lossy, always lossy (PS3.3 C.7.6.1.1.5).
    ds.LossyImageCompression = source.get("LossyImageCompression") or "00"
    for keyword in ("LossyImageCompressionRatio", "LossyImageCompressionMethod"):
        if source.get(keyword):
            setattr(ds, keyword, source.get(keyword))
