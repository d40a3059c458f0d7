"""Findings -> a structured report of what a viewer draws on the images: arrows, boxes, lines (TID 1500)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from highdicom import sr
from pydicom.dataset import Dataset

from dicom_node.results import codes, drawings, explicit, header, observer, references
from dicom_node.results import sr as report
from dicom_node.results.context import ResultContext
from dicom_node.results.drawings import Drawing
from engines.findings import Code, Findings

#: CID 7021 (PS3.16): the title by which OHIF knows a report that it can draw.
TITLE = Code(value="126000", scheme="DCM", meaning="Imaging Measurement Report")

#: What OHIF draws a shape with; other readers see a Tracking Identifier of some letters more.
_TOOLS = {"arrow": "ArrowAnnotate", "box": "RectangleROI", "line": "Length"}
_PREFIX = "Cornerstone3DTools@^0.1.0"

_GRAPHIC = {"arrow": "POINT", "box": "POLYLINE", "line": "POLYLINE"}

_Group: TypeAlias = (
    sr.MeasurementsAndQualitativeEvaluations | sr.PlanarROIMeasurementsAndQualitativeEvaluations
)


def build(context: ResultContext, findings: Findings, made: Mapping[str, Dataset]) -> Dataset | None:
    """A report in which every group has its coordinates: a single one without spoils the whole for OHIF.

    Arrows and boxes are planar regions (PS3.16 TID 1410), a line is a measurement inferred from its
    coordinates (TID 1501). None where there is nothing to draw.
    """
    shapes = drawings.drawings(context, findings)
    if not shapes:
        return None
    images = references.of_slices(context.source, {shape.slice for shape in shapes})
    document: Dataset = sr.Comprehensive3DSR(
        evidence=[context.stub, *images],
        content=_content(context, shapes),
        is_complete=True,
        is_final=False,
        is_verified=False,
        **header.constructor(context, "sr-display"),
    )
    report.separate(document)
    evidence = references.study(context, [references.of_series(images)])
    explicit.set_sequence(document, 0x0040A375, evidence)
    header.finish(document, context, header.describe(context, ["marks"]))
    return document


def tracking_identifier(shape: Drawing) -> str:
    """The Tracking Identifier of a shape."""
    return f"{_PREFIX}:{_TOOLS[shape.shape]}:{shape.tracking_id}"


def _content(context: ResultContext, shapes: Sequence[Drawing]) -> sr.MeasurementReport:
    """The content tree (PS3.16 TID 1500)."""
    algorithm = report.algorithm(context)
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer.device(context)),
        procedure_reported=[codes.concept(code) for code in codes.procedures(context.header)],
        imaging_measurements=[_group(context, shape, algorithm) for shape in shapes],
        title=codes.concept(TITLE),
    )


def _group(context: ResultContext, shape: Drawing, algorithm: sr.AlgorithmIdentification) -> _Group:
    """One measurement group of one shape."""
    shared: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(
            uid=shape.tracking_uid, identifier=tracking_identifier(shape)
        ),
        "algorithm_id": algorithm,
        **_subject(shape),
    }
    graphic = _GRAPHIC[shape.shape]
    made: _Group
    if shape.measurement is None:
        region = report.region(context, shape.slice, graphic, shape.points)
        made = sr.PlanarROIMeasurementsAndQualitativeEvaluations(referenced_region=region, **shared)
    else:
        source = report.source_image(context, shape.slice)
        line = sr.CoordinatesForMeasurement(graphic, np.array(shape.points), source)
        made = sr.MeasurementsAndQualitativeEvaluations(
            measurements=[report.number(shape.measurement, referenced_coordinates=[line])], **shared
        )
    made[0].ContentSequence.append(report.comment(shape.comment))
    return made


def _subject(shape: Drawing) -> dict[str, Any]:
    """What is drawn: a segment by its type and site, or the class of a box."""
    if shape.segment is None:
        return {} if shape.box is None else {"finding_type": codes.concept(shape.box.box.code)}
    return {
        "finding_category": codes.concept(shape.segment.category),
        "finding_type": codes.concept(shape.segment.type),
        "finding_sites": report.sites([shape.segment]),
    }
