"""The gate for a report: every number, unit, statement and reference is the findings'."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from pydicom.dataset import Dataset

from dicom_node.errors import GateError
from dicom_node.results import codes, seg, sr
from dicom_node.results.context import ResultContext
from engines.findings import Code, Finding, Findings, Measurement

#: The report's rounded number against the exact one; relative.
_ROUNDING = 1e-5

_GROUP = ("125007", "DCM")
_TRACKING_UID = ("112040", "DCM")
_REFERENCED_SEGMENT = ("121191", "DCM")
_DERIVATION = ("121401", "DCM")
#: Finding and Finding Category of a group (PS3.16 TID 1501): what the segment is, not a statement.
_FINDING = (("121071", "DCM"), ("276214006", "SCT"))

#: Codes in the order name, unit, derivation; then the value, None where the report gives none.
Number = tuple[Code, Code | None, Code | None, float | None]


@dataclass(frozen=True, kw_only=True)
class Group:
    """One measurement group, as read."""

    numbers: list[Number] = field(default_factory=list)
    #: Name and value of each coded statement.
    statements: list[tuple[Code, Code]] = field(default_factory=list)
    comments: list[str] = field(default_factory=list)
    #: SOP Instance UID and segment number of the Referenced Segment.
    segments: list[tuple[str, int]] = field(default_factory=list)


def check(ds: Dataset, context: ResultContext, findings: Findings, segmented: bool) -> None:
    """Compare a report, as read from disk, with the findings. Raises GateError that says what differs."""
    if (ds.get("VerificationFlag"), ds.get("CompletionFlag")) != ("UNVERIFIED", "COMPLETE"):
        raise GateError("an AI report must be UNVERIFIED and COMPLETE")
    groups = read_groups(ds)
    expected = _expected_groups(context, findings, segmented)
    if groups.keys() != expected.keys():
        raise GateError(f"{len(groups)} measurement groups instead of {len(expected)}, or others")
    for uid, wanted in expected.items():
        _compare(groups[uid], wanted)
    _check_evidence(ds, context, segmented)


def read_groups(ds: Dataset) -> dict[str, Group]:
    """Every measurement group of the content tree by its Tracking UID.

    Raises GateError where two groups share one.
    """
    found: dict[str, Group] = {}
    for item in _walk(ds):
        if _name(item) != _GROUP:
            continue
        uids = [str(child.UID) for child in _children(item) if _name(child) == _TRACKING_UID]
        if len(uids) != 1 or uids[0] in found:
            raise GateError("a measurement group has no Tracking UID of its own")
        found[uids[0]] = _read_group(item)
    return found


def _read_group(item: Dataset) -> Group:
    """The items of one group that state something about the patient."""
    group = Group()
    for child in _children(item):
        kind, contained = child.ValueType, child.RelationshipType == "CONTAINS"
        if kind == "NUM":
            group.numbers.append(_read_number(child))
        elif kind == "CODE" and contained and _name(child) not in _FINDING:
            group.statements.append((_concept(child), codes.read(child.ConceptCodeSequence[0])))
        elif kind == "TEXT" and contained:
            group.comments.append(str(child.TextValue))
        elif kind == "IMAGE" and _name(child) == _REFERENCED_SEGMENT:
            reference = child.ReferencedSOPSequence[0]
            group.segments.append(
                (str(reference.ReferencedSOPInstanceUID), int(reference.ReferencedSegmentNumber))
            )
    return group


def _read_number(item: Dataset) -> Number:
    """One NUM item. Raises GateError where its two forms of the number disagree."""
    derivations = [
        codes.read(child.ConceptCodeSequence[0]) for child in _children(item) if _name(child) == _DERIVATION
    ]
    derivation = derivations[0] if derivations else None
    if not item.MeasuredValueSequence:
        return (_concept(item), None, derivation, None)
    measured = item.MeasuredValueSequence[0]
    rounded = float(measured.NumericValue)
    exact = float(measured.get("FloatingPointValue", rounded))
    if not math.isclose(rounded, exact, rel_tol=_ROUNDING, abs_tol=1e-12):
        raise GateError(f"{_concept(item).meaning}: Numeric Value and Floating Point Value differ")
    return (_concept(item), codes.read(measured.MeasurementUnitsCodeSequence[0]), derivation, exact)


def _expected_groups(context: ResultContext, findings: Findings, segmented: bool) -> dict[str, Group]:
    """The groups that the findings call for, by Tracking UID."""
    expected = {}
    for segment in sr.reported(findings):
        own = [_expected_number(m) for m in findings.measurements if m.segment_number == segment.number]
        references = [(context.uid("seg", "instance"), segment.number)] if segmented else []
        words = [text for text in [sr.absence(findings, segment)] if text]
        group = Group(numbers=own, segments=references, comments=words)
        expected[seg.tracking_uid(context, segment.number)] = group
    whole = [_expected_number(m) for m in findings.measurements if m.segment_number is None]
    if whole or not (expected or findings.findings):
        expected[sr.image_tracking_uid(context)] = Group(numbers=whole)
    for finding in findings.findings:
        expected[sr.finding_tracking_uid(context, finding)] = _expected_finding(finding)
    return expected


def _expected_number(measurement: Measurement) -> Number:
    """A measurement as it must read back."""
    if not math.isfinite(measurement.value):
        return (measurement.name, None, measurement.derivation, None)
    return (measurement.name, measurement.unit, measurement.derivation, float(measurement.value))


def _expected_finding(finding: Finding) -> Group:
    """A finding as it must read back."""
    value = codes.PRESENT if finding.present else codes.ABSENT
    return Group(statements=[(finding.code, value)], comments=[sr.comment(finding)])


def _compare(read: Group, wanted: Group) -> None:
    """Raise GateError for the first difference between two groups."""
    if len(read.numbers) != len(wanted.numbers):
        raise GateError(f"{len(read.numbers)} numbers in a group instead of {len(wanted.numbers)}")
    for found, expected in zip(read.numbers, wanted.numbers, strict=True):
        if found != expected:
            raise GateError(f"{expected[0].meaning}: its value, unit or derivation is not the findings'")
    if (read.statements, read.comments) != (wanted.statements, wanted.comments):
        raise GateError("a finding's statement or its words are not the findings'")
    if read.segments != wanted.segments:
        raise GateError("a group refers to another segment or another Segmentation")


def _check_evidence(ds: Dataset, context: ResultContext, segmented: bool) -> None:
    """The evidence must be the source images, and the Segmentation where there is one."""
    expected = set(context.source_uids())
    if segmented:
        expected.add(context.uid("seg", "instance"))
    listed = [
        str(instance.ReferencedSOPInstanceUID)
        for study in ds.get("CurrentRequestedProcedureEvidenceSequence") or ()
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    ]
    if set(listed) != expected or len(listed) != len(expected):
        raise GateError("the evidence is not the source images and the Segmentation")


def _walk(ds: Dataset) -> Iterator[Dataset]:
    """Every content item below this one."""
    for item in _children(ds):
        yield item
        yield from _walk(item)


def _children(item: Dataset) -> list[Dataset]:
    """The content items right below this one."""
    return list(item.get("ContentSequence") or ())


def _concept(item: Dataset) -> Code:
    """A content item's concept name."""
    return codes.read(item.ConceptNameCodeSequence[0])


def _name(item: Dataset) -> tuple[str, str]:
    """A content item's concept name, without its meaning."""
    names = item.get("ConceptNameCodeSequence")
    code = codes.read(names[0]) if names else Code(value="", scheme="", meaning="")
    return (code.value, code.scheme)
