"""The gate for a presentation state: its lines enclose the segments of the slices that it names."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.errors import GateError
from dicom_node.results import (
    boxes,
    filling,
    key_slices,
    presentation_boxes,
    presentation_state,
    references,
    verify_regions,
)
from dicom_node.results.context import ResultContext
from dicom_node.results.key_slices import KeySlice
from dicom_node.results.verify_regions import Region
from engines.findings import Findings


def check(ds: Dataset, context: ResultContext, findings: Findings, made: Collection[str]) -> None:
    """Compare a presentation state, as read from disk, with the findings. GateError says what differs."""
    chosen = {slice_.index: slice_ for slice_ in presentation_state.drawn_on(findings)}
    slices = context.source_slices()
    [series] = ds.ReferencedSeriesSequence
    if (str(series.SeriesInstanceUID), _named(series)) != (
        str(context.header.SeriesInstanceUID),
        [slices[index] for index in chosen],
    ):
        raise GateError("the images that it applies to are not the key slices")
    _check_display(ds, context, list(chosen))
    layers = {str(layer.GraphicLayer) for layer in ds.GraphicLayerSequence}
    seen = []
    for item in ds.GraphicAnnotationSequence:
        [named] = _named(item)
        if named not in slices or str(item.GraphicLayer) not in layers:
            raise GateError("an annotation names an image or a layer that is not there")
        seen.append((slices.index(named), str(item.GraphicLayer)))
        _check_annotation(item, findings, *seen[-1])
    wanted = [(slice_.index, name) for slice_ in chosen.values() for name in _layers(findings, slice_)]
    if seen != wanted:
        raise GateError("what is annotated is not what is on the key slices")
    _check_boxes(ds, context, findings, chosen)


def _layers(findings: Findings, chosen: KeySlice) -> list[str]:
    """The layers of what is on a slice, in order."""
    return [
        presentation_state.NOTE,
        *(presentation_state.layer(findings.segments[number - 1]) for number in chosen.segments),
        *(presentation_boxes.layer(findings, findings.boxes[index]) for index in chosen.boxes),
    ]


def _check_boxes(
    ds: Dataset, context: ResultContext, findings: Findings, chosen: Mapping[int, KeySlice]
) -> None:
    """Each box must be drawn around, with its own words, on each of the slices that it touches."""
    placed = boxes.placed(findings)
    drawn = [item for item in ds.GraphicAnnotationSequence if str(item.GraphicLayer).startswith("CLASS_")]
    wanted = [placed[index] for slice_ in chosen.values() for index in slice_.boxes]
    for item, box in zip(drawn, wanted, strict=True):
        [text], [graphic] = item.TextObjectSequence, item.GraphicObjectSequence
        if text.UnformattedTextValue != presentation_boxes.words(box)[:1024]:
            raise GateError(f"the words at {box.label} are not its own")
        line = Region(
            graphic_type=str(graphic.GraphicType),
            points=np.array(graphic.GraphicData, dtype=np.float64).reshape(-1, 2),
            image=("", None),
        )
        own = str(graphic.TrackingUID) == boxes.tracking_uid(context, box)
        if not own or not verify_regions.surrounds(line, box.box, findings.geometry.shape):
            raise GateError(f"the line of {box.label} does not run around its box")


def _named(item: Dataset) -> list[tuple[str, int | None]]:
    """The slices that an item applies to."""
    return [named for image in item.ReferencedImageSequence for named in references.read_slices(image)]


def _check_annotation(item: Dataset, findings: Findings, index: int, layer: str) -> None:
    """Words that say whose they are, and for a segment lines that enclose its pixels."""
    [text] = item.TextObjectSequence
    if layer == presentation_state.NOTE:
        if "AI, not verified" not in text.UnformattedTextValue:
            raise GateError(f"slice {index + 1} is not marked as not verified")
        return
    if layer.startswith("CLASS_"):
        return
    [segment] = [one for one in findings.segments if presentation_state.layer(one) == layer]
    if text.UnformattedTextValue != presentation_state.words(findings, segment)[:1024]:
        raise GateError(f"the words at {layer} on slice {index + 1} are not its own")
    plane = findings.mask[index]
    lines = [_line(graphic, plane.shape) for graphic in item.GraphicObjectSequence]
    if not np.array_equal(filling.by_parity(lines, plane.shape), plane == segment.number):
        raise GateError(f"the lines of {layer} do not enclose its pixels on slice {index + 1}")


def _line(graphic: Dataset, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The points of a polyline as (row, column), whole at the centres of pixels."""
    points = np.array(graphic.GraphicData, dtype=np.float64).reshape(-1, 2)[:, ::-1]
    if (graphic.GraphicType, graphic.GraphicAnnotationUnits) != ("POLYLINE", "PIXEL"):
        raise GateError("a line is not a polyline on the image's pixels")
    if len(points) != graphic.NumberOfGraphicPoints or (points < 0).any() or (points > shape).any():
        raise GateError("a line leaves the image, or has not as many points as it says")
    return points - 0.5


def _check_display(ds: Dataset, context: ResultContext, chosen: list[int]) -> None:
    """The slices must be shown whole, with their own rescaling and window."""
    images = [context.source.datasets[index] for index in chosen]
    if presentation_state.rescale(ds) != presentation_state.rescale(images[0]):
        raise GateError("the rescaling is not the source's")
    [area] = ds.DisplayedAreaSelectionSequence
    corners = (list(area.DisplayedAreaTopLeftHandCorner), list(area.DisplayedAreaBottomRightHandCorner))
    if corners != ([1, 1], [images[0].Columns, images[0].Rows]):
        raise GateError("the area shown is not the whole image")
    slices = context.source_slices()
    if [_named(item) for item in ds.SoftcopyVOILUTSequence] != [[slices[index]] for index in chosen]:
        raise GateError("the windows are not of the key slices")
    for item, index in zip(ds.SoftcopyVOILUTSequence, chosen, strict=True):
        centre, width = float(item.WindowCenter), float(item.WindowWidth)
        shown = (centre - width / 2, centre + width / 2)
        if not np.allclose(shown, key_slices.window(context, index), rtol=1e-6, atol=1e-6):
            raise GateError(f"the window of slice {index + 1} is not its own")
