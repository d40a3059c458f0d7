"""Findings -> a DICOM structured report of measurements (Comprehensive 3D SR, TID 1500)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypeAlias

from highdicom import sr
from pydicom.dataset import Dataset

from dicom_node.results import codes, header, seg
from dicom_node.results.context import ResultContext
from engines.findings import Code, Finding, Findings, Measurement, Segment, Urgency

#: An addition to CID 7021 (PS3.16; the group is extensible). Why not 126000: docs/decisions/0041.
TITLE = Code(value="126000", scheme="DCM", meaning="Imaging Measurement Report")

#: Digits that a reader sees; Floating Point Value (0040,A161) carries the number as it was.
_DIGITS = 6

_Group: TypeAlias = (
    sr.MeasurementsAndQualitativeEvaluations | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)


def build(context: ResultContext, findings: Findings, segmentation: Dataset | None) -> Dataset:
    """A report with one group for each segment, one for the whole image and one for each finding.

    `segmentation` is the Segmentation of the same findings, which the segments' groups refer to
    (TID 1411); None where nothing was segmented, and the groups then stand alone (TID 1501).
    """
    images = header.stubs(context)
    document: Dataset = sr.Comprehensive3DSR(
        evidence=[*images, segmentation] if segmentation is not None else images,
        content=_report(context, findings, segmentation),
        is_complete=True,
        is_final=False,
        is_verified=False,
        **header.constructor(context, "sr"),
    )
    header.finish(document, context, header.describe(context, ["measurements"]))
    return document


def _report(context: ResultContext, findings: Findings, segmentation: Dataset | None) -> sr.MeasurementReport:
    """The content tree (PS3.16 TID 1500), without an Image Library: nothing in it that the evidence lacks."""
    groups = [_segment_group(context, findings, segment, segmentation) for segment in reported(findings)]
    whole = [measurement for measurement in findings.measurements if measurement.segment_number is None]
    if whole or not (groups or findings.findings):
        groups.append(_image_group(context, whole, segmentation))
    groups.extend(_finding_group(context, findings, finding) for finding in findings.findings)
    return sr.MeasurementReport(
        observation_context=_observer(context),
        procedure_reported=[codes.concept(code) for code in codes.procedures(context.header)],
        imaging_measurements=groups,
        title=codes.concept(TITLE),
    )


def _observer(context: ResultContext) -> sr.ObservationContext:
    """The device that observed: this model (PS3.16 TID 1004)."""
    device = sr.DeviceObserverIdentifyingAttributes(
        uid=context.device_uid,
        name=f"{context.model.name} {context.model.version}"[:64],
        manufacturer_name=context.model.manufacturer,
        model_name=context.model.name,
        serial_number=context.model.digest[:64],
    )
    observer = sr.ObserverContext(
        observer_type=codes.concept(Code(value="121007", scheme="DCM", meaning="Device")),
        observer_identifying_attributes=device,
    )
    return sr.ObservationContext(observer_device_context=observer)


def _algorithm(context: ResultContext) -> sr.AlgorithmIdentification:
    """Which algorithm, on which runtime (PS3.16 TID 4019)."""
    return sr.AlgorithmIdentification(
        name=context.model.name,
        version=context.model.version,
        parameters=[f"engine: {context.engine}", f"digest: sha256:{context.model.digest}"],
        manufacturer=context.model.manufacturer,
        family=codes.concept(codes.ARTIFICIAL_INTELLIGENCE),
    )


def _segment_group(
    context: ResultContext, findings: Findings, segment: Segment, segmentation: Dataset | None
) -> _Group:
    """What was measured in one segment."""
    own = [item for item in findings.measurements if item.segment_number == segment.number]
    shared = {
        "tracking_identifier": sr.TrackingIdentifier(
            uid=seg.tracking_uid(context, segment.number), identifier=seg.tracking_id(context, segment)
        ),
        "finding_category": codes.concept(segment.category),
        "finding_type": codes.concept(segment.type),
        "finding_sites": _sites([segment]),
        "algorithm_id": _algorithm(context),
        "measurements": [_number(item) for item in own],
    }
    if segmentation is None:
        return _with_comment(sr.MeasurementsAndQualitativeEvaluations(**shared), absence(findings, segment))
    referenced = sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=segment.number,
        # One UID, not an item for each slice: the Segmentation says which frame is of which image.
        source_series=sr.SourceSeriesForSegmentation(str(context.header.SeriesInstanceUID)),
    )
    group = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_segment=referenced, **shared)
    return _with_comment(group, absence(findings, segment))


def _image_group(
    context: ResultContext, measurements: Sequence[Measurement], segmentation: Dataset | None
) -> sr.MeasurementsAndQualitativeEvaluations:
    """What was measured of the whole image, or of segments together (PS3.16 TID 1501)."""
    source = None
    if segmentation is not None:
        source = [
            sr.SourceImageForMeasurementGroup(
                referenced_sop_class_uid=segmentation.SOPClassUID,
                referenced_sop_instance_uid=segmentation.SOPInstanceUID,
            )
        ]
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=image_tracking_uid(context), identifier=f"{context.model.name}/whole image"
        ),
        algorithm_id=_algorithm(context),
        measurements=[_number(item) for item in measurements],
        source_images=source,
    )


def _finding_group(
    context: ResultContext, findings: Findings, finding: Finding
) -> sr.MeasurementsAndQualitativeEvaluations:
    """One statement, present or absent, with the reason in words.

    The statement is the item's name and not the group's Finding: a reader that shows only the
    Finding would show an absent one as if it were there.
    """
    group = sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(
            uid=finding_tracking_uid(context, finding), identifier=f"{context.model.name}/{finding.key}"
        ),
        algorithm_id=_algorithm(context),
        finding_sites=_sites([item for item in findings.segments if item.number in finding.segment_numbers]),
        qualitative_evaluations=[
            sr.QualitativeEvaluation(
                name=codes.concept(finding.code),
                value=codes.concept(codes.PRESENT if finding.present else codes.ABSENT),
            )
        ],
    )
    return _with_comment(group, comment(finding))


def _with_comment(group: _Group, words: str) -> _Group:
    """The group with a remark in words; unchanged where there are none."""
    if words:
        text = sr.TextContentItem(
            name=codes.concept(codes.COMMENT), value=words, relationship_type="CONTAINS"
        )
        group[0].ContentSequence.append(text)
    return group


def reported(findings: Findings) -> list[Segment]:
    """The segments that the report has a group for: those measured, and those looked for and not found."""
    measured = {measurement.segment_number for measurement in findings.measurements}
    return [item for item in findings.segments if item.number in measured or absence(findings, item)]


def absence(findings: Findings, segment: Segment) -> str:
    """What the report says of a segment without voxels; "" where there are some.

    In words on purpose: a coded "absent" would say that the patient lacks the organ.
    """
    return "" if seg.is_present(findings, segment.number) else f"No voxel was segmented as {segment.label}."


def comment(finding: Finding) -> str:
    """The finding in words, with its urgency where it has one."""
    words = finding.explanation or f"{finding.code.meaning}: {'present' if finding.present else 'absent'}"
    return f"URGENT: {words}" if finding.present and finding.urgency is Urgency.URGENT else words


def image_tracking_uid(context: ResultContext) -> str:
    """The Tracking UID of the group of whole-image measurements."""
    return context.uid("tracking", "image")


def finding_tracking_uid(context: ResultContext, finding: Finding) -> str:
    """The Tracking UID of a finding's group."""
    return context.uid("tracking", "finding", finding.key)


def _sites(segments: Sequence[Segment]) -> list[sr.FindingSite] | None:
    """Where, as codes, each once: the anatomic region where there is one, else the segment's type."""
    places = {segment.anatomic_region or segment.type: None for segment in segments}
    return [sr.FindingSite(anatomic_location=codes.concept(place)) for place in places] or None


def _number(measurement: Measurement) -> sr.Measurement:
    """One NUM item (PS3.16 TID 300), rounded for reading, exact for computing."""
    finite = math.isfinite(measurement.value)
    made = sr.Measurement(
        name=codes.concept(measurement.name),
        value=float(measurement.value) if finite else 0.0,
        unit=codes.concept(measurement.unit),
        derivation=codes.concept(measurement.derivation) if measurement.derivation is not None else None,
    )
    item = made[0]
    if finite:
        item.MeasuredValueSequence[0].NumericValue = f"{measurement.value:.{_DIGITS}g}"
    else:
        # No value, and why (PS3.3 C.18.1.1): an invented number would be read as a measurement.
        item.MeasuredValueSequence = []
        item.NumericValueQualifierCodeSequence = [codes.concept(codes.NOT_A_NUMBER)]
    return made
