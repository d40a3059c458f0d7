"""Findings -> a Grayscale Softcopy Presentation State: outlines and words over the source's slices."""

from __future__ import annotations

from collections.abc import Mapping

import highdicom
import numpy as np
from highdicom.base import SOPClass
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, GrayscaleSoftcopyPresentationStateStorage
from pydicom.valuerep import DS

from dicom_node import elements
from dicom_node.frame_header import frame_number
from dicom_node.results import boxes, explicit, header, key_slices, legend, presentation_boxes, segments
from dicom_node.results.context import ResultContext
from dicom_node.results.key_slices import KeySlice
from engines import contours
from engines.findings import Findings, Segment
from engines.volume import Scale

#: Points of a polyline: each takes 8 bytes, and the element's length is of 16 bits.
_MOST_POINTS = 8000

#: Points of all lines: what is more takes a viewer long to draw, and us to write and compare.
_MOST_IN_ALL = 100_000

#: The layer of the words that are about the whole picture.
NOTE = "NOTE"


def build(context: ResultContext, findings: Findings, made: Mapping[str, Dataset]) -> Dataset | None:
    """A presentation state (PS3.3 A.33.1) of the key slices, with a layer for each segment and class of boxes on them.

    None where there is nothing to draw. The source's images must be rescaled alike (`unfit`).
    """
    chosen = drawn_on(findings)
    if not chosen:
        return None
    ds: Dataset = SOPClass(
        study_instance_uid=str(context.header.StudyInstanceUID),
        sop_class_uid=GrayscaleSoftcopyPresentationStateStorage,
        modality="PR",
        transfer_syntax_uid=ExplicitVRLittleEndian,
        **header.constructor(context, "presentation-state"),
    )
    shown = [findings.segments[number - 1] for number in key_slices.shown(chosen)]
    classes = [box for box, _ in boxes.counted(findings)]
    contents = ["overlay", *(segment.label for segment in shown), *(box.label for box in classes)]
    header.finish(ds, context, header.describe(context, contents))
    header.body_part(ds, context)
    _identify(ds, context)
    series = Dataset()
    series.SeriesInstanceUID = context.header.SeriesInstanceUID
    series.ReferencedImageSequence = _references(context, chosen)
    ds.ReferencedSeriesSequence = [series]
    layers = [(NOTE, legend.STANDING, (255, 191, 0))]
    layers += [(layer(segment), segment.label, segment.colour) for segment in shown]
    layers += [(presentation_boxes.layer(findings, box), box.label, box.colour) for box in classes]
    ds.GraphicLayerSequence = [_layer(number, *each) for number, each in enumerate(layers, 1)]
    ds.GraphicAnnotationSequence = [
        annotation
        for slice_ in chosen
        for annotation in (
            _note(context, slice_.index),
            *(_annotation(context, findings, slice_.index, number) for number in slice_.segments),
            *(
                presentation_boxes.annotation(context, findings, reference(context, slice_.index), index)
                for index in slice_.boxes
            ),
        )
    ]
    _display(ds, context, chosen)
    return ds


def drawn_on(findings: Findings) -> tuple[KeySlice, ...]:
    """The key slices on which there is something to draw."""
    return tuple(slice_ for slice_ in key_slices.choose(findings) if slice_.segments or slice_.boxes)


def unfit(context: ResultContext) -> str:
    """Why there can be no presentation state of this source; "" where there can."""
    first = context.source.datasets[0]
    if context.source.values != "source":
        return f"the model looked at other values ({context.source.values}) than viewers show of the source"
    if elements.text(first, "PhotometricInterpretation") != "MONOCHROME2" or "ModalityLUTSequence" in first:
        return (
            "the source's values are not shown as they are read: colour, a look-up table, or black for most"
        )
    if len({rescale(image) for image in context.source.datasets}) > 1:
        return (
            "the source images are rescaled differently, and a presentation state rescales all images alike"
        )
    return ""


def excessive(findings: Findings) -> str:
    """Why the key slices are too much to be outlined; "" where they are not. Counted before any line is followed."""
    points = sum(contours.corners(findings.mask[chosen.index]) for chosen in key_slices.choose(findings))
    if points <= _MOST_IN_ALL:
        return ""
    return (
        f"the mask is too ragged: its outlines on the key slices would have {points} points "
        f"(at most {_MOST_IN_ALL})"
    )


def rescale(image: Dataset) -> tuple[float, float] | None:
    """Rescale slope and intercept; None where the image has none."""
    slope, intercept = (elements.number(image, f"Rescale{part}") for part in ("Slope", "Intercept"))
    return None if slope is None or intercept is None else (slope, intercept)


def layer(segment: Segment) -> str:
    """The name of a segment's layer (CS)."""
    return f"SEGMENT_{segment.number}"


def words(findings: Findings, segment: Segment) -> str:
    """What is written at a segment: its name, its first measurement, and that nobody has verified it."""
    measured = [item for item in findings.measurements if item.segment_number == segment.number]
    value = f", {legend.measured(measured[0])}" if measured else ""
    return f"{segment.label}{value} ({legend.STANDING})"


def _identify(ds: Dataset, context: ResultContext) -> None:
    """Presentation State Identification (PS3.3 C.11.10)."""
    ds.ContentLabel = "AI_UNVERIFIED"
    ds.ContentDescription = f"{context.model.name} {context.model.version}"[:64]
    ds.ContentCreatorName = None
    ds.PresentationCreationDate, ds.PresentationCreationTime = ds.ContentDate, ds.ContentTime
    # The date of the presentation says the same: these are of no module of this IOD.
    del ds.ContentDate, ds.ContentTime


def _references(context: ResultContext, chosen: tuple[KeySlice, ...]) -> list[Dataset]:
    """Each instance once, with the frames that it applies to."""
    items: dict[str, Dataset] = {}
    for slice_ in chosen:
        item = reference(context, slice_.index)
        first = items.setdefault(item.ReferencedSOPInstanceUID, item)
        if first is not item:
            numbers = first.ReferencedFrameNumber
            listed = [numbers] if isinstance(numbers, int) else list(numbers)
            first.ReferencedFrameNumber = [*listed, item.ReferencedFrameNumber]
    return list(items.values())


def reference(context: ResultContext, index: int) -> Dataset:
    """A reference to the source image of a slice (PS3.3 Table 10-3)."""
    image, item = context.source.datasets[index], Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    if (number := frame_number(image)) is not None:
        item.ReferencedFrameNumber = number
    return item


def _layer(order: int, name: str, words: str, colour: tuple[int, int, int]) -> Dataset:
    """A layer in a colour of its own (PS3.3 C.10.7)."""
    item = Dataset()
    item.GraphicLayer, item.GraphicLayerOrder = name, order
    item.GraphicLayerDescription = words[:64].replace("\\", "/")
    item.GraphicLayerRecommendedDisplayCIELabValue = list(highdicom.color.CIELabColor.from_rgb(*colour).value)
    return item


def _note(context: ResultContext, index: int) -> Dataset:
    """The words in the upper left corner of a slice: what this is, and which model made it."""
    research = ", for research only" if context.model.research_only else ""
    text, item = Dataset(), Dataset()
    text.BoundingBoxAnnotationUnits = "DISPLAY"
    text.BoundingBoxTopLeftHandCorner, text.BoundingBoxBottomRightHandCorner = [0.01, 0.01], [0.6, 0.06]
    text.BoundingBoxTextHorizontalJustification = "LEFT"
    text.UnformattedTextValue = f"{legend.STANDING}{research}: {context.model.name} {context.model.version}"
    item.ReferencedImageSequence = [reference(context, index)]
    item.GraphicLayer, item.TextObjectSequence = NOTE, [text]
    return item


def _annotation(context: ResultContext, findings: Findings, index: int, number: int) -> Dataset:
    """A segment on a slice: its outlines, and its words where they begin (PS3.3 C.10.5)."""
    segment = findings.segments[number - 1]
    lines = contours.outlines(findings.mask[index] == number)
    text, item = Dataset(), Dataset()
    # The uppermost corner, as (column, row).
    text.AnchorPointAnnotationUnits, text.AnchorPointVisibility = "PIXEL", "N"
    text.AnchorPoint = [float(value) for value in lines[0][0][::-1]]
    text.UnformattedTextValue = words(findings, segment)[:1024]
    item.ReferencedImageSequence = [reference(context, index)]
    item.GraphicLayer, item.TextObjectSequence = layer(segment), [text]
    identity = presentation_boxes.identity(
        segments.tracking_id(context, segment), segments.tracking_uid(context, number)
    )
    drawn = [
        explicit.item(identity, presentation_boxes.polyline(part[:, ::-1]))
        for line in lines
        for part in _parts(line)
    ]
    explicit.set_sequence(item, 0x00700009, *drawn)
    return item


def _parts(line: contours.Line) -> list[contours.Line]:
    """The closed line in pieces that a polyline can hold, each from where the one before it ends."""
    whole = np.concatenate([line, line[:1]])
    return [whole[start : start + _MOST_POINTS + 1] for start in range(0, len(line), _MOST_POINTS)]


def _display(ds: Dataset, context: ResultContext, chosen: tuple[KeySlice, ...]) -> None:
    """Displayed Area, Modality, VOI and Presentation LUT: as the source shows itself (PS3.3 C.10.4, C.11)."""
    image, area = context.source.datasets[chosen[0].index], Dataset()
    area.DisplayedAreaTopLeftHandCorner = [1, 1]
    area.DisplayedAreaBottomRightHandCorner = [image.Columns, image.Rows]
    area.PresentationSizeMode = "SCALE TO FIT"
    geometry = context.source.volume.geometry
    if geometry.scale is Scale.NONE:
        area.PresentationPixelAspectRatio = [1, 1]
    else:
        area.PresentationPixelSpacing = [f"{value:.10g}" for value in geometry.spacing[1:]]
    ds.DisplayedAreaSelectionSequence = [area]
    rescaled = rescale(image)
    if rescaled is not None:
        # Without this module there would be no rescaling at all (PS3.4 N.2.1).
        ds.RescaleSlope, ds.RescaleIntercept = (DS(value, auto_format=True) for value in rescaled)
        ds.RescaleType = elements.text(image, "RescaleType") or "US"
    ds.SoftcopyVOILUTSequence = [_window(context, slice_.index) for slice_ in chosen]
    ds.PresentationLUTShape = "IDENTITY"


def _window(context: ResultContext, index: int) -> Dataset:
    """The window of a slice (PS3.3 C.11.8)."""
    low, high = key_slices.window(context, index)
    item = Dataset()
    item.ReferencedImageSequence = [reference(context, index)]
    item.WindowCenter, item.WindowWidth = f"{(low + high) / 2:.10g}", f"{high - low:.10g}"
    return item
