"""Findings -> a Parametric Map: a number for each voxel, as the model gave it."""

from __future__ import annotations

from collections.abc import Mapping

import highdicom
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from dicom_node.results import codes, explicit, frames, header, segments
from dicom_node.results.context import ResultContext
from engines.findings import PROBABILITY, Findings, Map

#: A slice on which no number reaches this share of the greatest one shows nothing.
_VISIBLE = 0.01


def build(context: ResultContext, findings: Findings, made: Mapping[str, Dataset]) -> Dataset | None:
    """A Parametric Map (PS3.3 A.75) of the first map: 32-bit numbers, a frame for each slice that it spans.

    None where there is no map, or it is zero. One map only: readers take the frames of an object as slices of
    one volume. The source must have a place in the patient.
    """
    if not findings.maps or not spanned(findings.maps[0]):
        return None
    shown = findings.maps[0]
    ds = _begin(context, findings, shown)
    # Ascending along row x column: dcmqi 1.5 places frames in their order, not where they say that they are.
    slices = frames.ordered(findings, spanned(shown))[::-1]
    images = context.source.datasets
    listed = [
        frames.Frame(segment=None, slice=index, rank=rank) for rank, index in enumerate(slices, start=1)
    ]
    [sample] = ds.PerFrameFunctionalGroupsSequence
    explicit.set_sequence(ds, 0x52009230, *frames.groups(listed, images, sample))
    segments.place(ds, context, slices, one_each=True)
    ds.NumberOfFrames = len(slices)
    ds.add_new("FloatPixelData", "OF", shown.array[slices].astype("<f4", copy=False).tobytes())
    return ds


def spanned(shown: Map) -> list[int]:
    """The slices from the first to the last on which the map shows something, without a gap."""
    greatest = np.array([max(-float(plane.min()), float(plane.max())) for plane in shown.array])
    if not greatest.max() > 0:
        return []
    visible = np.flatnonzero(greatest >= _VISIBLE * greatest.max())
    return list(range(int(visible[0]), int(visible[-1]) + 1))


def values(shown: Map) -> tuple[float, float]:
    """Least and greatest number that may occur in the map."""
    if shown.name == PROBABILITY:
        return 0.0, 1.0
    low, high = float(shown.array.min()), float(shown.array.max())
    return low, max(high, float(np.nextafter(low, np.inf)))


def explained(findings: Findings, shown: Map) -> str:
    """What the map is of, for people (LO)."""
    number = shown.segment_number
    of = f" of {findings.segments[number - 1].label}" if number is not None else ""
    return f"{shown.name.meaning}{of}"[:64].replace("\\", "/")


def _begin(context: ResultContext, findings: Findings, shown: Map) -> Dataset:
    """The object as highdicom makes it, of the first image: it is slow with many."""
    low, high = values(shown)
    nothing: NDArray[np.float32] = np.zeros((1, *shown.array.shape[1:]), np.float32)
    ds: Dataset = highdicom.pm.ParametricMap(
        source_images=[context.stub],
        pixel_array=nothing,
        contains_recognizable_visual_features=False,
        real_world_value_mappings=[
            highdicom.pm.RealWorldValueMapping(
                lut_label=shown.key[:16].upper(),
                lut_explanation=explained(findings, shown),
                unit=codes.concept(shown.unit),
                value_range=(low, high),
                slope=1.0,
                intercept=0.0,
                quantity_definition=codes.concept(shown.name),
            )
        ],
        voi_lut_transformations=[
            highdicom.VOILUTTransformation(window_center=(low + high) / 2, window_width=high - low)
        ],
        content_label=segments.content_label(context.model.name),
        content_description=f"{context.model.name} {context.model.version}"[:64],
        content_qualification="RESEARCH" if context.model.research_only else "PRODUCT",
        **header.constructor(context, "parametric-map"),
    )
    ds.SharedFunctionalGroupsSequence[0].FrameAnatomySequence = [_anatomy(findings, shown)]
    ds.FrameOfReferenceUID = context.frame_of_reference_uid
    ds.ContentCreatorName = None  # type 2 (PS3.3 Table 10-12)
    segments.name_dimensions(ds, context.uid("parametric-map", "dimensions"))
    header.body_part(ds, context)
    segments.refer(ds, context)
    header.finish(ds, context, header.describe(context, _contents(findings, shown)))
    return ds


def _anatomy(findings: Findings, shown: Map) -> Dataset:
    """The Frame Anatomy macro (PS3.3 C.7.6.16.2.8). Of user option, but dcmqi 1.5 crashes without."""
    item, number = Dataset(), shown.segment_number
    region = findings.segments[number - 1].anatomic_region if number is not None else None
    item.AnatomicRegionSequence = [codes.concept(region or codes.BODY_STRUCTURE)]
    item.FrameLaterality = "U"
    return item


def _contents(findings: Findings, shown: Map) -> list[str]:
    """What the series list shows."""
    number = shown.segment_number
    return [
        shown.name.meaning.lower(),
        *([findings.segments[number - 1].label] if number is not None else []),
    ]
