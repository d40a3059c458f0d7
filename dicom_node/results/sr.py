"""Findings -> a DICOM structured report of measurements (Comprehensive 3D SR, TID 1500)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from highdicom import sr
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from pydicom.dataset import Dataset
from pydicom.uid import CTImageStorage

from dicom_node.frame_header import frame_number
from dicom_node.results import (
    codes,
    explicit,
    header,
    observer,
    outline,
    references,
    report_phrases,
    segments,
    sr_words,
)
from dicom_node.results.context import Report, ResultContext
from engines.findings import Code, Findings, Measurement, Segment

#: Our addition to CID 7021 "Measurement Report Document Titles" (PS3.16; the group is extensible): OHIF
#: shows a report of another title than 126000 as text. docs/decisions/0041 has the reasons.
TITLE = Code(value="AI-MEASUREMENTS", scheme="99SECONDREAD", meaning="AI Measurement Report")

#: Digits that a reader sees; Floating Point Value (0040,A161) carries the number as it was.
_DIGITS = 6

_Group: TypeAlias = (
    sr.MeasurementsAndQualitativeEvaluations
    | sr.PlanarROIMeasurementsAndQualitativeEvaluations
    | sr.VolumetricROIMeasurementsAndQualitativeEvaluations
)


def build(context: ResultContext, findings: Findings, made: Mapping[str, Dataset]) -> Dataset:
    """A report of every measurement and finding (PS3.16 TID 1500), in words too, the source images as evidence.

    The groups refer to the Segmentation of the same findings (TID 1411); where `made` has none, they stand
    alone (TID 1501). Boxes are planar regions (TID 1410), each on the slice through its middle. There is no Image
    Library: it would hold what the evidence says already, 4 kB for each image.
    """
    kind = segments.referred(made)
    segmentation = made[kind] if kind is not None else None
    groups = outline.groups(context, findings)
    boxed = {group.box.slice for group in groups if group.box is not None}
    referred = [*references.of_slices(context.source, boxed), *([segmentation] if segmentation else [])]
    document: Dataset = sr.Comprehensive3DSR(
        evidence=[context.stub, *referred],
        content=_report(context, groups, segmentation),
        is_complete=True,
        is_final=False,
        is_verified=False,
        coding_schemes=[coding_scheme()],
        **header.constructor(context, "sr"),
    )
    document.ContentSequence.append(sr_words.container(context, findings))
    separate(document)
    explicit.set_sequence(document, 0x0040A375, _evidence(context, segmentation))
    if context.replaced_documents:
        # What this one is a new version of (PS3.3 C.17.2).
        replaced = [_predecessor(report) for report in context.replaced_documents]
        explicit.set_sequence(document, 0x0040A360, references.study(context, replaced))
    header.finish(document, context, header.describe(context, ["measurements"]))
    return document


def separate(container: Dataset) -> None:
    """Give each content item a line of its own (PS3.3 C.17.3.2.4), with the name of what it is.

    highdicom writes CONTINUOUS: a viewer then runs the values together as if they were prose.
    """
    container.ContinuityOfContent = "SEPARATE"
    for item in container.ContentSequence:
        if item.ValueType == "CONTAINER":
            separate(item)


def _evidence(context: ResultContext, segmentation: Dataset | None) -> bytes:
    """The study's evidence: all images that were looked at, and the Segmentation (PS3.3 C.17.2.3)."""
    series = [references.of_series(instances) for instances in context.looked_at()]
    if segmentation is not None:
        series.append(references.of_series([segmentation]))
    return references.study(context, series)


def _predecessor(report: Report) -> bytes:
    """The series of an earlier report, with that report."""
    ds = Dataset()
    ds.SOPClassUID = report.sop_class_uid
    ds.SOPInstanceUID = report.sop_instance_uid
    ds.SeriesInstanceUID = report.series_instance_uid
    return references.of_series([ds])


def coding_scheme() -> CodingSchemeIdentificationItem:
    """Who defines our own codes (PS3.3 C.12.1.1.7)."""
    return CodingSchemeIdentificationItem(
        designator=TITLE.scheme, name="secondread private codes", responsible_organization="secondread"
    )


def _report(
    context: ResultContext, groups: Sequence[outline.Group], segmentation: Dataset | None
) -> sr.MeasurementReport:
    """The content tree (PS3.16 TID 1500)."""
    # One for all groups: with hundreds of segments a sixth of the time went into making it anew.
    by = algorithm(context)
    return sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer.device(context)),
        procedure_reported=[codes.concept(code) for code in codes.procedures(context.header)],
        imaging_measurements=[_group(context, group, segmentation, by) for group in groups],
        title=codes.concept(TITLE),
        language_of_content_item_and_descendants=sr.LanguageOfContentItemAndDescendants(
            codes.concept(report_phrases.wording(context.language).language)
        ),
    )


def algorithm(context: ResultContext) -> sr.AlgorithmIdentification:
    """Which algorithm, on which runtime (PS3.16 TID 4019)."""
    return sr.AlgorithmIdentification(
        name=context.model.name,
        version=context.model.version,
        parameters=[
            f"engine: {context.ran_on}",
            f"digest: sha256:{context.model.digest}",
            *context.model.parts,
            *(f"{name}: {json.dumps(value)}" for name, value in sorted(context.parameters.items())),
        ],
        manufacturer=context.model.manufacturer,
        family=codes.concept(codes.ARTIFICIAL_INTELLIGENCE),
    )


def _group(
    context: ResultContext,
    group: outline.Group,
    segmentation: Dataset | None,
    by: sr.AlgorithmIdentification,
) -> _Group:
    """One measurement group: TID 1411 where it is about segments of a Segmentation, 1410 for a box, else 1501."""
    shared: dict[str, Any] = {
        "tracking_identifier": sr.TrackingIdentifier(uid=group.tracking_uid, identifier=group.tracking_id),
        "finding_sites": sites(group.segments),
        "algorithm_id": by,
        "measurements": [number(item) for item in group.measurements],
        "qualitative_evaluations": _statement(group),
        **_subject(group),
    }
    if segmentation is not None and group.segments:
        made = sr.VolumetricROIMeasurementsAndQualitativeEvaluations(
            referenced_segment=_reference(context, group, segmentation), **shared
        )
    elif group.box is not None:
        made = sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=region(context, group.box.slice, "POLYLINE", group.box.corners), **shared
        )
    else:
        made = sr.MeasurementsAndQualitativeEvaluations(**shared)
    if group.comment:
        made[0].ContentSequence.append(comment(group.comment))
    return made


def region(
    context: ResultContext, index: int, graphic: str, points: Sequence[tuple[float, float]]
) -> sr.ImageRegion:
    """Coordinates on the image of a slice (PS3.16 TID 1410), (column, row) each."""
    source = source_image(context, index)
    # highdicom looks the class up, and knows neither private ones nor retired ones.
    source.ReferencedSOPSequence[0].ReferencedSOPClassUID = CTImageStorage
    made = sr.ImageRegion(graphic, np.array(points), source)
    source.ReferencedSOPSequence[0].ReferencedSOPClassUID = context.source.datasets[index].SOPClassUID
    return made


def source_image(context: ResultContext, index: int) -> sr.SourceImageForRegion:
    """The image, or frame, of a slice that coordinates are on."""
    image = context.source.datasets[index]
    number = frame_number(image)
    frames = None if number is None else [number]
    # As in `region`.
    source = sr.SourceImageForRegion(CTImageStorage, image.SOPInstanceUID, frames)
    source.ReferencedSOPSequence[0].ReferencedSOPClassUID = image.SOPClassUID
    return source


def comment(words: str) -> sr.TextContentItem:
    """Words of a measurement group, where readers look for them (PS3.16 TID 1501 is extensible)."""
    return sr.TextContentItem(name=codes.concept(codes.COMMENT), value=words, relationship_type="CONTAINS")


def _reference(context: ResultContext, group: outline.Group, segmentation: Dataset) -> sr.ReferencedSegment:
    """The group's segments; several are one item, Referenced Segment Number (0062,000B) having VM 1-n."""
    return sr.ReferencedSegment(
        sop_class_uid=segmentation.SOPClassUID,
        sop_instance_uid=segmentation.SOPInstanceUID,
        segment_number=[segment.number for segment in group.segments],
        # One UID, not an item for each slice: the Segmentation says which frame is of which image.
        source_series=sr.SourceSeriesForSegmentation(str(context.header.SeriesInstanceUID)),
    )


def _subject(group: outline.Group) -> dict[str, Any]:
    """Finding and Finding Category: what is measured, where the segments are of one type.

    A statement is no Finding of its group: a reader that shows only that would show an absent
    one as if it were there.
    """
    if group.box is not None:
        return {"finding_type": codes.concept(group.box.box.code)}
    kinds = {(segment.category, segment.type) for segment in group.segments}
    if group.finding is not None or len(kinds) != 1:
        return {}
    category, kind = kinds.pop()
    return {"finding_category": codes.concept(category), "finding_type": codes.concept(kind)}


def _statement(group: outline.Group) -> list[sr.QualitativeEvaluation]:
    """The group's finding as name and value: present or absent."""
    if group.finding is None:
        return []
    value = codes.PRESENT if group.finding.present else codes.ABSENT
    return [sr.QualitativeEvaluation(name=codes.concept(group.finding.code), value=codes.concept(value))]


def sites(about: Sequence[Segment]) -> list[sr.FindingSite] | None:
    """Where, as codes, each once: the anatomic region where there is one, else the segment's type."""
    places = {segment.anatomic_region or segment.type: None for segment in about}
    return [sr.FindingSite(anatomic_location=codes.concept(place)) for place in places] or None


def number(
    measurement: Measurement, referenced_coordinates: Sequence[sr.CoordinatesForMeasurement] | None = None
) -> sr.Measurement:
    """One NUM item (PS3.16 TID 300), rounded for reading, exact for computing; what it is about modifies its name."""
    made = sr.Measurement(
        name=codes.concept(measurement.name),
        value=float(measurement.value),
        unit=codes.concept(measurement.unit),
        derivation=codes.concept(measurement.derivation) if measurement.derivation is not None else None,
        referenced_coordinates=referenced_coordinates,
    )
    made[0].MeasuredValueSequence[0].NumericValue = _rounded(measurement.value)
    if measurement.about is not None:
        about = sr.CodeContentItem(
            name=codes.concept(codes.FINDING),
            value=codes.concept(measurement.about),
            relationship_type="HAS CONCEPT MOD",
        )
        made[0].ContentSequence = [*(made[0].get("ContentSequence") or ()), about]
    return made


def _rounded(value: float) -> str:
    """The number as a reader wants it, at most 16 characters (PS3.5, DS); whole where it is large."""
    return f"{value:.0f}" if 10**_DIGITS <= abs(value) < 10**15 else f"{value:.{_DIGITS}g}"
