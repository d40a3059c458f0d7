"""The gate for a report: every number, unit, statement and reference is the findings'."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from dicom_node.errors import GateError
from dicom_node.results import (
    boxes,
    codes,
    content_tree,
    outline,
    references,
    segments,
    sr_words,
    verify_regions,
)
from dicom_node.results.context import ResultContext
from engines.findings import Code, Findings, Measurement

#: The report's rounded number against the exact one; relative.
_ROUNDING = 1e-5

_GROUP = ("125007", "DCM")
_TRACKING_UID = ("112040", "DCM")
_REFERENCED_SEGMENT = ("121191", "DCM")
_DERIVATION = ("121401", "DCM")
_ABOUT = ("121071", "DCM")
#: Finding and Finding Category of a group (PS3.16 TID 1501): what the segment is, not a statement.
_FINDING = (_ABOUT, ("276214006", "SCT"))

#: Name, unit, derivation, value, and what it is about.
Number = tuple[Code, Code, Code | None, float, Code | None]


@dataclass(frozen=True, kw_only=True)
class Group:
    """One measurement group, as read."""

    numbers: list[Number] = field(default_factory=list)
    #: Name and value of each coded statement.
    statements: list[tuple[Code, Code]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    #: SOP Instance UID and segment number of each segment referred to.
    segments: list[tuple[str, int]] = field(default_factory=list)
    #: What is measured.
    subjects: list[Code] = field(default_factory=list)
    regions: list[verify_regions.Region] = field(default_factory=list)


def check(ds: Dataset, context: ResultContext, findings: Findings, made: Collection[str]) -> None:
    """Compare a report, as read from disk, with the findings. GateError says what differs."""
    if (ds.get("VerificationFlag"), ds.get("CompletionFlag")) != ("UNVERIFIED", "COMPLETE"):
        raise GateError("an AI report must be UNVERIFIED and COMPLETE")
    kind = segments.referred(made)
    segmentation = context.uid(kind, "instance") if kind is not None else None
    groups = read_groups(ds)
    _check_account(groups, findings)
    expected = {group.tracking_uid: group for group in outline.groups(context, findings)}
    if groups.keys() != expected.keys():
        raise GateError(f"{len(groups)} measurement groups instead of {len(expected)}, or others")
    for uid, group in expected.items():
        _check_group(groups[uid], group, segmentation)
        _check_box(groups[uid], group, context)
    if sr_words.read(ds) != list(sr_words.lines(context, findings)):
        raise GateError("the report in words is not that of the findings")
    _check_evidence(ds, context, segmentation)
    _check_predecessor(ds, context)


def read_groups(ds: Dataset) -> dict[str, Group]:
    """Every measurement group of the content tree by its Tracking UID.

    Raises GateError where a group has none, or two groups share one.
    """
    found: dict[str, Group] = {}
    for item in content_tree.walk(ds):
        if content_tree.name(item) != _GROUP:
            continue
        uids = [
            str(child.UID)
            for child in content_tree.children(item)
            if content_tree.name(child) == _TRACKING_UID
        ]
        if len(uids) != 1 or uids[0] in found:
            raise GateError("a measurement group has no Tracking UID of its own")
        found[uids[0]] = _read_group(item)
    return found


def _read_group(item: Dataset) -> Group:
    """The items of one group that state something about the patient."""
    group = Group()
    for child in content_tree.children(item):
        kind, contained = child.ValueType, child.RelationshipType == "CONTAINS"
        if kind == "NUM":
            group.numbers.append(read_number(child))
        elif kind == "CODE" and contained and content_tree.name(child) not in _FINDING:
            group.statements.append((content_tree.concept(child), codes.read(child.ConceptCodeSequence[0])))
        elif kind == "CODE" and content_tree.name(child) == _ABOUT:
            group.subjects.append(codes.read(child.ConceptCodeSequence[0]))
        elif kind == "SCOORD":
            group.regions.append(verify_regions.read(child))
        elif kind == "TEXT" and contained:
            group.comments.append(str(child.TextValue))
        elif kind == "IMAGE" and content_tree.name(child) == _REFERENCED_SEGMENT:
            group.segments.extend(_read_reference(child))
    return group


def _read_reference(item: Dataset) -> list[tuple[str, int]]:
    """The segments that an IMAGE item refers to."""
    reference = item.ReferencedSOPSequence[0]
    numbers = reference.ReferencedSegmentNumber
    listed = list(numbers) if isinstance(numbers, Sequence) else [numbers]
    return [(str(reference.ReferencedSOPInstanceUID), int(number)) for number in listed]


def read_number(item: Dataset) -> Number:
    """One NUM item. Raises GateError where its two forms of the number disagree."""
    modifiers = {
        content_tree.name(child): codes.read(child.ConceptCodeSequence[0])
        for child in content_tree.children(item)
        if child.ValueType == "CODE"
    }
    measured = item.MeasuredValueSequence[0]
    rounded = float(measured.NumericValue)
    exact = float(measured.get("FloatingPointValue", rounded))
    if not math.isclose(rounded, exact, rel_tol=_ROUNDING, abs_tol=1e-12):
        raise GateError(
            f"{content_tree.concept(item).meaning}: Numeric Value and Floating Point Value differ"
        )
    return (
        content_tree.concept(item),
        codes.read(measured.MeasurementUnitsCodeSequence[0]),
        modifiers.get(_DERIVATION),
        exact,
        modifiers.get(_ABOUT),
    )


def _check_account(groups: dict[str, Group], findings: Findings) -> None:
    """Every measurement and every finding must be in the report once, in whichever group."""
    read = Counter(number for group in groups.values() for number in group.numbers)
    own = [item for box in boxes.placed(findings) for item in boxes.measurements(box, findings.geometry)]
    if read != Counter(map(expected_number, [*outline.computed(findings.measurements), *own])):
        raise GateError("the report's numbers, units or derivations are not the findings'")
    stated = Counter(statement for group in groups.values() for statement in group.statements)
    if stated != Counter((item.code, _verdict(present=item.present)) for item in findings.findings):
        raise GateError("the report's statements are not the findings'")


def expected_number(measurement: Measurement) -> Number:
    """A measurement as it must read back."""
    return (
        measurement.name,
        measurement.unit,
        measurement.derivation,
        float(measurement.value),
        measurement.about,
    )


def _verdict(*, present: bool) -> Code:
    """A finding's value as it must read back."""
    return codes.PRESENT if present else codes.ABSENT


def _check_group(read: Group, wanted: outline.Group, segmentation: str | None) -> None:
    """Raise GateError for the first difference between a group and what it should say."""
    if read.numbers != [expected_number(item) for item in wanted.measurements]:
        raise GateError(f"the numbers of {wanted.tracking_id} are not its own")
    finding = wanted.finding
    statements = [(finding.code, _verdict(present=finding.present))] if finding is not None else []
    if read.statements != statements or read.comments != ([wanted.comment] if wanted.comment else []):
        raise GateError(f"the statement or the words of {wanted.tracking_id} are not its own")
    references = [(segmentation, segment.number) for segment in wanted.segments] if segmentation else []
    if read.segments != references:
        raise GateError(f"{wanted.tracking_id} refers to another segment or another Segmentation")


def _check_box(read: Group, wanted: outline.Group, context: ResultContext) -> None:
    """The coordinates of a group must run around its box, on the image of its slice; others have none."""
    if wanted.box is None:
        if read.regions:
            raise GateError(f"{wanted.tracking_id} has coordinates, and is about no box")
        return
    if read.subjects != [wanted.box.box.code]:
        raise GateError(f"{wanted.tracking_id} is said to be something else than its class")
    shape = context.source.volume.geometry.shape
    image = context.source_slices()[wanted.box.slice]
    if [region.image for region in read.regions] != [image] or not verify_regions.surrounds(
        read.regions[0], wanted.box.box, shape
    ):
        raise GateError(f"the rectangle of {wanted.tracking_id} does not run around its box")


def _check_evidence(ds: Dataset, context: ResultContext, segmentation: str | None) -> None:
    """The evidence must be the images that were looked at, and the Segmentation where there is one."""
    expected = {str(image.SOPInstanceUID) for series in context.looked_at() for image in series}
    if segmentation is not None:
        expected.add(segmentation)
    listed = [uids[-1] for uids in references.read(ds, "CurrentRequestedProcedureEvidenceSequence")]
    if set(listed) != expected or len(listed) != len(expected):
        raise GateError("the evidence is not the images that were looked at and the Segmentation")


def _check_predecessor(ds: Dataset, context: ResultContext) -> None:
    """The predecessors must be the documents whose place this one takes, and no others."""
    study = str(context.header.StudyInstanceUID)
    expected = [
        (study, report.series_instance_uid, report.sop_class_uid, report.sop_instance_uid)
        for report in context.replaced_documents
    ]
    if references.read(ds, "PredecessorDocumentsSequence") != expected:
        raise GateError("the predecessors are not the documents whose place this one takes")
